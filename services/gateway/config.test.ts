import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { maskConfig, parseConfig } from '#runtime/process/config.ts';
import { defaultServiceConfig, settings, upstreamsOf } from './config.ts';

const directory = mkdtempSync(join(tmpdir(), 'tandem-config-'));
after(() => rmSync(directory, { recursive: true }));
const path = join(directory, 'gateway.yaml');

/** The upstreams of a gateway whose descriptors have the services `a.A` and `b.B`. */
function upstreams(yaml: string, env: Record<string, string> = {}) {
  writeFileSync(path, yaml);
  const config = parseConfig(settings, { env, argv: yaml === '' ? [] : ['--config', path] });
  return upstreamsOf(config, ['a.A', 'b.B']);
}

test('TARGET is one upstream for all services', () => {
  const env = { TARGET: 'dns:///a:1 dns:///b:1', SERVICE_CONFIG: '{"methodConfig":[]}' };
  const all = { name: 'default', services: ['a.A', 'b.B'], connectionsPerEndpoint: 1, place: 'TARGET' };
  assert.deepEqual(upstreams('', env), [
    { ...all, targets: ['dns:///a:1', 'dns:///b:1'], serviceConfig: { methodConfig: [] } },
  ]);
  const byDefault = { ...all, targets: ['dns:///localhost:50051'], serviceConfig: defaultServiceConfig };
  assert.deepEqual(upstreams(''), [byDefault]);
  assert.deepEqual(upstreams('{}'), [byDefault], 'a file without upstreams changes nothing');
});

test('a service goes to the upstream that names it, and the rest to the one that names none', () => {
  const found = upstreams(`
upstreams:
  - { name: a, targets: [dns:///a:1], services: [a.A] }
  - { name: rest, targets: [dns:///b:1], serviceConfig: {} }
`);
  assert.deepEqual(
    found.map(({ name, services, serviceConfig, place }) => ({ name, services, serviceConfig, place })),
    [
      { name: 'a', services: ['a.A'], serviceConfig: defaultServiceConfig, place: `${path}:3` },
      { name: 'rest', services: ['b.B'], serviceConfig: {}, place: `${path}:4` },
    ],
  );
});

const mistakes: [what: string, yaml: string, env: Record<string, string>, problems: string[]][] = [
  [
    'upstreams beside what they take the place of',
    'upstreams:\n  - { name: a, targets: [dns:///a:1] }\n',
    { TARGET: 'dns:///a:1', SERVICE_CONFIG: '{}' },
    ['1: upstreams must not stand beside TARGET', '1: upstreams must not stand beside SERVICE_CONFIG'],
  ],
  [
    'a service that nobody serves, and one that there is not',
    'upstreams:\n  - name: a\n    targets: [dns:///a:1]\n    services:\n      - a.A\n      - a.B\n',
    {},
    [
      '1: upstreams must have one that serves b.B',
      '6: upstreams[0].services[1] "a.B" must be a service of the descriptors: a.A, b.B',
    ],
  ],
  [
    'an upstream that is left without a service',
    'upstreams:\n  - { name: a, targets: [dns:///a:1], services: [a.A, b.B] }\n  - { name: b, targets: [dns:///b:1] }\n',
    {},
    ['3: upstreams[1] has no service: the others name all'],
  ],
];
for (const [what, yaml, env, problems] of mistakes) {
  test(`refuses ${what}`, () => {
    assert.throws(() => upstreams(yaml, env), { problems: problems.map((problem) => `${path}:${problem}`) });
  });
}

test('lists the problems of the file beside those of the environment', () => {
  assert.throws(() => upstreams('\nupstream: []\n', { PORT: 'http', TARGET: 'localhost' }), {
    problems: [
      'PORT "http" must be an integer from 0 to 65535',
      `${path}:2: upstream is not a field of the configuration`,
      'TARGET: target "localhost" must begin with dns:///, kubernetes:///, file:///, ipv4: or ipv6:',
    ],
  });
});

test('trusted proxies are addresses and networks, and what is none is a problem', () => {
  const read = (text: string) => parseConfig(settings, { env: { TRUSTED_PROXIES: text }, argv: [] }).trustedProxies;
  assert.deepEqual(read('10.0.0.0/8, 192.0.2.1 fd00::/8,::1'), ['10.0.0.0/8', '192.0.2.1', 'fd00::/8', '::1']);
  for (const wrong of ['10.0.0.0/33', '10.0.0/8', 'fd00::/129', '1.2.3.4/', '1.2.3.4/8/8', 'loopback']) {
    assert.throws(() => read(`::1,${wrong}`), new RegExp(`"${wrong}" is not an address or a network`));
  }
});

test('the URL of a Redis is a secret', () => {
  const read = (url: string) => parseConfig(settings, { env: { QUOTA_REDIS_URL: url }, argv: [] });
  const config = read('rediss://:hush@redis.example:6380/1');
  assert.equal(config.quotaRedisUrl, 'rediss://:hush@redis.example:6380/1');
  assert.equal(maskConfig(settings, config)['quotaRedisUrl'], '***');
  assert.throws(
    () => read('http://:hush@redis.example'),
    (error: Error) => /QUOTA_REDIS_URL .*must be a redis:/.test(error.message) && !error.message.includes('hush'),
  );
});
