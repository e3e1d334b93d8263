import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { context, propagation, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace';
import { NodeSDK } from '@opentelemetry/sdk-node';
import type { AttemptStart, CallStatus, Method } from '../call/call.ts';
import { Code, localStatus } from '../call/status.ts';
import { CallTrace } from './call-trace.ts';

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

const unary: Method = {
  path: '/test.Service/Say',
  requestStream: false,
  responseStream: false,
  idempotency: 'UNKNOWN',
};
const traceId = '0af7651916cd43dd8448eb211c80319c';
const spanId = 'b7ad6b7169203331';
const ok: CallStatus = { code: Code.OK, details: '', trailers: [], from: 'peer', seenByPeer: 'maybe' };

function attempt(overrides: Partial<AttemptStart> = {}): AttemptStart {
  const endpoint = { id: 'pod-a', addresses: ['[fd00::7]:50051', '10.0.0.7:50051'] };
  return {
    method: unary,
    endpoint,
    reason: 'first',
    upstream: 'greeter',
    target: 'dns:///greeter:50051',
    priority: 0,
    ...overrides,
  };
}

/** The context of a request that is sampled, with what came along as baggage. */
function sampledContext() {
  const parent = propagation.setBaggage(ROOT_CONTEXT, propagation.createBaggage({ tenant: { value: 'a' } }));
  const span = trace.getTracer('test').startSpan('request', {}, parent);
  return { span, context: trace.setSpan(parent, span) };
}

test('each attempt of a sampled call is a client span that says which, why and where to', () => {
  const request = sampledContext();
  const call = new CallTrace(request.context);
  const refused = call.startAttempt(attempt());
  refused.end({ status: localStatus(Code.UNAVAILABLE, 'refused', 'no'), lost: false, sent: 1, received: 0 });
  const failed = call.startAttempt(attempt({ reason: 'repick' }));
  failed.end({ status: localStatus(Code.UNAVAILABLE, 'gone', 'maybe'), lost: false, sent: 1, received: 0 });
  const slow = call.startAttempt(attempt({ reason: 'retry', priority: 1, target: 'ipv4:10.0.0.9:1' }));
  const hedge = call.startAttempt(attempt({ reason: 'hedge' }));
  hedge.end({ status: ok, lost: false, sent: 1, received: 1 });
  slow.end({ status: localStatus(Code.CANCELLED, 'another answered', 'maybe'), lost: true, sent: 1, received: 0 });

  const spans = exporter.getFinishedSpans();
  const { traceId: id, spanId: parentId } = request.span.spanContext();
  for (const span of spans) {
    assert.deepEqual([span.name, span.kind], ['test.Service/Say', SpanKind.CLIENT]);
    assert.deepEqual([span.spanContext().traceId, span.parentSpanContext?.spanId], [id, parentId]);
  }
  assert.deepEqual(spans[0]?.attributes, {
    'rpc.system.name': 'grpc',
    'rpc.method': 'test.Service/Say',
    'server.address': 'fd00::7',
    'server.port': 50_051,
    'tandem.upstream': 'greeter',
    'tandem.replica': 'pod-a',
    'tandem.target': 'dns:///greeter:50051',
    'tandem.target.priority': 0,
    'tandem.attempt.number': 1,
    'tandem.attempt.reason': 'first',
    'rpc.response.status_code': 'UNAVAILABLE',
    'error.type': 'UNAVAILABLE',
    'tandem.attempt.unseen': true,
  });
  assert.deepEqual(spans[0].status, { code: SpanStatusCode.ERROR, message: 'refused' });
  const told = spans.map(({ attributes: has, status }) => [
    has['tandem.attempt.number'],
    has['tandem.attempt.reason'],
    has['tandem.attempt.unseen'] ?? has['tandem.attempt.lost'],
    has['tandem.target.priority'],
    status.code,
  ]);
  assert.deepEqual(told.slice(1), [
    [2, 'repick', undefined, 0, SpanStatusCode.ERROR],
    [4, 'hedge', undefined, 0, SpanStatusCode.UNSET],
    [3, 'retry', true, 1, SpanStatusCode.UNSET],
  ]);
  const sent = [refused, failed, slow, hedge].map(({ metadata }) => Object.fromEntries(metadata));
  for (const { traceparent, baggage } of sent) {
    assert.match(String(traceparent), new RegExp(`^00-${id}-[\\da-f]{16}-01$`));
    assert.equal(baggage, 'tenant=a');
  }
  assert.equal(new Set(sent.map(({ traceparent }) => traceparent)).size, 4);
  assert.deepEqual(
    call.spans(parentId).map((span) => span.spanId),
    sent.map(({ traceparent }) => String(traceparent).slice(36, 52)),
  );
});

test('a stream tells how many messages went each way', () => {
  const call = new CallTrace(sampledContext().context);
  const method = { ...unary, responseStream: true };
  call.startAttempt(attempt({ method })).end({ status: ok, lost: false, sent: 1, received: 7 });
  const [span] = exporter.getFinishedSpans();
  assert.equal(span?.attributes['tandem.messages.sent'], 1);
  assert.equal(span.attributes['tandem.messages.received'], 7);
});

test('a call that is not sampled makes no span, and passes on what it came with', () => {
  const parent = trace.setSpanContext(ROOT_CONTEXT, { traceId, spanId, traceFlags: 0 });
  const call = new CallTrace(parent);
  const { metadata } = call.startAttempt(attempt());
  assert.deepEqual(metadata, [['traceparent', `00-${traceId}-${spanId}-00`]]);
  assert.equal(call.startAttempt(attempt()).metadata, metadata);
  assert.deepEqual(exporter.getFinishedSpans(), []);
});

test('while tracing is off nothing is sent along, and the attempts can be looked at all the same', () => {
  const call = new CallTrace(undefined);
  const first = call.startAttempt(attempt());
  assert.deepEqual(first.metadata, []);
  first.end({ status: localStatus(Code.UNAVAILABLE, 'gone', 'maybe'), lost: false, sent: 1, received: 0 });
  call.startAttempt(attempt({ reason: 'retry' }));
  const [failed, running] = call.spans(spanId);
  assert.equal(failed?.error, 'gone');
  assert.ok(Number(failed.endMs) >= failed.startMs);
  assert.equal(failed.parentSpanId, spanId);
  assert.deepEqual(
    [running?.endMs, running?.error, running?.attributes['rpc.response.status_code']],
    Array(3).fill(undefined),
  );
  assert.equal(call.spans(spanId)[0]?.spanId, failed.spanId);
});
