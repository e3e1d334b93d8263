import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import type { Method } from '../call/call.ts';
import { invokeUnary } from '../call/invoke.ts';
import { Code, RpcError } from '../call/status.ts';
import { type Channel, type ChannelOptions, createChannel } from './channel.ts';
import type { ChannelEvent } from './events.ts';
import { parseServiceConfig } from './service-config.ts';
import { EndpointSliceServer, endpointSlice, podEndpoint } from './testing/endpointslice-server.ts';
import { frame, type Peer, replyHeaders, replyWith, startPeer } from './testing/http2-peer.ts';
import { until } from './testing/until.ts';
import { createGrpcJsTransport } from './transport/grpc-js.ts';

const greet: Method = {
  path: '/helloworld.Greeter/SayHello',
  requestStream: false,
  responseStream: false,
  idempotency: 'NO_SIDE_EFFECTS',
};

const retryingConfig = parseServiceConfig({
  retryThrottling: { maxTokens: 100, tokenRatio: 0.1 },
  methodConfig: [
    {
      name: [{}],
      retryPolicy: {
        maxAttempts: 3,
        initialBackoff: '0.01s',
        maxBackoff: '0.05s',
        backoffMultiplier: 2,
        retryableStatusCodes: ['UNAVAILABLE'],
        perAttemptRecvTimeout: '0.2s',
      },
    },
  ],
});

function openChannel(t: TestContext, options: ChannelOptions): Channel & { readonly events: ChannelEvent[] } {
  const events: ChannelEvent[] = [];
  const channel = createChannel({
    transport: createGrpcJsTransport({ initialReconnectBackoffMs: 50, maxReconnectBackoffMs: 100 }),
    onEvent: (event) => events.push(event),
    ...options,
  });
  t.after(() => channel.close(0));
  channel.connect();
  return Object.assign(channel, { events });
}

/** Greets that many times, one after the other, and counts who answered. */
async function spread(channel: Channel, calls: number): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  for (let call = 0; call < calls; call++) {
    const { endpointId } = await invokeUnary(channel, { method: greet }, Buffer.from('x'));
    counts.set(endpointId, (counts.get(endpointId) ?? 0) + 1);
  }
  return counts;
}

async function readyConnections(
  { events }: { readonly events: readonly ChannelEvent[] },
  count: number,
): Promise<void> {
  await until(() => events.filter((event) => event.type === 'connection' && event.state === 'READY').length === count);
}

function failsWith(code: number, details: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof RpcError);
    assert.equal(error.code, code);
    assert.match(error.details, details);
    return true;
  };
}

test('connects ahead of the first call and spreads calls evenly', async (t) => {
  const peers = await Promise.all([1, 2, 3].map(() => startPeer(t, replyWith('hi'))));
  const channel = openChannel(t, { target: `ipv4:${peers.map(({ address }) => address).join(',')}` });
  assert.ok(await channel.whenReady(5_000));
  await readyConnections(channel, 3);
  assert.deepEqual([...(await spread(channel, 30)).values()], [10, 10, 10]);
});

test('queues calls while it connects, and fails them with the reason once nobody can be reached', async (t) => {
  const peer = await startPeer(t, replyWith('hi'));
  const channel = openChannel(t, { target: `ipv4:${peer.address}` });
  assert.equal((await invokeUnary(channel, { method: greet }, Buffer.from('x'))).endpointId, peer.address);
  await peer.stop();
  await until(() => channel.state === 'TRANSIENT_FAILURE');
  const failed = invokeUnary(channel, { method: greet }, Buffer.from('x'));
  await assert.rejects(
    failed,
    failsWith(Code.UNAVAILABLE, /there are 1 endpoints, none ready \(127\.0\.0\.1:\d+: cannot connect/),
  );
});

test('waits for a replica when the method says waitForReady', async (t) => {
  const gone = await startPeer(t, replyWith('hi'));
  await gone.stop();
  const serviceConfig = parseServiceConfig({ methodConfig: [{ name: [{}], waitForReady: true }] });
  const channel = openChannel(t, { target: `ipv4:${gone.address}`, serviceConfig });
  await until(() => channel.state === 'TRANSIENT_FAILURE');
  const waiting = invokeUnary(channel, { method: greet }, Buffer.from('x'));
  await startPeer(t, replyWith('hi'), { port: gone.port });
  assert.equal((await waiting).endpointId, gone.address);
});

test('takes only replicas whose health service says SERVING, and those that have none', async (t) => {
  const healthy = await startHealthPeer(t, 1);
  const sick = await startHealthPeer(t, 2);
  const without = await startHealthPeer(t, undefined);
  const serviceConfig = parseServiceConfig({ healthCheckConfig: { serviceName: 'helloworld.Greeter' } });
  const target = `ipv4:${[healthy, sick, without].map(({ peer }) => peer.address).join(',')}`;
  const channel = openChannel(t, { target, serviceConfig });
  await until(() => channel.events.filter(({ type }) => type === 'health').length === 3);
  assert.deepEqual(new Set((await spread(channel, 10)).keys()), new Set([healthy.peer.address, without.peer.address]));
  assert.equal(healthy.peer.requests[0]?.body, '\n\x12helloworld.Greeter');

  sick.say(1);
  healthy.say(2);
  await until(() => channel.events.filter(({ type }) => type === 'health').length === 5);
  assert.deepEqual(new Set((await spread(channel, 10)).keys()), new Set([sick.peer.address, without.peer.address]));
});

test('goes on with replicas that the cluster calls not ready, all of them, if their health service says SERVING', async (t) => {
  const peers = [await startHealthPeer(t, 1), await startHealthPeer(t, 1), await startHealthPeer(t, undefined)];
  const server = new EndpointSliceServer();
  await server.start();
  t.after(() => server.stop());
  const sliceWith = (ready: boolean) =>
    peers.map(({ peer }, index) =>
      endpointSlice(`greeter-${index}`, {
        endpoints: [podEndpoint(`pod-${index}`, '127.0.0.1', { ready, serving: ready, terminating: false })],
        ports: [{ name: 'grpc', port: peer.port }],
      }),
    );
  server.setSlices(sliceWith(true));
  const serviceConfig = parseServiceConfig({ healthCheckConfig: { serviceName: '' } });
  const target = 'kubernetes:///greeter.default:grpc';
  const channel = openChannel(t, { target, serviceConfig, kubernetes: { server: server.url } });
  const healths = () => channel.events.filter(({ type }) => type === 'health').length;
  await until(() => healths() === 3);
  assert.deepEqual(Object.fromEntries(await spread(channel, 9)), { 'pod-0': 3, 'pod-1': 3, 'pod-2': 3 });

  server.setSlices(sliceWith(false));
  await until(() => channel.snapshot().targets[0]?.endpoints.every(({ ready }) => !ready) === true);
  assert.deepEqual(Object.fromEntries(await spread(channel, 8)), { 'pod-0': 4, 'pod-1': 4 });
  assert.equal(peers[0]?.peer.sessionsEver, 1, 'the connection stayed');

  peers[0]?.say(2);
  peers[1]?.say(2);
  await until(() => channel.state === 'TRANSIENT_FAILURE');
  await assert.rejects(
    invokeUnary(channel, { method: greet }, Buffer.from('x')),
    failsWith(Code.UNAVAILABLE, /pod-0: health is not-serving; .*pod-2: not ready, and without a health service/),
  );
  server.setSlices(sliceWith(true));
  await until(() => channel.state === 'READY');
  assert.deepEqual(Object.fromEntries(await spread(channel, 2)), { 'pod-2': 2 });
});

test('connects at once to a replica that becomes ready, though it was tried too early', async (t) => {
  const early = await startPeer(t, replyWith('hi'));
  await early.stop();
  const server = new EndpointSliceServer();
  await server.start();
  t.after(() => server.stop());
  const sliceWith = (ready: boolean) => [
    endpointSlice('greeter-x', {
      endpoints: [podEndpoint('pod', '127.0.0.1', { ready, serving: ready, terminating: false })],
      ports: [{ name: 'grpc', port: early.port }],
    }),
  ];
  server.setSlices(sliceWith(false));
  const transport = createGrpcJsTransport({ initialReconnectBackoffMs: 60_000, maxReconnectBackoffMs: 60_000 });
  const target = 'kubernetes:///greeter.default:grpc';
  const channel = openChannel(t, { target, transport, kubernetes: { server: server.url } });
  await until(() => channel.state === 'TRANSIENT_FAILURE');
  await startPeer(t, replyWith('hi'), { port: early.port });
  server.setSlices(sliceWith(true));
  assert.ok(await channel.whenReady(5_000));
});

test('says why when the only replica is not serving', async (t) => {
  const sick = await startHealthPeer(t, 2);
  const serviceConfig = parseServiceConfig({ healthCheckConfig: { serviceName: '' } });
  const channel = openChannel(t, { target: `ipv4:${sick.peer.address}`, serviceConfig });
  await until(() => channel.state === 'TRANSIENT_FAILURE');
  await assert.rejects(
    invokeUnary(channel, { method: greet }, Buffer.from('x')),
    failsWith(Code.UNAVAILABLE, /health is not-serving/),
  );
});

test('follows a file: new replicas get calls, those that stay keep their connection, those that leave finish', async (t) => {
  const release = Promise.withResolvers<void>();
  const peers = await Promise.all([
    startPeer(t, async (stream) => {
      await release.promise;
      replyWith('slow')(stream);
    }),
    startPeer(t, replyWith('hi')),
    startPeer(t, replyWith('hi')),
  ]);
  const [leaver, stayer, newcomer] = peers;
  const file = await endpointsFile(t, [leaver, stayer]);
  const channel = openChannel(t, { target: pathToFileURL(file.path).href });
  await readyConnections(channel, 2);
  const slow = [1, 2].map(() => invokeUnary(channel, { method: greet }, Buffer.from('x')));
  await until(() => leaver.requests.length === 1);

  await file.write([stayer, newcomer]);
  await readyConnections(channel, 3);
  assert.deepEqual(new Set((await spread(channel, 10)).keys()), new Set([stayer.address, newcomer.address]));
  assert.equal(stayer.sessions, 1, 'it was not connected anew');
  release.resolve();
  assert.equal((await Promise.all(slow)).filter(({ endpointId }) => endpointId === leaver.address).length, 1);
});

test('keeps the last endpoints while their file is half written, wrong or gone', async (t) => {
  const peer = await startPeer(t, replyWith('hi'));
  const file = await endpointsFile(t, [peer]);
  const channel = openChannel(t, { target: pathToFileURL(file.path).href });
  assert.ok(await channel.whenReady(5_000));
  for (const break_ of [
    () => writeFile(file.path, '[{"targets": ["127.0'),
    () => writeFile(file.path, '[{"targets": ["localhost"]}]'),
    () => rm(file.path),
  ]) {
    const before = channel.events.filter(({ type }) => type === 'resolver-error').length;
    await break_();
    await until(() => channel.events.filter(({ type }) => type === 'resolver-error').length > before);
    assert.equal((await spread(channel, 1)).get(peer.address), 1);
  }
  assert.equal(channel.events.filter(({ type }) => type === 'endpoints').length, 1);
  await file.write([]);
  await until(() => channel.state === 'TRANSIENT_FAILURE');
  await assert.rejects(
    invokeUnary(channel, { method: greet }, Buffer.from('x')),
    failsWith(Code.UNAVAILABLE, /there are 0 endpoints/),
  );
});

test('resolves a name', async (t) => {
  const peer = await startPeer(t, replyWith('hi'));
  const channel = openChannel(t, { target: `dns:///localhost:${peer.port}` });
  assert.equal((await spread(channel, 1)).get(peer.address), 1);
});

test('fails calls at once when a name cannot be resolved', async (t) => {
  const channel = openChannel(t, { target: 'dns:///nobody.invalid:50051' });
  await until(() => channel.state === 'TRANSIENT_FAILURE');
  await assert.rejects(
    invokeUnary(channel, { method: greet }, Buffer.from('x')),
    failsWith(Code.UNAVAILABLE, /cannot look up nobody\.invalid: ENOTFOUND/),
  );
});

test('lets calls finish when it is closed', async (t) => {
  const release = Promise.withResolvers<void>();
  const peer = await startPeer(t, async (stream) => {
    await release.promise;
    replyWith('hi')(stream);
  });
  const channel = openChannel(t, { target: `ipv4:${peer.address}` });
  const running = invokeUnary(channel, { method: greet }, Buffer.from('x'));
  await until(() => peer.requests.length === 1);
  const closed = channel.close(5_000);
  await assert.rejects(
    invokeUnary(channel, { method: greet }, Buffer.from('x')),
    failsWith(Code.UNAVAILABLE, /is closed/),
  );
  release.resolve();
  assert.equal((await running).endpointId, peer.address);
  await closed;
});

test('spreads over replicas, not connections, with several connections to each', async (t) => {
  const peers = await Promise.all([1, 2].map(() => startPeer(t, replyWith('hi'))));
  const target = `ipv4:${peers.map(({ address }) => address).join(',')}`;
  const channel = openChannel(t, { target, connectionsPerEndpoint: 3 });
  await until(() => peers.every(({ sessions }) => sessions === 3));
  await readyConnections(channel, 2);
  assert.deepEqual([...(await spread(channel, 10)).values()], [5, 5]);
});

test('never has more calls open at a replica than its SETTINGS_MAX_CONCURRENT_STREAMS', async (t) => {
  let open = 0;
  let mostOpen = 0;
  const peer = await startPeer(
    t,
    async (stream) => {
      mostOpen = Math.max(mostOpen, ++open);
      await new Promise((resolve) => setTimeout(resolve, 10));
      open--;
      replyWith('hi')(stream);
    },
    { maxConcurrentStreams: 3 },
  );
  const channel = openChannel(t, { target: `ipv4:${peer.address}` });
  assert.ok(await channel.whenReady(5_000));
  const calls = Array.from({ length: 20 }, () => invokeUnary(channel, { method: greet }, Buffer.from('x')));
  assert.equal((await Promise.all(calls)).length, 20);
  assert.equal(mostOpen, 3);
});

test('fails over to the backup, which connects only then, and back once the primary has held', async (t) => {
  const primary = await startPeer(t, replyWith('hi'));
  const backup = await startPeer(t, replyWith('hi'));
  const channel = openChannel(t, {
    target: [`ipv4:${primary.address}`, `ipv4:${backup.address}`],
    failbackAfterMs: 300,
    serviceConfig: retryingConfig,
  });
  assert.equal((await spread(channel, 5)).get(primary.address), 5);
  assert.equal(backup.sessions, 0);

  await primary.stop();
  const lostMs = performance.now();
  assert.equal((await spread(channel, 5)).get(backup.address), 5);
  t.diagnostic(`the backup answered after ${Math.round(performance.now() - lostMs)} ms`);

  await startPeer(t, replyWith('hi'), { port: primary.port });
  const returnedMs = performance.now();
  await until(() => channel.snapshot().activePriority === 0);
  assert.ok(performance.now() - returnedMs >= 300);
  assert.equal((await spread(channel, 5)).get(primary.address), 5);
  const switches = channel.events.filter((event) => event.type === 'priority');
  assert.deepEqual(
    switches.map(({ priority }) => priority),
    [1, 0],
  );
});

test('goes to the backup when the primary accepts connections and says nothing', async (t) => {
  const silent = net.createServer(() => {}).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  t.after(() => silent.close());
  const backup = await startPeer(t, replyWith('hi'));
  const target = [`ipv4:127.0.0.1:${(silent.address() as net.AddressInfo).port}`, `ipv4:${backup.address}`];
  assert.equal((await spread(openChannel(t, { target }), 1)).get(backup.address), 1);
});

test('takes a frozen replica out after three expired attempts, and back after its first answer', async (t) => {
  const frozen = { is: true };
  const peers = await Promise.all([
    startPeer(t, (stream) => (frozen.is ? undefined : replyWith('hi')(stream))),
    startPeer(t, replyWith('hi')),
  ]);
  const channel = openChannel(t, {
    target: `ipv4:${peers.map(({ address }) => address).join(',')}`,
    serviceConfig: retryingConfig,
  });
  await readyConnections(channel, 2);
  assert.equal((await spread(channel, 12)).get(peers[1]?.address ?? ''), 12, 'every call is answered by the other');
  const endpoint = channel.snapshot().targets[0]?.endpoints[0];
  assert.deepEqual([endpoint?.picks, endpoint?.failures, endpoint?.ejected], [3, 3, 'consecutive-failures']);
  frozen.is = false;
  await until(() => channel.events.some(({ type }) => type === 'returned'));
  assert.equal((await spread(channel, 12)).size, 2);
});

test('keeps connections and calls through many shuffled updates', async (t) => {
  const peers = await Promise.all(Array.from({ length: 5 }, () => startPeer(t, replyWith('hi'))));
  const file = await endpointsFile(t, peers);
  const channel = openChannel(t, { target: pathToFileURL(file.path).href });
  await readyConnections(channel, 5);
  for (let update = 0; update < 40; update++) {
    const shuffled = peers.toSorted(() => Math.random() - 0.5);
    await Promise.all([file.write(shuffled), spread(channel, 5)]);
  }
  assert.equal(channel.events.filter(({ type }) => type === 'endpoints').length, 1, 'another order is no change');
  assert.deepEqual(
    peers.map(({ sessionsEver }) => sessionsEver),
    [1, 1, 1, 1, 1],
  );
});

test('balances over 200 endpoints', async (t) => {
  // One server, reached at many loopback addresses: to the channel each is a replica.
  const peer = await startPeer(t, replyWith('hi'), { host: '0.0.0.0' });
  const addresses = Array.from({ length: 200 }, (_, index) => `127.0.1.${index + 1}:${peer.port}`);
  const channel = openChannel(t, { target: `ipv4:${addresses.join(',')}` });
  await readyConnections(channel, 200);
  const counts = await spread(channel, 400);
  assert.equal(counts.size, 200);
  assert.deepEqual(new Set(counts.values()), new Set([2]));
});

test('shows what it does', async (t) => {
  const peer = await startPeer(t, replyWith('hi'));
  const channel = openChannel(t, { target: `ipv4:${peer.address}`, serviceConfig: retryingConfig });
  await spread(channel, 2);
  const { targets, ...snapshot } = channel.snapshot();
  assert.deepEqual(snapshot, {
    state: 'READY',
    policy: 'round_robin',
    activePriority: 0,
    waitingCalls: 0,
    retryBudget: { tokens: 100, maxTokens: 100, allows: true },
  });
  assert.deepEqual(targets[0]?.endpoints, [
    {
      id: peer.address,
      addresses: [peer.address],
      ready: true,
      state: 'READY',
      lastError: '',
      health: 'serving',
      ejected: undefined,
      inFlight: 0,
      picks: 2,
      failures: 0,
    },
  ]);
});

for (const [target, problem] of [
  ['localhost:50051', 'must begin with'],
  ['dns:///localhost', 'must be dns:///name:port'],
  ['dns://1.1.1.1/localhost:1', 'must be dns:///name:port'],
  ['ipv4:10.0.0.300:1', 'which is no ipv4 address:port'],
  ['ipv4:10.0.0.3:99999', 'which is no ipv4 address:port'],
  ['ipv4:127.0.0.1:1,127.0.0.1:1', 'names an address twice'],
  ['file://host/x', 'must be file:///path'],
] as const) {
  test(`refuses the target ${target}`, () => {
    assert.throws(() => createChannel({ target }), new RegExp(problem));
  });
}

/** A peer whose health service says `status`; without one it has no health service. */
async function startHealthPeer(t: TestContext, status: number | undefined) {
  const watches: { write(message: Buffer): unknown }[] = [];
  const peer = await startPeer(t, (stream, headers) => {
    if (headers[':path'] !== '/grpc.health.v1.Health/Watch') return replyWith('hi')(stream);
    if (status === undefined) return stream.respond({ ...replyHeaders, 'grpc-status': '12' }, { endStream: true });
    stream.respond(replyHeaders);
    stream.write(frame(`\x08${String.fromCharCode(status)}`));
    watches.push(stream);
  });
  return {
    peer,
    say: (now: number) => {
      for (const watch of watches) watch.write(frame(`\x08${String.fromCharCode(now)}`));
    },
  };
}

async function endpointsFile(t: TestContext, peers: readonly Peer[]) {
  const folder = await mkdtemp(join(tmpdir(), 'endpoints-'));
  t.after(() => rm(folder, { recursive: true }));
  const path = join(folder, 'endpoints.json');
  const write = async (now: readonly Peer[]) => {
    await writeFile(`${path}.new`, JSON.stringify([{ targets: now.map(({ address }) => address) }]));
    await rename(`${path}.new`, path);
  };
  await write(peers);
  return { path, write };
}
