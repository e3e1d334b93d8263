import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import * as grpc from '@grpc/grpc-js';
import { context, propagation, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { NodeSDK } from '@opentelemetry/sdk-node';
import { InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace';
import { service as healthDefinition } from 'grpc-health-check';
import { Code, RpcError } from '../call/status.ts';
import type { ServerCall } from './handler.ts';
import { callMethod, eventually, startServer } from './testing.ts';

const exporter = new InMemorySpanExporter();
const sdk = new NodeSDK({
  spanProcessors: [new SimpleSpanProcessor({ exporter })],
  metricReaders: [],
  logRecordProcessors: [],
  resourceDetectors: [],
});
before(() => sdk.start());
beforeEach(() => exporter.reset());
after(async () => {
  await sdk.shutdown();
  for (const api of [trace, context, propagation]) api.disable();
});

const traceId = '0af7651916cd43dd8448eb211c80319c';
const parentId = 'b7ad6b7169203331';

function sentBy(): grpc.Metadata {
  const metadata = new grpc.Metadata();
  metadata.set('traceparent', `00-${traceId}-${parentId}-01`);
  metadata.set('baggage', 'tenant=a');
  return metadata;
}

async function spans(count: number) {
  await eventually(() => assert.equal(exporter.getFinishedSpans().length, count));
  return exporter.getFinishedSpans();
}

test("a call is a span below its client's, in which the handler runs", async () => {
  let seen: unknown;
  await using fixture = await startServer({
    async SayHello() {
      await sleep(1);
      const tenant = propagation.getActiveBaggage()?.getEntry('tenant')?.value;
      seen = { spanId: trace.getActiveSpan()?.spanContext().spanId, tenant };
      return { message: 'hello' };
    },
  });
  const health = fixture.connect(healthDefinition);
  await promisify(health.Check.bind(health))({ service: '' });
  await promisify(fixture.client.SayHello.bind(fixture.client))({ name: 'Ada' }, sentBy());
  const [span] = await spans(1);
  assert.ok(span);
  assert.deepEqual([span.name, span.kind], ['helloworld.Greeter/SayHello', SpanKind.SERVER]);
  assert.deepEqual([span.spanContext().traceId, span.parentSpanContext?.spanId], [traceId, parentId]);
  assert.deepEqual(seen, { spanId: span.spanContext().spanId, tenant: 'a' });
  const { 'network.peer.port': port, ...attributes } = span.attributes;
  assert.ok(Number(port) > 0);
  assert.deepEqual(attributes, {
    'rpc.system.name': 'grpc',
    'rpc.method': 'helloworld.Greeter/SayHello',
    'rpc.response.status_code': 'OK',
    'network.peer.address': '127.0.0.1',
  });
});

test('only the codes that are the fault of the server make an error', async () => {
  await using fixture = await startServer({
    async SayHello({ name }: { readonly name: string }) {
      if (name === 'bad') throw new RpcError(Code.INVALID_ARGUMENT, 'bad name');
      throw new Error('secret');
    },
  });
  await callMethod(fixture.client, 'SayHello', [{ name: 'bad' }]);
  await callMethod(fixture.client, 'SayHello', [{ name: 'Ada' }]);
  const told = (await spans(2)).map(({ status, attributes }) => [
    attributes['rpc.response.status_code'],
    attributes['error.type'],
    status.code,
    status.message,
  ]);
  assert.deepEqual(told, [
    ['INVALID_ARGUMENT', undefined, SpanStatusCode.UNSET, undefined],
    ['INTERNAL', 'INTERNAL', SpanStatusCode.ERROR, 'internal error'],
  ]);
});

test('a stream that its client cancels ends its span, with what was sent until then', async () => {
  await using fixture = await startServer({
    async *SayHelloBidiStream(requests: AsyncIterable<unknown>, { signal }: ServerCall) {
      for await (const _ of requests) yield { message: 'hello' };
      signal.throwIfAborted();
    },
  });
  const stream = fixture.client.SayHelloBidiStream();
  stream.on('error', () => {});
  stream.write({ name: 'a' });
  stream.write({ name: 'b' });
  let received = 0;
  stream.on('data', () => {
    if (++received === 2) stream.cancel();
  });
  const [span] = await spans(1);
  assert.equal(span?.attributes['rpc.response.status_code'], 'CANCELLED');
  assert.deepEqual([span.attributes['tandem.messages.sent'], span.attributes['tandem.messages.received']], [2, 2]);
});
