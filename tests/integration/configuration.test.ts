import assert from 'node:assert/strict';
import test from 'node:test';
import { runProgramFile } from '../harness/command.ts';

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
