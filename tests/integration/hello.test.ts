import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { createInterface } from 'node:readline';
import test, { type TestContext } from 'node:test';
import { type CommandResult, projectFile, run, runProgramFile } from '../harness/command.ts';
import { startLab } from '../harness/lab-fixture.ts';

/** More patient than people, since tests run side by side; what comes last counts. */
function hello(args: readonly string[], input?: string): Promise<CommandResult> {
  const options = input === undefined ? {} : { input };
  return runProgramFile('services/hello/main.ts', ['--timeout=10s', ...args], options);
}

/** The first port of a lab with so many greeters, as a flag; and a file target of them all. */
async function startGreeters(t: TestContext, replicas: number) {
  const fixture = await startLab(t, { replicas, gateways: 0 });
  const port = fixture.lab.replicas[0]?.serving?.port;
  assert.ok(port);
  return { fixture, port, target: `--target=dns:///localhost:${port}` };
}

test('greets by each kind of call', async (t) => {
  const { target } = await startGreeters(t, 1);
  const cases: { args: string[]; input?: string; greetings: string[] }[] = [
    { args: [], greetings: ['world'] },
    { args: ['ada'], greetings: ['ada'] },
    { args: ['ada', 'bob', '--count', '2'], greetings: ['ada', 'ada', 'bob', 'bob'] },
    { args: ['--stream', 'reply', '--count', '3', 'ada'], greetings: ['ada', 'ada', 'ada'] },
    { args: ['--stream', 'request', 'ada', 'bob'], greetings: ['ada, bob'] },
    { args: ['--stream', 'request'], input: 'ada\nbob\n', greetings: ['ada, bob'] },
    { args: ['--stream', 'bidi', 'ada', 'bob'], greetings: ['ada', 'bob'] },
    { args: ['--stream', 'bidi'], input: 'ada\nbob', greetings: ['ada', 'bob'] },
    { args: ['--stream', 'bidi'], input: '', greetings: [] },
  ];
  for (const { args, input, greetings } of cases) {
    const stdout = greetings.map((name) => `Greeting: Hello ${name}\n`).join('');
    assert.deepEqual(
      await hello([target, ...args], input),
      { code: 0, signal: null, stdout, stderr: '' },
      args.join(' '),
    );
  }
});

test('says with --json which replica answered', async (t) => {
  const { fixture } = await startGreeters(t, 2);
  const { stdout, stderr } = await hello(['--target', fixture.lab.target, '--json', '--count', '4', 'ü']);
  assert.equal(stderr, '');
  const greetings = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { message: string; servedBy: string });
  assert.deepEqual(new Set(greetings.map(({ message }) => message)), new Set(['Hello ü']));
  assert.deepEqual(new Set(greetings.map(({ servedBy }) => servedBy)), new Set(['a', 'b']));
});

test('prints each greeting of a conversation as it comes, and takes its time', async (t) => {
  const { target } = await startGreeters(t, 1);
  const child = spawn(process.execPath, [
    projectFile('services/hello/main.ts'),
    target,
    '--timeout=10s',
    '--stream=bidi',
  ]);
  t.after(() => child.kill('SIGKILL'));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  for (const name of ['ada', 'bob']) {
    child.stdin.write(`${name}\n`);
    assert.equal((await lines.next()).value, `Greeting: Hello ${name}`);
  }
  child.stdin.end();
  assert.deepEqual(await once(child, 'exit'), [0, null]);
});

test('ends quietly when nobody reads on', async (t) => {
  const { port } = await startGreeters(t, 1);
  const command = `'${process.execPath}' services/hello/main.ts --timeout 10s --target localhost:${port} --stream reply --count 100000 | head -n 1`;
  const { code, stdout, stderr } = await run('sh', ['-c', command]);
  assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: 'Greeting: Hello world\n', stderr: '' });
});

test('says why it could not greet', async (t) => {
  const { target } = await startGreeters(t, 1);
  const failures: { args: string[]; stderr: RegExp }[] = [
    { args: ['x'.repeat(1025)], stderr: /^could not greet: INVALID_ARGUMENT: name .*1025.*1024/ },
    { args: ['--stream', 'bidi', 'x'.repeat(1025)], stderr: /^could not greet: INVALID_ARGUMENT: name / },
  ];
  for (const { args, stderr } of failures) {
    const result = await hello([target, ...args]);
    assert.deepEqual({ code: result.code, stdout: result.stdout }, { code: 1, stdout: '' });
    assert.match(result.stderr, stderr);
  }
});

test('waits for the server, but not longer than the timeout', async (t) => {
  const reserved = createServer().listen(0, '127.0.0.1');
  await once(reserved, 'listening');
  const { port } = reserved.address() as AddressInfo;
  reserved.close();
  await once(reserved, 'close');
  const target = `--target=ipv4:127.0.0.1:${port}`;

  const startedMs = performance.now();
  const { code, stderr } = await hello([target, '--timeout', '300ms']);
  assert.ok(performance.now() - startedMs < 5_000);
  assert.equal(code, 1);
  assert.equal(
    stderr,
    `could not greet: DEADLINE_EXCEEDED: no server at ipv4:127.0.0.1:${port} within 300 ms: cannot connect to 127.0.0.1:${port}: connect ECONNREFUSED 127.0.0.1:${port}\n`,
  );

  const waiting = hello([target, '--timeout', '20s']);
  await startLab(t, { replicas: 1, gateways: 0, ports: { gateway: 0, admin: 0, greeter: port } });
  assert.equal((await waiting).stdout, 'Greeting: Hello world\n');
});

test('gives up on a server that does not answer', async (t) => {
  const { fixture, target } = await startGreeters(t, 1);
  const [greeter] = fixture.lab.replicas;
  // Frozen, it still accepts connections; once they are open, an answer is due that does not come.
  const child = spawn(process.execPath, [
    projectFile('services/hello/main.ts'),
    target,
    '--timeout=2s',
    '--stream=bidi',
  ]);
  t.after(() => child.kill('SIGKILL'));
  child.stdin.write('ada\n');
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  assert.equal((await lines.next()).value, 'Greeting: Hello ada');
  greeter?.freeze();
  child.stdin.write('bob\n');
  const [error] = (await once(child.stderr, 'data')) as [Buffer];
  assert.equal(error.toString(), 'could not greet: DEADLINE_EXCEEDED: no answer within 2000 ms\n');
  assert.deepEqual(await once(child, 'exit'), [1, null]);
  greeter?.thaw();
});
