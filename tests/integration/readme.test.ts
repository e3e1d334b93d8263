import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import { startChild } from '../../services/lab/child.ts';
import { projectFile, run, skipWithout } from '../harness/command.ts';
import { startLab } from '../harness/lab-fixture.ts';

/** What each command of the README must print; `elsewhere` is tested by another file, or is what runs this one. */
const expected: Readonly<Record<string, RegExp | 'elsewhere'>> = {
  'make run': 'elsewhere',
  'make test': 'elsewhere',
  'curl -i localhost:8080/v1/hello/world': /^HTTP\/1\.1 200 OK[^]*served-by: [ab]\r\n[^]*\{"message":"Hello world"\}$/,
  [`curl -d '{"name":"world"}' -H 'content-type: application/json' localhost:8080/v1/hello`]:
    /^\{"message":"Hello world"\}$/,
  "curl -N 'localhost:8080/v1/hello/world/stream?replyCount=3&replyInterval=0.5s'":
    /^(\{"result":\{"message":"Hello world"\}\}\n){3}\{"status":\{"code":0\}\}\n$/,
  "curl -N -H 'accept: text/event-stream' 'localhost:8080/v1/hello/world/stream?replyCount=3'":
    /^(data: \{"message":"Hello world"\}\n\n){3}id: end\nevent: status\ndata: \{"code":0\}\n\n$/,
  [`printf '{"name":"Ada"}\\n{"name":"Grace"}\\n' | curl --data-binary @- -H 'content-type: application/x-ndjson' localhost:8080/v1/hello:collect`]:
    /^\{"message":"Hello Ada, Grace"\}$/,
  'npm run -s hello -- your_name': /^Greeting: Hello your_name\n$/,
  "printf 'Ada\\nGrace\\n' | npm run -s hello -- --stream bidi": /^Greeting: Hello Ada\nGreeting: Hello Grace\n$/,
  [`grpcurl -plaintext -d '{"name":"world"}' localhost:50051 helloworld.Greeter/SayHello`]:
    /^\{\s*"message": "Hello world"\s*\}\s*$/,
  [`grpcurl -plaintext -d '{"service":"helloworld.Greeter"}' localhost:50051 grpc.health.v1.Health/Check`]:
    /^\{\s*"status": "SERVING"\s*\}\s*$/,
  'curl localhost:9090/readyz': /^ready/,
  'curl localhost:9090/metrics': /^tandem_build_info\{.*service="gateway"/m,
  'npm run -s gateway -- --descriptors proto/descriptors.binpb --target dns:///localhost:50051 --port 8081 --admin-port 9190':
    'elsewhere', // below
};

/** The lines of the shell blocks, without their comments. */
function readCommands(): string[] {
  const blocks = readFileSync(projectFile('README.md'), 'utf8').matchAll(/^```sh\n([^]*?)^```$/gm);
  return [...blocks].flatMap(([, block = '']) => block.trim().split('\n')).map((line) => line.replace(/ +# .*$/, ''));
}

async function startReadmeLab(t: TestContext) {
  const { lab } = await startLab(t, { replicas: 2 });
  const [gateway] = lab.gateways;
  const [greeter] = lab.replicas;
  const ports = new Map([
    ['localhost:8080', `127.0.0.1:${gateway?.serving?.port}`],
    ['localhost:9090', `127.0.0.1:${gateway?.serving?.adminPort}`],
    ['localhost:50051', `127.0.0.1:${greeter?.serving?.port}`],
    // The target is not said, as it is the default.
    ['hello --', `hello -- --target 127.0.0.1:${greeter?.serving?.port}`],
  ]);
  return (command: string) => {
    let moved = command;
    for (const [from, to] of ports) moved = moved.replace(from, to);
    return moved;
  };
}

test('the README has no command that is not tested', () => {
  assert.deepEqual(readCommands().toSorted(), Object.keys(expected).toSorted());
});

test('each command of the README does what it says', async (t) => {
  const move = await startReadmeLab(t);
  for (const [command, output] of Object.entries(expected)) {
    if (output === 'elsewhere') continue;
    await t.test(command, async (t) => {
      if (command.startsWith('grpcurl') && (await skipWithout(t, 'grpcurl', ['-version']))) return;
      if (command.startsWith('curl') && (await skipWithout(t, 'curl', ['--version']))) return;
      const { code, stdout, stderr } = await run('sh', ['-c', move(command)]);
      assert.equal(code, 0, stderr);
      assert.match(stdout, output);
    });
  }
});

test('the gateway starts as the README says', async (t) => {
  const move = await startReadmeLab(t);
  const [command = ''] = readCommands().filter((line) => line.startsWith('npm run -s gateway -- '));
  const { scripts } = JSON.parse(readFileSync(projectFile('package.json'), 'utf8')) as { scripts: { gateway: string } };
  assert.equal(scripts.gateway, 'node services/gateway/main.ts');
  const args =
    move(command)
      .split(' -- ')[1]
      ?.replace(/port \d+/g, 'port 0')
      .split(' ') ?? [];
  const gateway = startChild({
    name: 'gateway',
    entry: projectFile('services/gateway/main.ts'),
    args,
    env: { DRAIN_DELAY: '0s' },
  });
  t.after(() => gateway.stop(5_000));
  const { port } = await gateway.ready(20_000);
  const { stdout } = await run('sh', ['-c', `curl -s 127.0.0.1:${port}/v1/hello/world`]);
  assert.equal(stdout, '{"message":"Hello world"}');
});
