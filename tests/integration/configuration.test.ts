import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { Ajv, type AnySchemaObject } from 'ajv';
import { parse } from 'yaml';
import type { Settings } from '#runtime/process/config.ts';
import { settings as gatewaySettings } from '../../services/gateway/config.ts';
import { settings as greeterSettings } from '../../services/greeter/config.ts';
import { projectFile, runProgramFile } from '../harness/command.ts';

const cases = [
  {
    program: 'greeter',
    env: { PORT: '70000', DRAIN_DELAY: '5 minutes', LOG_LEVEL: 'loud' },
    args: ['--max-connection-age', '0s', '--colour', 'red'],
    problems: [
      'PORT 70000 must be <= 65535',
      '--max-connection-age 0s must be >= 1s',
      'DRAIN_DELAY "5 minutes" must be a duration such as 250ms, 5s or 1m',
      'LOG_LEVEL "loud" must be one of trace, debug, info, warn, error, fatal',
      '--colour is not a flag of this program',
    ],
  },
  {
    program: 'gateway',
    env: { TARGET: 'localhost', SERVICE_CONFIG: '{"loadBalancingConfig":[{"ring_hash":{}}],"retry":{}}' },
    args: ['--port', 'http', '--drain-grace'],
    problems: [
      '--port "http" must be an integer from 0 to 65535',
      'TARGET: target "localhost" must begin with dns:///',
      'SERVICE_CONFIG: loadBalancingConfig',
      'SERVICE_CONFIG: retry',
      '--drain-grace needs a value',
    ],
  },
  {
    program: 'lab',
    env: { REPLICAS: '27', GREETER_PORT: 'x' },
    args: ['--port=-1', 'fast'],
    problems: [
      'REPLICAS 27 must be <= 26',
      'GREETER_PORT "x" must be an integer from 0 to 65535',
      '--port "-1" must be >= 0',
      '"fast" is not a flag',
    ],
  },
  {
    program: 'hello',
    env: {},
    args: ['--timeout', 'soon', '--count', '0', '--stream', 'both'],
    problems: [
      '--timeout "soon" must be a duration',
      '--count 0 must be >= 1',
      '--stream "both" must be one of reply, request, bidi',
    ],
  },
];

for (const { program, env, args, problems } of cases) {
  test(`${program} lists every problem of its configuration and exits with 1`, async () => {
    const { code, stdout, stderr } = await runProgramFile(`services/${program}/main.ts`, args, { env });
    assert.equal(code, 1);
    assert.equal(stdout, '');
    for (const problem of problems) assert.ok(stderr.includes(problem), `${problem}\nis not in\n${stderr}`);
    assert.equal(stderr.trim().split('\n').length, 1 + problems.length, stderr);
  });

  test(`${program} --help says what it can be told`, async () => {
    const { code, stdout, stderr } = await runProgramFile(`services/${program}/main.ts`, ['--help']);
    assert.deepEqual({ code, stderr }, { code: 0, stderr: '' });
    assert.match(stdout, new RegExp(`^usage: ${program} \\[`));
  });
}

test('files of TLS that are missing or unreadable stop a greeter', async () => {
  const env = { TLS_CERT: '/nowhere/tls.crt', TLS_CLIENT_CA: projectFile('package.json') };
  const { code, stderr } = await runProgramFile('services/greeter/main.ts', [], { env });
  assert.equal(code, 1);
  assert.match(stderr, /TLS_KEY is required: other files of TLS are named/);
  assert.match(stderr, /TLS_CERT: \/nowhere\/tls\.crt cannot be read: ENOENT/);
  assert.match(stderr, /TLS_CLIENT_CA: .*package\.json holds no certificate in PEM/);
});

test('a target in a cluster stops a gateway that is in none', async () => {
  const args = ['--target', 'kubernetes:///greeter:grpc'];
  const { code, stderr } = await runProgramFile('services/gateway/main.ts', args);
  assert.equal(code, 1);
  assert.match(stderr, /TARGET: target "kubernetes:\/\/\/greeter:grpc" can be used only inside a Kubernetes cluster/);
});

test('a service config that is no JSON stops the gateway', async () => {
  const { code, stderr } = await runProgramFile('services/gateway/main.ts', [], { env: { SERVICE_CONFIG: '{' } });
  assert.equal(code, 1);
  assert.match(stderr, /SERVICE_CONFIG/);
});

const documentation = readFileSync(projectFile('docs/configuration.md'), 'utf8');
const example = projectFile('docs/gateway.example.yaml');
const schema = JSON.parse(readFileSync(projectFile('services/gateway/config.schema.json'), 'utf8')) as AnySchemaObject;

const documented: [program: string, settings: Settings][] = [
  ['gateway', gatewaySettings],
  ['greeter', greeterSettings],
];
for (const [program, settings] of documented) {
  test(`docs/configuration.md has each setting of the ${program}`, () => {
    const [, section = ''] = documentation.split(`## The ${program}'s variables and flags\n`);
    const rows = Object.values(settings).map((setting) => {
      const env = 'env' in setting ? setting.env : undefined;
      const isSecret = 'secret' in setting && setting.secret;
      const flag = isSecret ? '' : `\`--${setting.flag ?? env?.toLowerCase().replaceAll('_', '-')}\``;
      return `| ${env === undefined ? '' : `\`${env}\``} | ${flag} | ${setting.help} |`;
    });
    const table = section.split('\n').filter((line) => line.startsWith('| `') || line.startsWith('|  |'));
    assert.deepEqual(table.slice(0, rows.length), rows);
  });
}

test('--check-config accepts the example, and says what it checked', async () => {
  const args = ['--config', example, '--check-config'];
  const { code, stdout, stderr } = await runProgramFile('services/gateway/main.ts', args);
  assert.deepEqual(
    { code, stdout, stderr },
    { code: 0, stdout: 'the configuration is good: 5 routes, 1 upstream (greeter)\n', stderr: '' },
  );
});

test('--check-config lists every problem and exits with 1', async () => {
  const args = ['--check-config', '--config', projectFile('docs/configuration.md'), '--port=http'];
  const { code, stdout, stderr } = await runProgramFile('services/gateway/main.ts', args);
  assert.deepEqual({ code, stdout }, { code: 1, stdout: '' });
  assert.match(stderr, /--port "http" must be an integer/);
  assert.match(stderr, /configuration\.md:\d+: /);
});

test('--print-routes lists exactly what the greeter is served by, as the documentation shows it', async () => {
  const args = ['--config', example, '--print-routes'];
  const { code, stdout, stderr } = await runProgramFile('services/gateway/main.ts', args);
  assert.deepEqual({ code, stderr }, { code: 0, stderr: '' });
  assert.equal(
    stdout,
    `METHOD  PATH                     GRPC METHOD                               KIND           UPSTREAM
GET     /v1/hello/{name}         helloworld.Greeter/SayHello               unary          greeter
POST    /v1/hello                helloworld.Greeter/SayHello               unary          greeter
GET     /v1/hello/{name}/stream  helloworld.Greeter/SayHelloStreamReply    server-stream  greeter
POST    /v1/hello:collect        helloworld.Greeter/SayHelloStreamRequest  client-stream  greeter
POST    /v1/hello:chat           helloworld.Greeter/SayHelloBidiStream     bidi-stream    greeter
`,
  );
  assert.ok(documentation.includes(stdout), 'docs/configuration.md shows other routes');
});

test('the JSON Schema takes the example and what the documentation shows, and refuses mistakes', () => {
  const validate = new Ajv({ allErrors: true }).compile(schema);
  const [, shown = ''] = /```yaml\n(.*?)```/s.exec(documentation) ?? [];
  for (const yaml of [readFileSync(example, 'utf8'), shown]) {
    assert.ok(validate(parse(yaml)), JSON.stringify(validate.errors));
  }
  assert.equal(validate(parse(shown.replace('targets', 'targts'))), false);
  assert.deepEqual(
    validate.errors?.map(({ instancePath, keyword }) => `${instancePath} ${keyword}`),
    ['/upstreams/0 required', '/upstreams/0 additionalProperties'],
  );
});

test('the JSON Schema describes each field', () => {
  const undescribed: string[] = [];
  const visit = (node: AnySchemaObject, path: string) => {
    for (const [name, field] of Object.entries((node['properties'] ?? {}) as Record<string, AnySchemaObject>)) {
      if (typeof field['description'] !== 'string') undescribed.push(`${path}.${name}`);
      visit(field, `${path}.${name}`);
    }
    for (const item of [node['items'] ?? []].flat() as AnySchemaObject[]) visit(item, `${path}[]`);
  };
  visit(schema, '');
  assert.equal(typeof schema['title'], 'string');
  assert.deepEqual(undescribed, []);
});
