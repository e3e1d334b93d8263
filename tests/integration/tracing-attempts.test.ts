import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { type ExportRequest, readSpans, startCollector } from '../harness/collector.ts';
import { isInstalled } from '../harness/command.ts';
import { createEndpointsFile } from '../harness/endpoints-file.ts';
import { eventually } from '../harness/eventually.ts';
import { setFaults } from '../harness/faults.ts';
import { startJaeger } from '../harness/jaeger.ts';
import { type LabFixture, startLab } from '../harness/lab-fixture.ts';
import { sumOfMetric } from '../harness/metrics.ts';
import { formatTree, type Span, traceparent } from '../harness/spans.ts';

const [oneId, otherId] = ['1af7651916cd43dd8448eb211c80319c', '2af7651916cd43dd8448eb211c80319c'] as const;
const faulty = { FAULTS: 'enabled' };
/** Which attempt it was, why it was made, where it went and what became of it. */
const attempt = [
  'http.response.status_code',
  'tandem.attempt.number',
  'tandem.attempt.reason',
  'tandem.target.priority',
  'rpc.response.status_code',
  'tandem.attempt.lost',
];

/** Where the programs send their spans: a real Jaeger, or, where it is not installed, a collector of the test's own. */
async function startBackend(t: TestContext) {
  const soon = { OTEL_BSP_SCHEDULE_DELAY: '100' };
  if (process.env.CI || (await isInstalled('jaeger', ['version']))) {
    const { endpoints, spansOf } = await startJaeger(t);
    return { env: { ...soon, OTEL_EXPORTER_OTLP_ENDPOINT: endpoints['http/protobuf'] }, spansOf };
  }
  t.diagnostic('jaeger is not installed: a collector of the test stands in for it');
  const { env, spans } = await startCollector(t);
  return { env: { ...soon, ...env }, spansOf: async (id: string) => spans.filter((span) => span.traceId === id) };
}

/** Asks for a greeting in that trace, with the most time that a call may have. */
async function greet(gateway: LabFixture, traceId: string): Promise<number> {
  const headers = { ...traceparent(traceId), 'grpc-timeout': '10S', connection: 'close' };
  const reply = await fetch(`http://127.0.0.1:${gateway.gatewayPort()}/v1/hello/Ada`, { headers });
  await reply.text();
  return reply.status;
}

/** The trace as the gateway itself has kept it: without the greeters. */
async function keptSpans({ lab }: LabFixture, traceId: string): Promise<Span[]> {
  const url = `http://127.0.0.1:${lab.gateways[0]?.serving?.adminPort}/introspection/traces?trace_id=${traceId}`;
  const reply = await fetch(url, { headers: { connection: 'close' } });
  return readSpans((await reply.json()) as ExportRequest);
}

/** The same tree at the gateway, which has kept its part, and where all spans went. */
async function assertTree(
  gateway: LabFixture,
  spansOf: (id: string) => Promise<readonly Span[]>,
  traceId: string,
  tree: readonly string[],
): Promise<readonly Span[]> {
  let spans: readonly Span[] = [];
  await eventually(
    () => `${spans.length} of ${tree.length} spans have come`,
    async () => (spans = await spansOf(traceId)).length >= tree.length,
    { timeoutMs: 20_000 },
  );
  assert.deepEqual(formatTree(spans, traceId, attempt), tree);
  const kept = tree.filter((line) => line.trimStart().startsWith('gateway'));
  assert.deepEqual(formatTree(await keptSpans(gateway, traceId), traceId, attempt), kept);
  return spans;
}

/** The replicas that the attempts of a call went to, in order. */
function replicasOf(spans: readonly Span[]): unknown[] {
  return spans
    .filter(({ kind }) => kind === 'CLIENT')
    .sort((a, b) => a.startUs - b.startUs)
    .map(({ attributes }) => attributes.get('tandem.replica'));
}

test('a hedge is an attempt beside the first, and the one that lost is marked and cancelled', async (t) => {
  const { env, spansOf } = await startBackend(t);
  const hedging = { methodConfig: [{ name: [{}], hedgingPolicy: { maxAttempts: 2, hedgingDelay: '0.05s' } }] };
  const gateway = await startLab(t, {
    replicas: 2,
    env,
    greeterEnv: faulty,
    gatewayEnv: { SERVICE_CONFIG: JSON.stringify(hedging) },
  });
  const [slow, quick] = gateway.addresses();
  await setFaults(gateway.adminPort('a'), { delayMs: 60_000 });
  // Round robin: the first attempt of one of two calls, at least, goes to the slow one.
  for (const id of [oneId, otherId]) assert.equal(await greet(gateway, id), 200);
  const isHedged = (await keptSpans(gateway, oneId)).length > 2;
  const spans = await assertTree(gateway, spansOf, isHedged ? oneId : otherId, [
    'gateway SERVER GET /v1/hello/{name} 200 OK',
    '  gateway CLIENT helloworld.Greeter/SayHello 1 first 0 CANCELLED true',
    '    greeter a SERVER helloworld.Greeter/SayHello CANCELLED',
    '  gateway CLIENT helloworld.Greeter/SayHello 2 hedge 0 OK',
    '    greeter b SERVER helloworld.Greeter/SayHello OK',
  ]);
  assert.deepEqual(replicasOf(spans), [slow, quick]);
});

test('an attempt at the backup target stands beside the one whose replica died', async (t) => {
  const { env, spansOf } = await startBackend(t);
  const backup = await startLab(t, { replicas: 1, gateways: 0, env, greeterEnv: { POD_NAME: 'backup' } });
  const primary = await startLab(t, { replicas: 1, gateways: 0, env, greeterEnv: { ...faulty, POD_NAME: 'primary' } });
  const [dead] = primary.addresses();
  // Whoever keeps the list does not notice the crash.
  const primaries = await createEndpointsFile(primary.addresses());
  t.after(() => primaries[Symbol.asyncDispose]());
  const target = `${primaries.target} ${backup.lab.target}`;
  // No timeout of an attempt, and hardly ever a retry before the channel knows of the crash.
  const retryPolicy = {
    maxAttempts: 2,
    initialBackoff: '1s',
    maxBackoff: '1s',
    backoffMultiplier: 1,
    retryableStatusCodes: ['UNAVAILABLE'],
  };
  const retrying = JSON.stringify({ methodConfig: [{ name: [{}], retryPolicy }] });
  const gateway = await startLab(t, { replicas: 0, env, gatewayEnv: { TARGET: target, SERVICE_CONFIG: retrying } });
  await setFaults(primary.adminPort('a'), { delayMs: 60_000 });
  const started = () =>
    sumOfMetric(primary.adminPort('a'), 'grpc_server_call_started_total', {
      grpc_method: 'helloworld.Greeter/SayHello',
    });
  const before = await started();
  const answered = greet(gateway, oneId);
  await eventually('the call is at the primary', async () => (await started()) > before);
  await primary.lab.replicas[0]?.stop();
  assert.equal(await answered, 200);
  const spans = await assertTree(gateway, spansOf, oneId, [
    'gateway SERVER GET /v1/hello/{name} 200 OK',
    '  gateway CLIENT helloworld.Greeter/SayHello 1 first 0 UNAVAILABLE',
    '  gateway CLIENT helloworld.Greeter/SayHello 2 retry 1 OK',
    '    greeter backup SERVER helloworld.Greeter/SayHello OK',
  ]);
  assert.deepEqual(replicasOf(spans), [dead, ...backup.addresses()]);
  const targets = spans.flatMap(({ attributes }) => attributes.get('tandem.target') ?? []);
  assert.deepEqual(new Set(targets), new Set([primaries.target, backup.lab.target]));
});
