import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ConfigError } from '#runtime/process/config.ts';
import { readConfigFile } from './config-file.ts';

const directory = mkdtempSync(join(tmpdir(), 'tandem-config-'));
after(() => rmSync(directory, { recursive: true }));
const path = join(directory, 'gateway.yaml');

function read(yaml: string) {
  writeFileSync(path, yaml);
  return readConfigFile(path);
}

/** The problems without the path of the file: `12: upstreams[0].targts is not a field of the configuration`. */
function problemsOf(yaml: string): string[] {
  try {
    read(yaml);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.problems.map((problem) => problem.replace(`${path}:`, ''));
  }
  return assert.fail('it was accepted');
}

test('reads upstreams, with their defaults', () => {
  const { upstreams } = read(`
upstreams:
  - name: greeter
    targets: [kubernetes:///greeter:grpc, dns:///backup:50051]
    services: [helloworld.Greeter]
    serviceConfig:
      methodConfig: [{ name: [{}], timeout: 1.5s }]
    connectionsPerEndpoint: 2
    concurrency: { max: 2 }
    tls: { serverName: greeter.example }
  - name: rest
    targets: [dns:///rest:50051]
`);
  assert.deepEqual(upstreams, [
    {
      name: 'greeter',
      targets: ['kubernetes:///greeter:grpc', 'dns:///backup:50051'],
      services: ['helloworld.Greeter'],
      serviceConfig: { methodConfig: [{ name: [{}], timeout: '1.5s' }] },
      connectionsPerEndpoint: 2,
      concurrency: { min: 2, max: 2 },
      tls: { serverName: 'greeter.example' },
    },
    { name: 'rest', targets: ['dns:///rest:50051'], serviceConfig: undefined, connectionsPerEndpoint: 1 },
  ]);
});

test('takes a file that names no upstreams', () => {
  assert.equal(read('{}').upstreams, undefined);
});

test('says where something stands, or would stand', () => {
  const { placeOf } = read('# first\nupstreams:\n  - name: a\n    targets:\n      - dns:///a:1\n      - dns:///b:1\n');
  assert.equal(placeOf('upstreams'), `${path}:2`);
  assert.equal(placeOf('upstreams', 0, 'targets', 1), `${path}:6`);
  assert.equal(placeOf('upstreams', 0, 'services', 3), `${path}:3`);
});

const mistakes: [what: string, yaml: string, problems: string[]][] = [
  ['nothing', '', ['1: the configuration null must be an object']],
  ['a list', '- a', ['1: the configuration ["a"] must be an object']],
  ['a field twice', 'upstreams: []\nupstreams: []', ['2: Map keys must be unique']],
  ['no YAML', 'upstreams:\n  - name: "a\n', ['3: Missing closing "quote']],
  ['two documents', '{}\n---\n{}\n', ['2: Source contains multiple documents; please use YAML.parseAllDocuments()']],
  ['an unknown tag', 'upstreams: !secret x\n', ['1: Unresolved tag: !secret']],
  [
    'unknown fields',
    'caches: []\n\ncros: {}\n',
    ['1: caches is not a field of the configuration', '3: cros is not a field of the configuration'],
  ],
  ['a prototype', '\n__proto__: {}', ['2: __proto__ is not a field of the configuration']],
  [
    'problems of every kind at once, in the order of their lines',
    `upstreams:
  - name: Greeter
    targts: [dns:///a:1]
    targets:
      - dns:///a:1
      - zookeeper:a
    connectionsPerEndpoint: many
  - targets: dns:///a:1
    tls:
      ca: 3
      key: nowhere.key
    services: []
    serviceConfig:
      loadBalancingConfig:
        - ring_hash: {}
      methodConfig:
        - name: [{ service: a }]
          retryPolicy: { maxAttempts: 9 }
        - name:
            - { service: a }
`,
    [
      '2: upstreams[0].name "Greeter" must be up to 63 small letters, digits and hyphens',
      '3: upstreams[0].targts is not a field of the configuration',
      '6: upstreams[0].targets[1]: target "zookeeper:a" must begin with dns:///, kubernetes:///, file:///, ipv4: or ipv6:',
      '7: upstreams[0].connectionsPerEndpoint "many" must be a number',
      '8: upstreams[1].name is missing',
      '8: upstreams[1].targets "dns:///a:1" must be a list',
      '10: upstreams[1].tls.ca 3 must be text',
      '12: upstreams[1].services [] must name at least one service',
      '15: upstreams[1].serviceConfig.loadBalancingConfig[0].ring_hash is not a field of the configuration',
      '18: upstreams[1].serviceConfig.methodConfig[0].retryPolicy.initialBackoff is missing',
      '18: upstreams[1].serviceConfig.methodConfig[0].retryPolicy.maxBackoff is missing',
      '18: upstreams[1].serviceConfig.methodConfig[0].retryPolicy.backoffMultiplier is missing',
      '18: upstreams[1].serviceConfig.methodConfig[0].retryPolicy.retryableStatusCodes is missing',
      '18: upstreams[1].serviceConfig.methodConfig[0].retryPolicy.maxAttempts 9 must be <= 5',
    ],
  ],
  [
    'bounds of the concurrency that leave nothing between them',
    'upstreams:\n  - name: a\n    targets: [dns:///a:1]\n    concurrency:\n      max: 3\n      min: 4\n',
    ['6: upstreams[0].concurrency.min 4 must be <= max 3'],
  ],
  [
    'what is named twice',
    `upstreams:
  - name: a
    targets: [dns:///a:1, dns:///b:1, dns:///a:1]
    services: [x.Y, x.Z]
    serviceConfig:
      methodConfig:
        - name: [{}]
        - name: [{}]
  - name: a
    targets: [dns:///a:1]
    services:
      - x.W
      - x.Y
`,
    [
      '3: upstreams[0].targets[2] "dns:///a:1" must not be named twice',
      '8: upstreams[0].serviceConfig.methodConfig[1].name[0] {} must not be named twice',
      '9: upstreams[1].name "a" must not be named twice',
      '13: upstreams[1].services[1] "x.Y" must not be named twice',
    ],
  ],
  [
    'two upstreams for all the rest',
    'upstreams:\n  - { name: a, targets: [dns:///a:1] }\n  - { name: b, targets: [dns:///b:1] }\n',
    ['3: upstreams[1].services must be named: another upstream has those that are not'],
  ],
  [
    'a mistake behind an alias, where it is used',
    'upstreams:\n  - &a { name: a, targets: [dns:///a:1], x: 1 }\n  - *a\n',
    ['2: upstreams[0].x is not a field of the configuration', '2: upstreams[1].x is not a field of the configuration'],
  ],
];
for (const [what, yaml, problems] of mistakes) {
  test(`refuses ${what}`, () => assert.deepEqual(problemsOf(yaml), problems));
}

test('refuses TLS files that are missing or stand alone, relative to its directory', () => {
  writeFileSync(join(directory, 'tls.crt'), 'no certificate');
  const tls = (fields: string) => `upstreams:\n  - name: a\n    targets: [dns:///a:1]\n    tls:\n${fields}`;
  assert.deepEqual(problemsOf(tls('      ca: nowhere.crt\n      cert: tls.crt\n')), [
    '4: upstreams[0].tls.key must stand beside cert',
    `5: upstreams[0].tls.ca: ${join(directory, 'nowhere.crt')} cannot be read: ENOENT`,
    `6: upstreams[0].tls.cert: ${join(directory, 'tls.crt')} holds no certificate in PEM`,
  ]);
  assert.deepEqual(problemsOf(tls('      key: /nowhere/tls.key\n')), [
    '4: upstreams[0].tls.cert must stand beside key',
    '5: upstreams[0].tls.key: /nowhere/tls.key cannot be read: ENOENT',
  ]);
});

test('refuses aliases that grow without end', () => {
  const bomb = [
    'a: &a [x]',
    ...Array.from('bcdefgh').map((name, i) => `${name}: &${name} [${`*${'abcdefg'[i]},`.repeat(9)}]`),
  ];
  assert.match(problemsOf(bomb.join('\n')).join(), /^1: Excessive alias count/);
});

test('says which file cannot be read', () => {
  assert.throws(() => readConfigFile('/nowhere/gateway.yaml'), {
    problems: ['/nowhere/gateway.yaml cannot be read: ENOENT'],
  });
});
