import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { createLog, type Logger } from './log.ts';

describe('createLog', () => {
  it('writes a JSON object a line, with an ISO time, a level by name, the service and the pod', () => {
    const [line] = jsonLines((log) => log.info({ port: 50051 }, 'serving'));
    const { time, ...rest } = line ?? {};
    assert.deepEqual(rest, { level: 'info', service: 'greeter', pod: 'greeter-0', port: 50051, msg: 'serving' });
    assert.equal(new Date(String(time)).toISOString(), time);
  });

  it('leaves out what is below the level', () => {
    const lines = jsonLines((log) => {
      log.debug('no');
      log.warn('yes');
    });
    assert.deepEqual(
      lines.map(({ msg }) => msg),
      ['yes'],
    );
  });

  it('changes its level while it runs, with those of the loggers made from it', () => {
    const lines = jsonLines((log) => {
      const child = log.child({ upstream: 'a' });
      const grandchild = child.child({ endpoint: 'b' });
      for (const level of ['debug', 'info', 'debug', 'warn']) {
        log.level = level;
        for (const each of [log, child, grandchild]) each.debug(level);
      }
    });
    assert.deepEqual(
      lines.map(({ msg, upstream, endpoint }) => [msg, upstream, endpoint]),
      ['debug', 'debug'].flatMap((level) => [
        [level, undefined, undefined],
        [level, 'a', undefined],
        [level, 'a', 'b'],
      ]),
    );
  });

  it('keeps credentials out', () => {
    const headers = { authorization: 'Bearer s3cret', cookie: 's3cret', 'set-cookie': ['s3cret'], accept: '*/*' };
    const text = written('json', (log) => {
      log.info({ ...headers, headers, metadata: headers, req: { headers, url: '/' } }, 'called');
    });
    assert.doesNotMatch(text, /s3cret/);
    assert.match(text, /"req":{"headers":{"authorization":"\*\*\*",.*"accept":"\*\/\*"},"url":"\/"}/);
  });

  it('writes the stack of an error', () => {
    const [line] = jsonLines((log) => log.error({ err: new Error('boom') }, 'failed'));
    assert.match(JSON.stringify(line?.err), /boom.*log\.test\.ts/);
  });

  it('is pretty when told so, and for auto only on a terminal', () => {
    const log = (to: Logger) => to.info({ port: 50051 }, 'serving');
    assert.match(written('pretty', log), /^\[\d\d:\d\d:\d\d\.\d{3}\] INFO: greeter serving\n {4}port: 50051\n$/);
    assert.match(written('auto', log), /^{"level":"info"/);
    assert.match(written('auto', log, { isTTY: true }), /INFO.*greeter serving/);
  });

  it('has written everything when the process exits', () => {
    const script = `
      import { createLog } from ${JSON.stringify(new URL('log.ts', import.meta.url).href)};
      const log = createLog({ service: 's', podName: 'p', level: 'info', format: 'json', stdout: process.stdout });
      for (let i = 0; i < 2_000; i++) log.info({ i }, 'x'.repeat(100));
      process.exit(0);`;
    const output = execFileSync(process.execPath, ['--input-type=module', '--eval', script], { encoding: 'utf8' });
    assert.equal(output.trimEnd().split('\n').length, 2_000);
  });
});

function jsonLines(use: (log: Logger) => void): Record<string, unknown>[] {
  const lines = written('json', use).trimEnd().split('\n');
  return lines.map((line) => JSON.parse(line));
}

/** What `use` logs, by way of a file in place of standard output. */
function written(format: 'auto' | 'json' | 'pretty', use: (log: Logger) => void, options = { isTTY: false }): string {
  const directory = mkdtempSync(join(tmpdir(), 'log-test-'));
  const file = join(directory, 'log');
  const fd = openSync(file, 'w');
  try {
    use(createLog({ service: 'greeter', podName: 'greeter-0', level: 'info', format, stdout: { fd, ...options } }));
    return readFileSync(file, 'utf8');
  } finally {
    closeSync(fd);
    rmSync(directory, { recursive: true });
  }
}
