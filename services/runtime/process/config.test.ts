import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  boolean,
  ConfigError,
  durationMs,
  hashConfig,
  integer,
  maskConfig,
  oneOf,
  parseConfig,
  parsed,
  port,
  processSettings,
  ratio,
  type Setting,
  type Settings,
  text,
  usage,
} from './config.ts';

const settings = {
  port: { env: 'PORT', help: 'port of the service (8080)', default: 8080, schema: port() },
  drainDelayMs: { env: 'DRAIN_DELAY', help: 'delay (5s)', default: 5_000, schema: durationMs({ min: 0, max: 60_000 }) },
  target: { env: 'UPSTREAM_TARGET', flag: 'target', help: 'what to call', schema: text() },
  token: { env: 'TOKEN', help: 'credentials', secret: true, default: undefined, schema: text() },
  dryRun: { flag: 'dry-run', help: 'only say what would be done' },
} satisfies Settings;

describe('parseConfig', () => {
  const argv = ['--target', 'a'];

  it('takes defaults where nothing is said, and freezes the result', () => {
    const config = parseConfig(settings, { env: {}, argv });
    assert.deepEqual(config, { port: 8080, drainDelayMs: 5_000, target: 'a', token: undefined, dryRun: false });
    assert.ok(Object.isFrozen(config));
    const typed: { port: number; drainDelayMs: number; target: string; token: string | undefined; dryRun: boolean } =
      config;
    assert.ok(typed);
  });

  it('prefers a flag to the variable, in either form, and the last of several', () => {
    const env = { PORT: '1', DRAIN_DELAY: '1s' };
    const config = parseConfig(settings, {
      env,
      argv: ['--port=2', '--port', '3', '--target=b=c', '--drain-delay=2s'],
    });
    assert.deepEqual(config, { port: 3, drainDelayMs: 2_000, target: 'b=c', token: undefined, dryRun: false });
    assert.equal(parseConfig(settings, { env, argv }).port, 1);
  });

  it('treats an empty variable as unset, but not an empty flag', () => {
    assert.equal(parseConfig(settings, { env: { PORT: '' }, argv }).port, 8080);
    assert.deepEqual(problemsOf({}, ['--target=']), ['--target "" must not be empty']);
  });

  it('lists every problem in one message', () => {
    assert.throws(
      () => parseConfig(settings, { env: { DRAIN_DELAY: '90s', PORT: 'abc' }, argv: ['--prot', '1', 'x', '--target'] }),
      {
        name: 'ConfigError',
        message: `invalid configuration:
  PORT "abc" must be an integer from 0 to 65535
  DRAIN_DELAY 90s must be <= 60s
  UPSTREAM_TARGET is required: what to call
  --prot is not a flag of this program (see --help)
  "x" is not a flag
  --target needs a value`,
      },
    );
  });

  it('names the flag where the value came from one', () => {
    assert.deepEqual(problemsOf({ PORT: '80' }, [...argv, '--port', '70000']), ['--port 70000 must be <= 65535']);
  });

  it('takes no flag that follows for a value', () => {
    assert.deepEqual(problemsOf({ PORT: '80' }, ['--port', '--target', 'a']), ['--port needs a value']);
  });

  it('takes a switch without a value, and what follows it for itself', () => {
    assert.equal(parseConfig(settings, { env: {}, argv: ['--dry-run', ...argv] }).dryRun, true);
    assert.deepEqual(problemsOf({}, [...argv, '--dry-run', 'yes']), ['"yes" is not a flag']);
    assert.deepEqual(problemsOf({}, [...argv, '--dry-run=yes']), ['--dry-run takes no value']);
  });

  it('lets a problem that names its file and line stand for itself', () => {
    const file = parsed(() => {
      throw new ConfigError(['/etc/a.yaml:3: name is missing', 'the file is empty']);
    });
    const read = () => parseConfig({ file: { env: 'FILE', help: '', schema: file } }, { env: { FILE: 'a' }, argv: [] });
    assert.throws(read, { problems: ['/etc/a.yaml:3: name is missing', 'FILE: the file is empty'] });
  });

  it('keeps a secret out of messages and off the command line', () => {
    const secret = { key: { env: 'KEY', help: 'a number', secret: true, schema: integer({ min: 1, max: 9 }) } };
    assert.throws(() => parseConfig(secret, { env: { KEY: 'hunter2' }, argv: ['--key', 'hunter2'] }), {
      problems: ['KEY *** must be an integer from 1 to 9', '--key is not a flag of this program (see --help)'],
    });
  });

  it('shortens a long value', () => {
    const [problem] = problemsOf({ PORT: 'x'.repeat(1_000) }, argv);
    assert.equal(problem, `PORT "${'x'.repeat(60)}…" must be an integer from 0 to 65535`);
  });
});

describe('the value', () => {
  const minute = durationMs({ min: 10, max: 60_000 });
  const cases: [string, Setting<unknown>['schema'], given: string, expected: unknown][] = [
    ['a duration in milliseconds', minute, '250ms', 250],
    ['a duration in seconds', minute, '5s', 5_000],
    ['a duration in fractions', minute, '0.5s', 500],
    ['a duration in minutes', minute, '1m', 60_000],
    ['a duration in hours', durationMs({ min: 0, max: 1e9 }), '2h', 7_200_000],
    ['no duration at all', durationMs({ min: 0, max: 1 }), '0', 0],
    ['a duration without a unit', minute, '5', 'X 5 must be a duration such as 250ms, 5s or 1m'],
    ['a duration of two units', minute, '1m30s', 'X 1m30s must be a duration such as 250ms, 5s or 1m'],
    ['a negative duration', minute, '-5s', 'X "-5s" must be a duration such as 250ms, 5s or 1m'],
    ['too short a duration', minute, '1ms', 'X 1ms must be >= 10ms'],
    ['too long a duration', minute, '2m', 'X 2m must be <= 60s'],
    ['an integer', integer({ min: -5, max: 5 }), '-5', -5],
    ['a fraction for an integer', integer({ min: 0, max: 5 }), '1.5', 'X 1.5 must be an integer from 0 to 5'],
    ['an integer with an exponent', integer({ min: 0, max: 5 }), '1e0', 'X 1e0 must be an integer from 0 to 5'],
    ['a share', ratio(), '0.05', 0.05],
    ['the whole', ratio(), '1', 1],
    ['more than the whole', ratio(), '1.01', 'X 1.01 must be <= 1'],
    ['a share in percent', ratio(), '5%', 'X "5%" must be a number from 0 to 1'],
    ['too small an integer', integer({ min: 2, max: 5 }), '1', 'X 1 must be >= 2'],
    ['any free port', port(), '0', 0],
    ['too high a port', port(), '65536', 'X 65536 must be <= 65535'],
    ['a word', oneOf(['a', 'b']), 'b', 'b'],
    ['another word', oneOf(['a', 'b']), 'c', 'X "c" must be one of a, b'],
    ['true', boolean(), 'true', true],
    ['false', boolean(), 'false', false],
    ['yes', boolean(), 'yes', 'X "yes" must be one of true, false'],
    ['what a function makes', parsed(JSON.parse), '[1]', [1]],
    ['what a function refuses', parsed(refuse), 'v', 'X: cannot be read'],
  ];
  for (const [what, schema, given, expected] of cases) {
    it(`of ${what}: ${given}`, () => {
      const setting = { x: { env: 'X', help: '', schema } };
      const read = () => parseConfig(setting, { env: { X: given }, argv: [] }).x;
      if (typeof expected === 'string' && expected.startsWith('X')) assert.throws(read, { problems: [expected] });
      else assert.deepEqual(read(), expected);
    });
  }

  it('of a function that finds several problems: each is listed', () => {
    const policy = parsed(() => {
      throw new ConfigError(['a[0] is no number', 'b is missing']);
    });
    const read = () => parseConfig({ x: { env: 'X', help: '', schema: policy } }, { env: { X: '{}' }, argv: [] });
    assert.throws(read, { problems: ['X: a[0] is no number', 'X: b is missing'] });
  });
});

describe('maskConfig', () => {
  it('shows what is set, but not the secrets', () => {
    const config = parseConfig(settings, { env: { TOKEN: 'hunter2' }, argv: ['--target', 'a'] });
    assert.deepEqual(maskConfig(settings, config), {
      port: 8080,
      drainDelayMs: 5_000,
      target: 'a',
      token: '***',
      dryRun: false,
    });
  });

  it('shows that a secret is not set', () => {
    assert.deepEqual(maskConfig(settings, { token: undefined }), { token: undefined });
  });
});

describe('usage', () => {
  it('has a line for each setting', () => {
    assert.equal(
      usage('gateway', settings),
      `usage: gateway [--flag value]...

Each setting is a flag or an environment variable; the flag wins.

  --port         PORT             port of the service (8080)
  --drain-delay  DRAIN_DELAY      delay (5s)
  --target       UPSTREAM_TARGET  what to call
                 TOKEN            credentials
  --dry-run                       only say what would be done
`,
    );
  });
});

describe('hashConfig', () => {
  const hash = (env: Record<string, string>) => {
    const all = { ...processSettings, token: { env: 'TOKEN', help: '', default: '', secret: true, schema: text() } };
    return hashConfig(all, parseConfig(all, { env, argv: [] }));
  };

  it('is that of every replica with the same settings', () => {
    assert.match(hash({}), /^[0-9a-f]{12}$/);
    assert.equal(hash({ POD_NAME: 'a', HOST: '10.0.0.7' }), hash({ POD_NAME: 'b', HOST: '10.0.0.8' }));
    assert.equal(hash({ DRAIN_DELAY: '5000ms' }), hash({}));
    assert.notEqual(hash({ DRAIN_DELAY: '6s' }), hash({}));
  });

  it('tells nothing of a secret', () => {
    assert.equal(hash({ TOKEN: 'a' }), hash({ TOKEN: 'b' }));
  });
});

describe('processSettings', () => {
  it('need nothing to be set', () => {
    const config = parseConfig(processSettings, { env: {}, argv: [] });
    assert.partialDeepStrictEqual(config, {
      adminPort: 9090,
      logLevel: 'info',
      logFormat: 'auto',
      drainDelayMs: 5_000,
      drainGraceMs: 20_000,
    });
  });
});

function problemsOf(env: Record<string, string>, argv: readonly string[]): readonly string[] {
  try {
    parseConfig(settings, { env, argv });
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.problems;
  }
  return assert.fail('it was accepted');
}

function refuse(): never {
  throw new Error('cannot be read');
}
