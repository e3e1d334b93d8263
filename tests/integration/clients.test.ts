import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import * as grpc from '@grpc/grpc-js';
import { loadFileDescriptorSetFromBuffer } from '@grpc/proto-loader';
import { projectFile, run, skipWithout } from '../harness/command.ts';
import { eventually } from '../harness/eventually.ts';
import { startLab } from '../harness/lab-fixture.ts';

interface Reply {
  readonly message: string;
}

/** A client as grpc-js's own documentation makes one, knowing nothing of this project but the contract. */
function createGreeterClient(address: string) {
  const descriptors = loadFileDescriptorSetFromBuffer(readFileSync(projectFile('proto/descriptors.binpb')));
  const { helloworld } = grpc.loadPackageDefinition(descriptors) as unknown as {
    helloworld: { Greeter: grpc.ServiceClientConstructor };
  };
  const client = new helloworld.Greeter(address, grpc.credentials.createInsecure());
  return {
    [Symbol.dispose]: () => client.close(),
    sayHello: (name: string) =>
      new Promise<{ message: string; servedBy: unknown }>((resolve, reject) => {
        let servedBy: unknown;
        const call = client.SayHello?.({ name }, (error: Error | null, { message }: Reply) =>
          error ? reject(error) : resolve({ message, servedBy }),
        ) as grpc.ClientUnaryCall;
        call.on('metadata', (metadata: grpc.Metadata) => ([servedBy] = metadata.get('served-by')));
      }),
    async streamReply(request: object) {
      const call = client.SayHelloStreamReply?.(request) as grpc.ClientReadableStream<Reply>;
      return messagesOf(call);
    },
    streamRequest: (names: readonly string[]) =>
      new Promise<string>((resolve, reject) => {
        const call = client.SayHelloStreamRequest?.((error: Error | null, { message }: Reply) =>
          error ? reject(error) : resolve(message),
        ) as grpc.ClientWritableStream<object>;
        for (const name of names) call.write({ name });
        call.end();
      }),
    async bidiStream(names: readonly string[]) {
      const call = client.SayHelloBidiStream?.() as grpc.ClientDuplexStream<object, Reply>;
      for (const name of names) call.write({ name });
      call.end();
      return messagesOf(call);
    },
  };
}

async function messagesOf(replies: AsyncIterable<Reply>): Promise<string[]> {
  const messages: string[] = [];
  for await (const { message } of replies) messages.push(message);
  return messages;
}

async function startGreeter(t: TestContext, env: Record<string, string> = {}) {
  const fixture = await startLab(t, { replicas: 1, gateways: 0, greeterEnv: env });
  const [greeter] = fixture.lab.replicas;
  assert.ok(greeter?.serving);
  return { fixture, greeter, address: `127.0.0.1:${greeter.serving.port}` };
}

async function grpcurl(address: string, method: string, data: string): Promise<unknown> {
  const { code, stdout, stderr } = await run('grpcurl', ['-plaintext', '-d', data, address, method]);
  assert.equal(code, 0, stderr);
  return JSON.parse(`[${stdout.trim().replaceAll(/\}\s*\{/g, '},{')}]`);
}

test('a plain grpc-js client makes the four calls', async (t) => {
  const { fixture, address } = await startGreeter(t);
  const client = fixture.use(createGreeterClient(address));
  assert.deepEqual(await client.sayHello('Ada'), { message: 'Hello Ada', servedBy: 'a' });
  assert.deepEqual(await client.streamReply({ name: 'Ada', reply_count: 2 }), ['Hello Ada', 'Hello Ada']);
  assert.equal((await client.streamReply({ name: 'Ada' })).length, 10);
  assert.equal(await client.streamRequest(['Ada', 'Grace']), 'Hello Ada, Grace');
  assert.deepEqual(await client.bidiStream(['Ada', 'Grace']), ['Hello Ada', 'Hello Grace']);
});

test('grpcurl makes the four calls by reflection', async (t) => {
  if (await skipWithout(t, 'grpcurl', ['-version'])) return;
  const { address } = await startGreeter(t);
  const greeter = 'helloworld.Greeter';
  const names = '{"name":"Ada"} {"name":"Grace"}';
  assert.deepEqual(await grpcurl(address, `${greeter}/SayHello`, '{"name":"Ada"}'), [{ message: 'Hello Ada' }]);
  assert.deepEqual(
    await grpcurl(address, `${greeter}/SayHelloStreamReply`, '{"name":"Ada","replyCount":2,"replyInterval":"0.01s"}'),
    [{ message: 'Hello Ada' }, { message: 'Hello Ada' }],
  );
  assert.deepEqual(await grpcurl(address, `${greeter}/SayHelloStreamRequest`, names), [
    { message: 'Hello Ada, Grace' },
  ]);
  assert.deepEqual(await grpcurl(address, `${greeter}/SayHelloBidiStream`, names), [
    { message: 'Hello Ada' },
    { message: 'Hello Grace' },
  ]);
});

test('a Go client under load loses no call when its connections reach their age', async (t) => {
  if (await skipWithout(t, 'ghz', ['--version'])) return;
  const { address } = await startGreeter(t, { MAX_CONNECTION_AGE: '1s', MAX_CONNECTION_AGE_GRACE: '5s' });
  const call = ['--insecure', '--call', 'helloworld.Greeter/SayHello', '--data', '{"name":"Ada"}'];
  const load = ['--connections', '2', '--concurrency', '4', '--rps', '200', '--duration', '4s', '--format', 'json'];
  const { code, stdout, stderr } = await run('ghz', [...call, ...load, '--duration-stop', 'wait', address]);
  assert.equal(code, 0, stderr);
  const { count, statusCodeDistribution } = JSON.parse(stdout) as {
    count: number;
    statusCodeDistribution: Record<string, number>;
  };
  t.diagnostic(`${count} calls: ${JSON.stringify(statusCodeDistribution)}`);
  assert.ok(count >= 300);
  assert.deepEqual(statusCodeDistribution, { OK: count });
});

test('health is SERVING, then NOT_SERVING in the drain, as grpc_health_probe asks it', async (t) => {
  if (await skipWithout(t, 'grpcurl', ['-version'])) return;
  const { greeter, address } = await startGreeter(t, { DRAIN_DELAY: '2s' });
  const check = (service: string) => grpcurl(address, 'grpc.health.v1.Health/Check', JSON.stringify({ service }));
  for (const service of ['', 'helloworld.Greeter', 'readiness', 'liveness'])
    assert.deepEqual(await check(service), [{ status: 'SERVING' }], service);
  const stopped = greeter.stop(10_000);
  await eventually('NOT_SERVING', async () => JSON.stringify(await check('')).includes('NOT_SERVING'));
  assert.deepEqual(await check('helloworld.Greeter'), [{ status: 'NOT_SERVING' }]);
  assert.deepEqual(await check('readiness'), [{ status: 'NOT_SERVING' }]);
  assert.deepEqual(await check('liveness'), [{ status: 'SERVING' }]);
  assert.deepEqual(await grpcurl(address, 'helloworld.Greeter/SayHello', '{}'), [{ message: 'Hello ' }]);
  await stopped;
});
