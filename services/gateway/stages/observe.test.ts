import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { context, propagation, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { NodeSDK, type NodeSDKConfiguration } from '@opentelemetry/sdk-node';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { createTraceStore } from '#runtime/process/trace-store.ts';
import type { CallStatus } from '#runtime/call/call.ts';
import { Code, localStatus } from '#runtime/call/status.ts';
import { httpStatusOf } from '../edge/errors.ts';
import type { Route } from '../transcoding/routes.ts';
import { createHttpObserver } from './observe.ts';

type SpanProcessor = NonNullable<NodeSDKConfiguration['spanProcessors']>[number];
type EndedSpan = Parameters<SpanProcessor['onEnd']>[0];

const route = { httpMethod: 'GET', template: { text: '/v1/{a}' } } as Route;

describe('http observer, tracing', () => {
  const spans: EndedSpan[] = [];
  const sdk = new NodeSDK({
    spanProcessors: [
      {
        onStart() {},
        onEnd: (span) => void spans.push(span),
        forceFlush: async () => {},
        shutdown: async () => {},
      },
    ],
    instrumentations: [],
    metricReaders: [],
    logRecordProcessors: [],
    resourceDetectors: [],
  });
  before(() => sdk.start());
  after(async () => {
    await sdk.shutdown();
    for (const api of [trace, context, propagation]) api.disable();
  });

  it("gives a request a server span below the client's, and logs within it", async () => {
    const lines: string[] = [];
    const mixin = () => ({ trace_id: trace.getActiveSpan()?.spanContext().traceId });
    const log = pino({ level: 'debug', mixin }, { write: (line: string) => void lines.push(line) });
    const observer = createHttpObserver({ registry: new Registry(), log, tracing: true });
    let traceIdOfCall: string | undefined;
    let traceIdOfReply: string | undefined;
    const server = createServer((request, response) => {
      const observation = observer.observe(request, response, route, 'id-1');
      traceIdOfReply = observation.traceId;
      traceIdOfCall = observation.traceId;
      response.writeHead(503).end();
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const traceId = '0af7651916cd43dd8448eb211c80319c';
    const reply = await fetch(`http://127.0.0.1:${port}/v1/x?q=1`, {
      headers: { traceparent: `00-${traceId}-b7ad6b7169203331-01`, connection: 'close' },
    });
    assert.equal(reply.status, 503);
    const closed = once(server, 'close');
    server.close();
    await closed;
    const [span] = spans;
    assert.ok(span);
    assert.equal(span.name, 'GET /v1/{a}');
    assert.equal(span.kind, SpanKind.SERVER);
    assert.equal(span.parentSpanContext?.spanId, 'b7ad6b7169203331');
    assert.equal(span.spanContext().traceId, traceId);
    assert.deepEqual([traceIdOfCall, traceIdOfReply], [traceId, traceId]);
    assert.equal(span.status.code, SpanStatusCode.ERROR);
    assert.equal(span.attributes['http.response.status_code'], 503);
    assert.equal(span.attributes['http.route'], '/v1/{a}');
    assert.equal(span.attributes['url.path'], '/v1/x');
    assert.equal(JSON.parse(lines[0] ?? '').trace_id, traceId);
  });

  it('logs and keeps a slow request that no collector sees', async () => {
    const lines: string[] = [];
    const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(line) });
    const traces = createTraceStore();
    const observer = createHttpObserver({ registry: new Registry(), log, tracing: true, traces, slowRequestMs: 0 });
    const server = createServer((request, response) => {
      observer.observe(request, response, route, 'id-1');
      response.end();
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const traceId = '1af7651916cd43dd8448eb211c80319c';
    const headers = { traceparent: `00-${traceId}-b7ad6b7169203331-00`, connection: 'close' };
    await fetch(`http://127.0.0.1:${port}/v1/x`, { headers });
    const closed = once(server, 'close');
    server.close();
    await closed;
    assert.partialDeepStrictEqual(JSON.parse(lines[0] ?? '{}'), { trace_id: traceId, slow: true });
    assert.equal(spans.filter((span) => span.spanContext().traceId === traceId).length, 0);
    const [kept] = traces.find({ slow: true });
    const [span] = kept?.spans() ?? [];
    assert.equal(kept?.traceId, traceId);
    assert.deepEqual([span?.name, span?.parentSpanId], ['GET /v1/{a}', 'b7ad6b7169203331']);
  });
});

describe('http observer, access log', () => {
  const method = { path: '/hello.Greeter/SayHello' };
  const apiRoute = { ...route, service: { method } } as Route;

  /** The lines of one request for each status that a call ends with, after it was attempted twice. */
  async function linesOf(statuses: readonly CallStatus[], options: { accessLogRatio: number }) {
    const lines: Record<string, unknown>[] = [];
    const log = pino({ base: null, timestamp: false }, { write: (line) => void lines.push(JSON.parse(line)) });
    const upstreamOf = () => 'greeter';
    const observer = createHttpObserver({ registry: new Registry(), log, tracing: false, upstreamOf, ...options });
    const server = createServer((request, response) => {
      const observation = observer.observe(request, response, apiRoute, `${request.headers['x-request-id']}`);
      for (const reason of ['first', 'retry'] as const) {
        observation.context.startAttempt({ reason, method, endpoint: { id: 'a', addresses: [] } } as never);
      }
      observation.endpointId = 'a';
      observation.status = statuses[Number(request.headers['x-request-id'])];
      response.writeHead(httpStatusOf(observation.status?.code ?? 0)).end();
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    for (const id of statuses.keys()) {
      const headers = { 'x-request-id': `${id}`, authorization: 's3cret', cookie: 's3cret', connection: 'close' };
      await fetch(`http://127.0.0.1:${port}/v1/x?token=s3cret`, { headers });
    }
    const closed = once(server, 'close');
    server.close();
    await closed;
    return lines.map(({ trace_id, durationMs, ...line }) => {
      assert.match(String(trace_id), /^[0-9a-f]{32}$/);
      assert.ok(Number(durationMs) > 0);
      return line;
    });
  }

  const ok = localStatus(Code.OK, '', 'maybe');
  const notFound = localStatus(Code.NOT_FOUND, 'no such name', 'maybe');
  const unavailable = localStatus(Code.UNAVAILABLE, 'no replica', 'no');
  const always = {
    method: 'GET',
    path: '/v1/x',
    route: '/v1/{a}',
    grpcMethod: 'hello.Greeter/SayHello',
    upstream: 'greeter',
    attempts: 2,
    replica: 'a',
    msg: 'request',
  };

  it('has what went well at the share it is told', async () => {
    assert.deepEqual(await linesOf([ok, ok], { accessLogRatio: 0 }), []);
    const line = { level: 30, ...always, requestId: '0', code: 200, grpcCode: 'OK' };
    assert.deepEqual(await linesOf([ok], { accessLogRatio: 1 }), [line]);
  });

  it('always has what did not, and nothing of headers or the query', async () => {
    assert.deepEqual(await linesOf([notFound, ok, unavailable], { accessLogRatio: 0 }), [
      { level: 30, ...always, requestId: '0', code: 404, grpcCode: 'NOT_FOUND', details: 'no such name' },
      { level: 40, ...always, requestId: '2', code: 503, grpcCode: 'UNAVAILABLE', details: 'no replica' },
    ]);
  });
});
