import assert from 'node:assert/strict';
import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { text } from 'node:stream/consumers';
import test from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { type ExportRequest, readSpans, startCollector } from '../harness/collector.ts';
import { skipWithout } from '../harness/command.ts';
import { eventually } from '../harness/eventually.ts';
import { clearFaults, setFaults } from '../harness/faults.ts';
import { createHttpCaller } from '../harness/http-caller.ts';
import { startJaeger } from '../harness/jaeger.ts';
import { startLab } from '../harness/lab-fixture.ts';
import { sendInTurn, startLoad } from '../harness/load.ts';
import { sumOfMetric } from '../harness/metrics.ts';
import { formatTree, type Span, traceparent } from '../harness/spans.ts';

const faulty = { greeterEnv: { FAULTS: 'enabled' } };
/** Spans leave after at most that long. */
const soon = { OTEL_BSP_SCHEDULE_DELAY: '100' };
const status = ['http.response.status_code', 'tandem.attempt.reason', 'rpc.response.status_code'];

/** Each of three attempts fails at the one replica. */
const retried = [
  'gateway SERVER GET /v1/hello/{name} 503 UNAVAILABLE',
  '  gateway CLIENT helloworld.Greeter/SayHello first UNAVAILABLE',
  '    greeter a SERVER helloworld.Greeter/SayHello UNAVAILABLE',
  '  gateway CLIENT helloworld.Greeter/SayHello retry UNAVAILABLE',
  '    greeter a SERVER helloworld.Greeter/SayHello UNAVAILABLE',
  '  gateway CLIENT helloworld.Greeter/SayHello retry UNAVAILABLE',
  '    greeter a SERVER helloworld.Greeter/SayHello UNAVAILABLE',
];

/** Ids that differ in their first digit: 1 to f. */
function idOf(digit: number): string {
  return `${digit.toString(16)}af7651916cd43dd8448eb211c80319c`;
}

async function send(port: number, path: string, headers: Record<string, string>): Promise<IncomingMessage> {
  const [response] = await once(get({ host: '127.0.0.1', port, path, headers, agent: false }), 'response');
  await text(response as IncomingMessage);
  return response as IncomingMessage;
}

test('a request is one trace from the gateway to the greeter, however it ends', async (t) => {
  const { spans, env } = await startCollector(t);
  const { gatewayPort, adminPort, lines } = await startLab(t, { replicas: 1, env: { ...env, ...soon }, ...faulty });
  const port = gatewayPort();
  const tree = async (traceId: string, count: number, attributes: readonly string[]) => {
    const arrived = () => spans.filter((span) => span.traceId === traceId).length;
    await eventually(
      () => `${arrived()} of ${count} spans have come`,
      () => arrived() >= count,
    );
    return formatTree(spans, traceId, attributes);
  };

  await t.test('when all is well', async () => {
    const reply = await send(port, '/v1/hello/Ada', { ...traceparent(idOf(1)), baggage: 'tenant=a' });
    assert.equal(reply.statusCode, 200);
    assert.deepEqual(await tree(idOf(1), 3, status), [
      'gateway SERVER GET /v1/hello/{name} 200 OK',
      '  gateway CLIENT helloworld.Greeter/SayHello first OK',
      '    greeter a SERVER helloworld.Greeter/SayHello OK',
    ]);
    const root = spans.find(
      ({ traceId, kind, process }) => traceId === idOf(1) && `${process} ${kind}` === 'gateway SERVER',
    );
    assert.equal(root?.parentSpanId, 'b7ad6b7169203331');
  });

  await t.test('when it is retried, and the log names the trace', async () => {
    await setFaults(adminPort('a'), { errorCode: 'UNAVAILABLE' });
    assert.equal((await send(port, '/v1/hello/Ada', traceparent(idOf(2)))).statusCode, 503);
    await clearFaults(adminPort('a'));
    assert.deepEqual(await tree(idOf(2), 7, status), retried);
    const line = lines.find((each) => each.program === 'gateway' && each.line.includes(idOf(2)));
    assert.partialDeepStrictEqual(JSON.parse(line?.line ?? '{}'), { level: 'warn', trace_id: idOf(2), code: 503 });
  });

  await t.test('when its deadline passes', async () => {
    await setFaults(adminPort('a'), { delayMs: 60_000 });
    const headers = { ...traceparent(idOf(3)), 'grpc-timeout': '300m' };
    assert.equal((await send(port, '/v1/hello/Ada', headers)).statusCode, 504);
    await clearFaults(adminPort('a'));
    const lines = await tree(idOf(3), 3, status);
    assert.deepEqual(lines.slice(0, 2), [
      'gateway SERVER GET /v1/hello/{name} 504 DEADLINE_EXCEEDED',
      '  gateway CLIENT helloworld.Greeter/SayHello first DEADLINE_EXCEEDED',
    ]);
    // The client's reset and the greeter's own timer come at the same time.
    assert.match(lines[2] ?? '', /^ {4}greeter a SERVER helloworld.Greeter\/SayHello (DEADLINE_EXCEEDED|CANCELLED)$/);
  });

  const messages = [...status, 'tandem.messages.sent', 'tandem.messages.received'];

  await t.test('as a stream, with its messages counted', async () => {
    await send(port, '/v1/hello/Ada/stream?replyCount=3', traceparent(idOf(4)));
    assert.deepEqual(await tree(idOf(4), 3, messages), [
      'gateway SERVER GET /v1/hello/{name}/stream 200 OK',
      '  gateway CLIENT helloworld.Greeter/SayHelloStreamReply first OK 1 3',
      '    greeter a SERVER helloworld.Greeter/SayHelloStreamReply OK 3 1',
    ]);
  });

  await t.test('by WebSocket, when its client goes away', async () => {
    const path = '/v1/hello/Ada/stream?replyCount=2&replyInterval=10s';
    const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, { headers: traceparent(idOf(5)) });
    await once(socket, 'message');
    socket.terminate();
    assert.deepEqual(await tree(idOf(5), 3, messages), [
      'gateway SERVER GET /v1/hello/{name}/stream 101 CANCELLED',
      '  gateway CLIENT helloworld.Greeter/SayHelloStreamReply first CANCELLED 1 1',
      '    greeter a SERVER helloworld.Greeter/SayHelloStreamReply CANCELLED 1 1',
    ]);
  });
});

test('all spans are sent before the exit, under load too', async (t) => {
  const { spans, env } = await startCollector(t);
  const { lab, use, gatewayPort, lines } = await startLab(t, { replicas: 2, env: { ...env, DRAIN_DELAY: '500ms' } });
  const caller = use(createHttpCaller([gatewayPort()]));
  const load = startLoad(() => caller.get('/v1/hello/world'), { callsPerS: 100 });
  await delay(1_000);
  await lab.stop();
  await load.stop();
  const last = lines.findLast(({ program, line }) => program === 'gateway' && line.includes('"stopped"'));
  const { requests } = JSON.parse(last?.line ?? '{}') as { requests: Record<string, number> };
  const served = Object.values(requests).reduce((sum, count) => sum + count, 0);
  const count = (process: RegExp, kind: string) =>
    spans.filter((span) => process.test(span.process) && span.kind === kind).length;
  assert.ok(served >= 20, `${served} requests`);
  assert.equal(count(/^gateway/, 'SERVER'), served);
  assert.equal(count(/^gateway/, 'CLIENT'), count(/^greeter/, 'SERVER'));
});

test('the gateway keeps the last traces without a collector, those that failed apart', async (t) => {
  const { lab, gatewayPort, adminPort, lines } = await startLab(t, { replicas: 1, ...faulty });
  const gatewayAdminPort = lab.gateways[0]?.serving?.adminPort;
  const kept = async (query: string): Promise<Span[]> => {
    const url = `http://127.0.0.1:${gatewayAdminPort}/introspection/traces?${query}`;
    const response = await fetch(url, { headers: { connection: 'close' } });
    return readSpans((await response.json()) as ExportRequest);
  };
  await send(gatewayPort(), '/v1/hello/Ada', traceparent(idOf(1)));
  await setFaults(adminPort('a'), { errorCode: 'UNAVAILABLE' });
  const reply = await send(gatewayPort(), '/v1/hello/Bo', {});
  const failed = await kept('failed');
  const traceId = failed[0]?.traceId ?? '';
  assert.deepEqual(
    formatTree(failed, traceId, status),
    retried.filter((line) => !line.includes('greeter a')),
  );
  const line = lines.find((each) => each.program === 'gateway' && each.line.includes(traceId));
  assert.partialDeepStrictEqual(JSON.parse(line?.line ?? '{}'), { trace_id: traceId, code: reply.statusCode });
  const fine = await kept(`trace_id=${idOf(1)}`);
  assert.deepEqual(formatTree(fine, idOf(1), status), [
    'gateway SERVER GET /v1/hello/{name} 200 OK',
    '  gateway CLIENT helloworld.Greeter/SayHello first OK',
  ]);
  assert.equal(fine[0]?.parentSpanId, 'b7ad6b7169203331');
});

test('a collector that is down costs no call, and the spans that it costs are counted', async (t) => {
  const env = {
    OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1',
    OTEL_EXPORTER_OTLP_TIMEOUT: '300',
    OTEL_BSP_MAX_QUEUE_SIZE: '20',
    ...soon,
  };
  const { lab, use, gatewayPort } = await startLab(t, { replicas: 1, env });
  const caller = use(createHttpCaller([gatewayPort()]));
  const { ok } = await sendInTurn(() => caller.get('/v1/hello/world'), 50);
  assert.equal(ok, 50);
  const dropped = () => sumOfMetric(lab.gateways[0]?.serving?.adminPort ?? 0, 'tandem_telemetry_spans_dropped_total');
  await eventually('most spans are counted as dropped', async () => (await dropped()) >= 80);
});

for (const protocol of ['grpc', 'http/protobuf'] as const) {
  test(`a retried request is found in Jaeger by its traceparent (${protocol})`, async (t) => {
    if (await skipWithout(t, 'jaeger', ['version'])) return;
    const jaeger = await startJaeger(t);
    const env = {
      OTEL_EXPORTER_OTLP_ENDPOINT: jaeger.endpoints[protocol],
      OTEL_EXPORTER_OTLP_PROTOCOL: protocol,
      ...soon,
    };
    const { gatewayPort, adminPort } = await startLab(t, { replicas: 1, env, ...faulty });
    await setFaults(adminPort('a'), { errorCode: 'UNAVAILABLE' });
    assert.equal((await send(gatewayPort(), '/v1/hello/Ada', traceparent(idOf(6)))).statusCode, 503);
    let spans: Span[] = [];
    await eventually(
      () => `${spans.length} of ${retried.length} spans are in Jaeger`,
      async () => (spans = await jaeger.spansOf(idOf(6))).length >= retried.length,
      { timeoutMs: 20_000 },
    );
    assert.deepEqual(formatTree(spans, idOf(6), status), retried);
  });
}
