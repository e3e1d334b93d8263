import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SpanKind } from '@opentelemetry/api';
import { Registry } from 'prom-client';
import { createAdmin } from './admin.ts';
import { createTraceStore, type KeptTrace, randomId, showTraces } from './trace-store.ts';

let clock = Date.UTC(2026, 0, 1);

function trace(overrides: Partial<KeptTrace> = {}): KeptTrace {
  return {
    traceId: randomId(16),
    route: '/v1/{a}',
    failed: false,
    slow: false,
    endMs: clock++,
    bytes: 1_000,
    spans: () => [
      {
        spanId: '00000000000000aa',
        parentSpanId: '00000000000000bb',
        name: 'GET /v1/{a}',
        kind: SpanKind.SERVER,
        startMs: Date.UTC(2026, 0, 1) + 0.25,
        endMs: Date.UTC(2026, 0, 1) + 1.5,
        attributes: { text: 'x', whole: 200, share: 0.5, flag: true },
        error: 'went wrong',
      },
    ],
    ...overrides,
  };
}

test('keeps the last traces, the newest first', () => {
  const store = createTraceStore({ maxFine: 3 });
  const traces = Array.from({ length: 8 }, () => trace());
  for (const each of traces) store.add(each);
  assert.deepEqual(store.find(), traces.slice(5).toReversed());
  assert.deepEqual(store.find({ limit: 1 }), traces.slice(7));
});

test('keeps within its bytes, even if nothing is left', () => {
  const store = createTraceStore({ maxFine: 100, maxBytes: 2_500 });
  for (let i = 0; i < 10; i++) store.add(trace());
  assert.equal(store.find().length, 2);
  store.add(trace({ bytes: 3_000 }));
  assert.equal(store.find().length, 0);
  store.add(trace());
  assert.equal(store.find().length, 1);
});

test('fine traces push out none that failed or were slow', () => {
  const store = createTraceStore({ maxFine: 2, maxNotable: 2 });
  const failed = trace({ failed: true });
  const slow = trace({ slow: true, route: '/v1/{b}' });
  for (const each of [failed, slow, ...Array.from({ length: 5 }, () => trace())]) store.add(each);
  assert.equal(store.find().length, 4);
  assert.deepEqual(store.find({ failed: true }), [failed]);
  assert.deepEqual(store.find({ slow: true }), [slow]);
  assert.deepEqual(store.find({ route: '/v1/{b}' }), [slow]);
  assert.deepEqual(store.find({ traceId: failed.traceId }), [failed]);
});

test('shows them as OTLP JSON on the admin port', async () => {
  const store = createTraceStore();
  const slow = trace({ slow: true });
  for (const each of [trace(), slow, trace({ failed: true })]) store.add(each);
  const admin = createAdmin({
    host: '127.0.0.1',
    port: 0,
    registry: new Registry(),
    routes: { 'GET /introspection/traces': showTraces(store, { service: 'gateway', podName: 'pod-1' }) },
  });
  const port = await admin.start();
  const get = (query: string) =>
    fetch(`http://127.0.0.1:${port}/introspection/traces${query}`, { headers: { connection: 'close' } });
  try {
    const attributes = [
      { key: 'service.name', value: { stringValue: 'gateway' } },
      { key: 'service.instance.id', value: { stringValue: 'pod-1' } },
    ];
    const span = {
      traceId: slow.traceId,
      spanId: '00000000000000aa',
      parentSpanId: '00000000000000bb',
      name: 'GET /v1/{a}',
      kind: 2,
      startTimeUnixNano: '1767225600000250000',
      endTimeUnixNano: '1767225600001500000',
      attributes: [
        { key: 'text', value: { stringValue: 'x' } },
        { key: 'whole', value: { intValue: '200' } },
        { key: 'share', value: { doubleValue: 0.5 } },
        { key: 'flag', value: { boolValue: true } },
      ],
      status: { code: 2, message: 'went wrong' },
    };
    assert.deepEqual(await (await get('?slow')).json(), {
      resourceSpans: [{ resource: { attributes }, scopeSpans: [{ scope: { name: 'tandem' }, spans: [span] }] }],
    });
    const all = (await (await get('')).json()) as { resourceSpans: [{ scopeSpans: [{ spans: object[] }] }] };
    assert.equal(all.resourceSpans[0].scopeSpans[0].spans.length, 3);
    for (const [query, message] of [
      ['?limit=0', 'limit 0 must be from 1 to 1000\n'],
      ['?error', 'error is none of failed, slow, route, trace_id, limit\n'],
    ] as const) {
      const reply = await get(query);
      assert.deepEqual([reply.status, await reply.text()], [400, message]);
    }
  } finally {
    await admin.stop();
  }
});

test('ids are random, and of the length that was asked for', () => {
  const ids = Array.from({ length: 2_000 }, () => randomId(16));
  assert.equal(new Set(ids).size, ids.length);
  assert.match(ids[1_234] ?? '', /^[\da-f]{32}$/);
  assert.match(randomId(8), /^[\da-f]{16}$/);
});
