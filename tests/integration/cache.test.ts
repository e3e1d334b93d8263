import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, get, type ClientRequest, type IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import test, { type TestContext } from 'node:test';
import { eventually } from '../harness/eventually.ts';
import { clearFaults, setFaults } from '../harness/faults.ts';
import { startLab } from '../harness/lab-fixture.ts';
import { sumOfMetric } from '../harness/metrics.ts';

const method = 'helloworld.Greeter/SayHello';
/** One attempt, with enough time for a greeter that the test makes slow. */
const serviceConfig = { loadBalancingConfig: [{ round_robin: {} }], methodConfig: [{ name: [{}], timeout: '10s' }] };

/** Two greeters that can be made slow, and a gateway with this cache policy for SayHello. */
async function startCached(t: TestContext, policy: string) {
  const directory = mkdtempSync(join(tmpdir(), 'tandem-cache-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const config = join(directory, 'gateway.yaml');
  writeFileSync(
    config,
    `policies:\n  - { name: [{ service: helloworld.Greeter, method: SayHello }], cache: ${policy} }\n`,
  );
  const fixture = await startLab(t, {
    replicas: 2,
    greeterEnv: { FAULTS: 'enabled' },
    gatewayEnv: { GATEWAY_CONFIG: config, SERVICE_CONFIG: JSON.stringify(serviceConfig) },
  });
  const agent = new Agent({ keepAlive: true });
  fixture.use({ [Symbol.dispose]: () => agent.destroy() });
  const port = fixture.gatewayPort();
  const greeters = fixture.lab.replicas.map(({ serving }) => serving?.adminPort ?? 0);

  function ask(name: string, headers: Record<string, string> = {}): { request: ClientRequest; reply: Promise<Reply> } {
    const request = get({ host: '127.0.0.1', port, path: `/v1/hello/${name}`, headers, agent });
    const reply = new Promise<IncomingMessage>((resolve, reject) =>
      request.on('response', resolve).on('error', reject),
    );
    return { request, reply: reply.then(read) };
  }

  return {
    fixture,
    ask,
    /** The code, the Cache-Status and the body of a reply. */
    hello: (name: string, headers?: Record<string, string>) => ask(name, headers).reply,
    /** What all greeters have counted. */
    async calls(status?: string): Promise<number> {
      const labels = { grpc_method: method, ...(status && { grpc_status: status }) };
      const name = status === undefined ? 'grpc_server_call_started_total' : 'grpc_server_call_duration_seconds_count';
      const counts = await Promise.all(greeters.map((adminPort) => sumOfMetric(adminPort, name, labels)));
      return counts.reduce((sum, count) => sum + count, 0);
    },
    metric: (name: string, labels?: Record<string, string>) =>
      sumOfMetric(fixture.lab.gateways[0]?.serving?.adminPort ?? 0, name, labels),
    faults: (faults: Parameters<typeof setFaults>[1] | undefined) =>
      Promise.all(greeters.map((adminPort) => (faults ? setFaults(adminPort, faults) : clearFaults(adminPort)))),
  };
}

interface Reply {
  readonly code: number | undefined;
  readonly cache: string;
  readonly body: string;
  readonly headers: IncomingMessage['headers'];
}

async function read(response: IncomingMessage): Promise<Reply> {
  const { statusCode: code, headers } = response;
  return { code, headers, cache: String(headers['cache-status']), body: await text(response) };
}

test('1,000 equal requests at once are one call, and those after it none', async (t) => {
  const { hello, calls, faults, metric } = await startCached(t, '{ ttl: 1m }');
  const before = await calls();
  await faults({ delayMs: 4_000 });
  const replies = await Promise.all(Array.from({ length: 1_000 }, () => hello('all')));
  for (const { code, body } of replies) assert.deepEqual([code, body], [200, '{"message":"Hello all"}']);
  assert.equal((await calls()) - before, 1);
  assert.equal(await metric('tandem_cache_lookups_total', { outcome: 'miss' }), 1);
  assert.equal(await metric('tandem_cache_lookups_total', { outcome: 'collapsed' }), 999);

  const hit = await hello('all');
  assert.match(hit.cache, /^tandem; hit; ttl=5\d$/);
  const unchanged = await hello('all', { 'if-none-match': hit.headers.etag ?? '' });
  assert.deepEqual([unchanged.code, unchanged.body], [304, '']);
  assert.equal((await calls()) - before, 1);
  assert.equal((await hello('all', { authorization: 'Bearer me' })).cache, 'tandem; fwd=bypass');
  assert.equal((await calls()) - before, 2);
});

test('a client that leaves costs the others nothing, and the last one ends the call at the greeter', async (t) => {
  const { ask, calls, faults, metric } = await startCached(t, '{ ttl: 1m }');
  const cancelledBefore = await calls('CANCELLED');
  await faults({ delayMs: 1_000 });
  const waiting = (count: number) =>
    eventually(`${count} wait`, async () => (await metric('tandem_cache_waiters')) === count);
  const left = [ask('one'), ask('one')];
  const stays = ask('one');
  const gone = left.map(({ reply }) => assert.rejects(reply));
  await waiting(3);
  for (const { request } of left) request.destroy();
  await Promise.all(gone);
  assert.equal((await stays.reply).code, 200);
  assert.equal((await calls('CANCELLED')) - cancelledBefore, 0);

  const all = [ask('two'), ask('two')];
  const allGone = all.map(({ reply }) => assert.rejects(reply));
  await waiting(2);
  for (const { request } of all) request.destroy();
  await Promise.all(allGone);
  await eventually('the call is cancelled', async () => (await calls('CANCELLED')) - cancelledBefore === 1);
  assert.equal(await metric('tandem_cache_calls'), 0);
});

test('what is stale is given while it is fetched again, and while the greeters fail', async (t) => {
  const { hello, faults, metric } = await startCached(t, '{ ttl: 1ms, staleWhileRevalidate: 1m, staleIfError: 1m }');
  assert.match((await hello('x')).cache, /^tandem; fwd=uri-miss; stored/);
  assert.match((await hello('x')).cache, /^tandem; hit; ttl=-\d+$/);
  await eventually('a refresh', () => metric('tandem_cache_refreshes_total', { grpc_status: 'OK' }));

  await faults({ errorCode: 'UNAVAILABLE' });
  const stale = await hello('x');
  assert.deepEqual([stale.code, stale.body], [200, '{"message":"Hello x"}']);
  await eventually('a refresh that fails', () =>
    metric('tandem_cache_refreshes_total', { grpc_status: 'UNAVAILABLE' }),
  );
  assert.equal((await hello('y')).code, 503);
  assert.equal((await hello('x', { 'cache-control': 'no-cache' })).code, 503);

  // The lab stops while a refresh is under way.
  await faults({ delayMs: 9_000 });
  assert.equal((await hello('x')).code, 200);
});
