import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { EndpointSliceServer, endpointSlice, podEndpoint } from '#runtime/channel/testing/endpointslice-server.ts';
import { createEndpointsFile } from '../harness/endpoints-file.ts';
import { eventually } from '../harness/eventually.ts';
import { createChannelClient } from '../harness/greeter-client.ts';
import { type LabFixture, startLab } from '../harness/lab-fixture.ts';
import { formatLedger } from '../harness/ledger.ts';
import { startLoad } from '../harness/load.ts';
import { withoutLoopbackAddresses } from '../harness/loopback.ts';
import { widestDifference } from '../harness/spread.ts';

const healthChecks = { healthCheckConfig: { serviceName: '' } };

test('twenty shuffled lists of endpoints a second cost neither a call nor a connection', async (t) => {
  const { use, addresses } = await startLab(t, { replicas: 3, gateways: 0 });
  const endpoints = use(await createEndpointsFile(addresses()));
  let changes = 0;
  const client = use(
    createChannelClient({
      target: endpoints.target,
      serviceConfig: healthChecks,
      onEvent({ type }) {
        if (type === 'connection' || type === 'endpoints') changes += 1;
      },
    }),
  );
  await client.connected(3);
  changes = 0;
  const resolvedMsAgo = () => client.channel.snapshot().targets[0]?.resolvedMsAgo ?? Number.POSITIVE_INFINITY;
  const load = startLoad(() => client.hello(), { callsPerS: 200 });
  let updates = 0;
  let taken = 0;
  for (const startedMs = performance.now(); performance.now() < startedMs + 4_000; updates += 1) {
    const writtenMs = performance.now();
    await endpoints.write(rotate(addresses(), updates));
    await delay(50);
    if (resolvedMsAgo() <= performance.now() - writtenMs) taken += 1;
  }
  const ledger = await load.stop();
  t.diagnostic(`${updates} updates, ${taken} taken at once; ${formatLedger(ledger)}`);
  assert.ok(taken >= updates / 2, `${taken} of ${updates} updates were taken`);
  assert.equal(ledger.failed, 0);
  assert.equal(changes, 0, 'a connection or the set of endpoints changed');
});

test('two hundred endpoints share the calls evenly and without an error', {
  skip: withoutLoopbackAddresses,
}, async (t) => {
  // Each listens at all loopback addresses, and is fifty endpoints.
  const { lab, use } = await startLab(t, { replicas: 4, gateways: 0, greeterEnv: { HOST: '0.0.0.0' } });
  const endpoints = Array.from({ length: 200 }, (_, index) => {
    const replica = lab.replicas[index % lab.replicas.length];
    return `127.0.${1 + Math.floor(index / 100)}.${1 + (index % 100)}:${replica?.serving?.port}`;
  });
  const picks: string[] = [];
  const client = use(
    createChannelClient({
      target: `ipv4:${endpoints.join()}`,
      serviceConfig: healthChecks,
      onEvent(event) {
        if (event.type === 'attempt-started') picks.push(event.endpointId);
      },
    }),
  );
  const startedMs = performance.now();
  await client.connected(endpoints.length);
  const connectedMs = performance.now() - startedMs;
  const load = startLoad(() => client.hello(), { callsPerS: 200 });
  await delay(5_000);
  const ledger = await load.stop();
  const difference = widestDifference(picks, endpoints);
  t.diagnostic(`connected in ${Math.round(connectedMs)} ms; widest difference ${difference}; ${formatLedger(ledger)}`);
  assert.equal(ledger.failed, 0);
  assert.equal(new Set(picks).size, endpoints.length);
  assert.equal(difference, 1);
});

test('whatever the EndpointSlice API does under load, calls go on, and what it says afterwards is heard', async (t) => {
  const fixture = await startLab(t, { replicas: 2, gateways: 0 });
  const api = new EndpointSliceServer();
  await api.start();
  fixture.use({ [Symbol.asyncDispose]: () => api.stop() });
  api.setSlices(slicesOf(fixture));
  const client = fixture.use(
    createChannelClient({
      target: 'kubernetes:///greeter.default:grpc',
      kubernetes: { server: api.url },
      serviceConfig: healthChecks,
    }),
  );
  await client.connected(2);
  await eventually('the API is watched', () => api.openWatches === 1);
  const load = startLoad(() => client.hello(), { callsPerS: 100 });

  for (const how of ['event', 'status'] as const) {
    const lists = api.countOf('list');
    api.expire(how);
    await eventually(
      `listed anew after 410 Gone by ${how}`,
      () => api.countOf('list') > lists && api.openWatches === 1,
    );
  }
  api.stopAnswering();
  await fixture.lab.scale(3);
  api.setSlices(slicesOf(fixture));
  await delay(1_000);
  api.answerAgain();
  api.cut();
  await client.connected(3);
  await api.stop();
  await fixture.lab.scale(4);
  await delay(2_000);
  await api.start();
  api.setSlices(slicesOf(fixture));
  const backMs = performance.now();
  await client.connected(4);
  const heardMs = performance.now() - backMs;
  await delay(300);
  const ledger = await load.stop();
  t.diagnostic(`heard ${Math.round(heardMs)} ms after the API was back; ${formatLedger(ledger)}`);
  assert.equal(ledger.failed, 0);
  assert.deepEqual([...ledger.servedBy.keys()].toSorted(), ['a', 'b', 'c', 'd']);
});

/** One slice a replica, since they have one address and differ by their ports. */
function slicesOf({ lab }: LabFixture) {
  return lab.replicas.map(({ name, serving }) =>
    endpointSlice(`greeter-${name}`, {
      endpoints: [podEndpoint(name, '127.0.0.1')],
      ports: [{ name: 'grpc', port: serving?.port ?? null, protocol: 'TCP' }],
    }),
  );
}

function rotate<T>(items: readonly T[], by: number): T[] {
  const first = by % items.length;
  return [...items.slice(first), ...items.slice(0, first)];
}
