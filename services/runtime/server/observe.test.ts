import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import * as grpc from '@grpc/grpc-js';
import { service as health } from 'grpc-health-check';
import type { Registry } from 'prom-client';
import { Code, RpcError } from '../call/status.ts';
import type { Handlers, ServerCall } from './handler.ts';
import { callDurationName, callReceivedName, callSentName, callStartedName } from './observe.ts';
import { callMethod, eventually, startServer, type TestServer } from './testing.ts';

interface Named {
  readonly name: string;
}

const ada = { name: 'Ada' };

async function samplesOf(registry: Registry, name: string, suffix = '') {
  const metric = (await registry.getMetricsAsJSON()).find((candidate) => candidate.name === name);
  const values = (metric?.values ?? []) as { labels: Record<string, string>; value: number; metricName?: string }[];
  return values
    .filter(({ metricName }) => (metricName ?? name) === `${name}${suffix}`)
    .map(({ labels, value }) => [labels.grpc_method, labels.grpc_status, value] as const);
}

test('calls are counted by method and status, as the client saw them end', async () => {
  await using fixture = await startServer({
    async SayHello({ name }: Named, call: ServerCall) {
      if (name === 'abort') throw new RpcError(Code.ABORTED, 'aborted');
      if (name === 'hang') await new Promise((resolve) => call.signal.addEventListener('abort', resolve));
      return { message: name };
    },
    async *SayHelloStreamReply() {
      for (;;) yield {};
    },
  });
  const { client, registry, server } = fixture;
  for (const name of ['Ada', 'Bo', 'abort']) await callMethod(client, 'SayHello', [{ name }]);
  await callMethod(client, 'SayHello', [{ name: 'hang' }], { deadline: Date.now() + 400 });
  const stream = client.SayHelloStreamReply(ada);
  stream.on('error', () => {}).once('data', () => stream.cancel());

  await eventually(() => {
    const { SayHello, SayHelloStreamReply } = Object.fromEntries(
      Object.entries(server.counters()).map(([method, counters]) => [
        method.replace('helloworld.Greeter/', ''),
        counters,
      ]),
    );
    // The client gives up at its deadline too, and either may come first.
    assert.equal((SayHello?.failed ?? 0) + (SayHello?.cancelled ?? 0), 2);
    assert.equal(SayHello?.started, 4);
    assert.equal(SayHello?.ok, 2);
    assert.deepEqual(SayHelloStreamReply, { started: 1, ok: 0, failed: 0, cancelled: 1 });
  });
  assert.deepEqual(
    (await samplesOf(registry, callStartedName)).filter(([, , value]) => value > 0),
    [
      ['helloworld.Greeter/SayHello', undefined, 4],
      ['helloworld.Greeter/SayHelloStreamReply', undefined, 1],
    ],
  );
  const ended = await samplesOf(registry, callDurationName, '_count');
  const find = (status: string) =>
    ended.filter((sample) => sample[1] === status).map(([method, , value]) => [method, value]);
  assert.deepEqual(find('OK'), [['helloworld.Greeter/SayHello', 2]]);
  assert.deepEqual(find('ABORTED'), [['helloworld.Greeter/SayHello', 1]]);
});

test('a request that grpc-js refuses itself is counted with the status that it sent', async () => {
  await using fixture = await startServer({}, { maxMessageBytes: 100 });
  const garbage = Buffer.from([0xff]);
  const send = (bytes: Buffer) =>
    new Promise<number>((resolve) => {
      const identity = (value: Buffer) => value;
      fixture.client.makeUnaryRequest('/helloworld.Greeter/SayHello', identity, identity, bytes, (error) =>
        resolve(error?.code ?? Code.OK),
      );
    });
  assert.equal(await send(garbage), Code.INTERNAL);
  assert.equal(await send(Buffer.alloc(200)), Code.RESOURCE_EXHAUSTED);
  await eventually(async () => {
    const ended = await samplesOf(fixture.registry, callDurationName, '_count');
    assert.deepEqual(Object.fromEntries(ended.map(([, status, value]) => [status, value])), {
      INTERNAL: 1,
      RESOURCE_EXHAUSTED: 1,
    });
  });
});

test('the sizes of messages are counted as they are on the wire', async () => {
  await using fixture = await startServer({
    SayHello: async ({ name }: Named) => ({ message: name }),
    async *SayHelloBidiStream(requests: AsyncIterable<Named>) {
      for await (const { name } of requests) yield { message: `${name}!` };
    },
    async SayHelloStreamRequest(requests: AsyncIterable<Named>) {
      for await (const _ of requests);
      return {};
    },
  });
  const { client, registry } = fixture;
  // A field of text takes 2 bytes besides, or 3 from 128 on.
  await callMethod(client, 'SayHello', [{ name: 'x'.repeat(2_000) }]);
  await callMethod(client, 'SayHelloBidiStream', [{ name: 'Ada' }, { name: 'Bo' }]);
  const squeezing = fixture.connect(undefined, {
    'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip,
  });
  await callMethod(squeezing, 'SayHelloStreamRequest', [{ name: 'x'.repeat(2_000) }]);
  const sums = async (name: string) =>
    (await samplesOf(registry, name, '_sum')).map(([method, status, value]) => [method?.split('/')[1], status, value]);
  await eventually(async () =>
    assert.deepEqual(await sums(callSentName), [
      ['SayHello', 'OK', 2_003],
      ['SayHelloBidiStream', 'OK', 6 + 5],
      ['SayHelloStreamRequest', 'OK', 0],
    ]),
  );
  const [unary, stream, [, , squeezed] = []] = await sums(callReceivedName);
  assert.deepEqual(unary, ['SayHello', 'OK', 2_003]);
  assert.deepEqual(stream, ['SayHelloBidiStream', 'OK', 5 + 4]);
  assert.ok(Number(squeezed) > 10 && Number(squeezed) < 200, `2,003 bytes were sent as ${squeezed}`);
});

test('a method that does not exist leaves no trace in the metrics', async () => {
  await using fixture = await startServer({});
  const identity = (value: Buffer) => value;
  const code = await new Promise<number | undefined>((resolve) => {
    const path = '/helloworld.Greeter/Made-up';
    fixture.client.makeUnaryRequest(path, identity, identity, Buffer.alloc(0), (error) => resolve(error?.code));
  });
  assert.equal(code, Code.UNIMPLEMENTED);
  assert.doesNotMatch(await fixture.registry.metrics(), /Made-up/);
  assert.deepEqual(fixture.server.counters(), {});
});

const traceId = '0af7651916cd43dd8448eb211c80319c';
const ofCall = { trace_id: traceId, grpcMethod: 'helloworld.Greeter/SayHello', msg: 'call' };
const loggedHandlers: Handlers = {
  async SayHello({ name }: Named) {
    if (name === 'refuse') throw new RpcError(Code.NOT_FOUND, 'nobody of that name');
    if (name === 'break') throw new Error('s3cret');
    if (name === 'slow') await sleep(60);
    return { message: name };
  },
  async *SayHelloStreamReply() {
    yield { message: 'one' };
    yield { message: 'two' };
  },
};

async function greet({ client }: TestServer, name: string): Promise<void> {
  const metadata = new grpc.Metadata();
  metadata.set('traceparent', `00-${traceId}-b7ad6b7169203331-01`);
  metadata.set('x-request-id', name);
  await new Promise((resolve) => client.SayHello({ name }, metadata, resolve));
}

function withoutDuration(line: Record<string, unknown>): Record<string, unknown> {
  const { durationMs: _, ...rest } = line;
  return rest;
}

test('a call that was slow or did not go well has a line', async () => {
  await using fixture = await startServer(loggedHandlers, { accessLogRatio: 0, slowRequestMs: 50 });
  for (const name of ['fine', 'refuse', 'break', 'slow']) await greet(fixture, name);
  await callMethod(fixture.client, 'SayHelloStreamReply', [ada]);
  const details = 'internal error';
  await eventually(() =>
    assert.deepEqual(fixture.calls.map(withoutDuration), [
      { level: 30, ...ofCall, requestId: 'refuse', grpcCode: 'NOT_FOUND', details: 'nobody of that name' },
      { level: 40, ...ofCall, requestId: 'break', grpcCode: 'INTERNAL', details },
      { level: 30, ...ofCall, requestId: 'slow', slow: true, grpcCode: 'OK' },
    ]),
  );
  assert.ok(Number(fixture.calls[2]?.durationMs) >= 50);
});

test('a call that went well has a line if it is sampled', async () => {
  await using fixture = await startServer(loggedHandlers, { accessLogRatio: 1, slowRequestMs: 60_000 });
  await greet(fixture, 'fine');
  await callMethod(fixture.client, 'SayHelloStreamReply', [ada]);
  const grpcMethod = 'helloworld.Greeter/SayHelloStreamReply';
  await eventually(() =>
    assert.deepEqual(fixture.calls.map(withoutDuration), [
      { level: 30, ...ofCall, requestId: 'fine', grpcCode: 'OK' },
      { level: 30, grpcMethod, messagesSent: 2, messagesReceived: 1, grpcCode: 'OK', msg: 'call' },
    ]),
  );
});

test('health checks are counted, and not logged', async () => {
  await using fixture = await startServer({}, { accessLogRatio: 1 });
  const client = fixture.connect(health);
  await new Promise((resolve) => client.Check({ service: '' }, resolve));
  await eventually(() =>
    assert.deepEqual(
      Object.values(fixture.server.counters()).map(({ ok }) => ok),
      [1],
    ),
  );
  assert.deepEqual(fixture.calls, []);
});
