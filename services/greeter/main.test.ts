import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { suite, test } from 'node:test';
import * as grpc from '@grpc/grpc-js';
import { service as health } from 'grpc-health-check';
import { eventually } from '#runtime/server/testing.ts';

const main = new URL('main.ts', import.meta.url).pathname;

interface Greeter extends AsyncDisposable {
  readonly process: ChildProcess;
  /** The exit code, or the signal. */
  readonly exited: Promise<number | NodeJS.Signals>;
  /** What it wrote, parsed where it is JSON. */
  readonly lines: (Record<string, unknown> | string)[];
  find(message: string): Record<string, unknown>;
}

function startGreeter(env: Record<string, string> = {}): Greeter {
  const greeter = spawn(process.execPath, [main], {
    env: { PORT: '0', ADMIN_PORT: '0', HOST: '127.0.0.1', POD_NAME: 'pod-a', DRAIN_DELAY: '300ms', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const lines: Greeter['lines'] = [];
  for (const stream of [greeter.stdout, greeter.stderr]) {
    createInterface(stream).on('line', (line) => lines.push(line.startsWith('{') ? JSON.parse(line) : line));
  }
  const exited = once(greeter, 'close').then(([code, signal]) => code ?? signal);
  return {
    process: greeter,
    exited,
    lines,
    find(message) {
      const line = lines.find((candidate) => typeof candidate === 'object' && candidate.msg === message);
      assert.ok(
        typeof line === 'object',
        `no line says ${message}:\n${lines.map((l) => JSON.stringify(l)).join('\n')}`,
      );
      return line;
    },
    async [Symbol.asyncDispose]() {
      greeter.kill('SIGKILL');
      await exited;
    },
  };
}

const identity = (bytes: Buffer) => bytes;

/** `HelloStreamRequest{name: "Ada", reply_count: 4, reply_interval: 200ms}`. */
const fourReplies = Buffer.from([10, 3, 65, 100, 97, 16, 4, 26, 5, 16, 0x80, 0x84, 0xaf, 0x5f]);

suite('the greeter as a process', { timeout: 30_000 }, () => {
  test('loses no call when it is told to stop under load', async () => {
    await using greeter = startGreeter();
    const { port, adminPort } = await eventually(() => greeter.find('serving'), 10_000);
    const credentials = grpc.credentials.createInsecure();
    const client = new grpc.Client(`127.0.0.1:${port}`, credentials, { 'grpc.enable_retries': 0 });
    const HealthClient = grpc.makeGenericClientConstructor(health, '');
    const healthClient = new HealthClient(`127.0.0.1:${port}`, credentials, { 'grpc.use_local_subchannel_pool': 1 });

    // As clients do that heed health: no new call once it says NOT_SERVING.
    const seen: string[] = [];
    const watch = healthClient.watch?.({ service: 'helloworld.Greeter' });
    watch.on('error', () => {}).on('data', ({ status }: { status: string }) => seen.push(status));
    await eventually(() => assert.deepEqual(seen, ['SERVING']));
    let sent = 0;
    let ok = 0;
    const failures: string[] = [];
    const sayHello = () =>
      new Promise<void>((resolve) => {
        sent++;
        client.makeUnaryRequest('/helloworld.Greeter/SayHello', identity, identity, Buffer.alloc(0), (error) => {
          if (error === null) ok++;
          else failures.push(error.message);
          resolve();
        });
      });
    const workers = Array.from({ length: 10 }, async () => {
      while (!seen.includes('NOT_SERVING')) await sayHello();
    });
    await eventually(() => assert.ok(ok > 100));
    assert.equal((await fetch(`http://127.0.0.1:${adminPort}/readyz`)).status, 200);

    // It outlasts the drain delay: 4 replies take 600 ms.
    let replies = 0;
    const stream = client.makeServerStreamRequest(
      '/helloworld.Greeter/SayHelloStreamReply',
      identity,
      identity,
      fourReplies,
    );
    const streamStatus = new Promise<grpc.StatusObject>((resolve) => stream.on('status', resolve));
    stream.on('data', () => replies++).on('error', () => {});
    await eventually(() => assert.equal(replies, 1));

    greeter.process.kill('SIGTERM');
    await Promise.all(workers);
    assert.equal((await fetch(`http://127.0.0.1:${adminPort}/readyz`)).status, 503);
    await sayHello(); // still served
    assert.equal((await streamStatus).code, grpc.status.OK);
    assert.equal(await greeter.exited, 0);
    assert.deepEqual(failures, []);
    assert.equal(ok, sent);
    assert.equal(replies, 4);
    const counters = greeter.find('stopped');
    assert.deepEqual(counters['helloworld.Greeter/SayHello'], { started: sent, ok: sent, failed: 0, cancelled: 0 });
    client.close();
    healthClient.close();
  });

  test('says which port is taken and which variable to change', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as { port: number };
    await using greeter = startGreeter({ PORT: `${port}` });
    assert.equal(await greeter.exited, 1);
    greeter.find(`cannot start: port ${port} is taken; set PORT to a free one`);
    assert.ok(
      greeter.lines.every((line) => typeof line === 'object'),
      'something was written past the log',
    );
    taken.close();
    await once(taken, 'close');
  });

  test('does not start with a configuration that is wrong', async () => {
    await using greeter = startGreeter({ PORT: '70000', MAX_CONNECTION_AGE: '5' });
    assert.equal(await greeter.exited, 1);
    const text = greeter.lines.filter((line) => typeof line === 'string').join('\n');
    assert.match(text, /PORT 70000 must be <= 65535/);
    assert.match(text, /MAX_CONNECTION_AGE 5 must be a duration/);
  });
});
