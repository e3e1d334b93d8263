import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as grpc from '@grpc/grpc-js';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { until } from './edge/testing.ts';
import { createEventLoop } from './stages/event-loop.ts';
import { createUpstreams } from './upstreams.ts';

/** A server that knows no method. */
async function startServer(port = 0) {
  const server = new grpc.Server();
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${port}`, grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  return { port: bound, target: `ipv4:127.0.0.1:${bound}`, stop: () => server.forceShutdown() };
}

test('the log says when calls go to a backup, and when they return', async () => {
  const once = await startServer();
  once.stop();
  const backup = await startServer();
  const lines: Record<string, unknown>[] = [];
  const log = pino({ base: null }, { write: (line) => void lines.push(JSON.parse(line)) });
  const targets = [once.target, backup.target];
  const config = { name: 'library', targets, services: ['a.B'], connectionsPerEndpoint: 1, place: 'TARGET' };
  const upstreams = createUpstreams([{ ...config, serviceConfig: {} }], {
    kubernetes: undefined,
    eventLoop: createEventLoop(),
    registry: new Registry(),
    log,
  });
  const logged = (msg: string) => lines.find((line) => line['msg'] === msg);
  const level = (msg: string) => log.levels.labels[Number(logged(msg)?.['level'])];

  upstreams.connect();
  const toBackup = 'calls go to a backup target';
  await until(() => logged(toBackup) !== undefined, toBackup);
  assert.deepEqual([level(toBackup), logged(toBackup)?.['active']], ['warn', backup.target]);
  await upstreams.whenReady(5_000);
  assert.equal(upstreams.snapshot()['library']?.state, 'READY');

  const primary = await startServer(once.port);
  await until(() => upstreams.snapshot()['library']?.targets[0]?.state === 'READY', 'the primary is connected');
  backup.stop(); // without it calls would stay there for the 10 s that the primary has to last
  const toPrimary = 'calls go to the primary target again';
  await until(() => logged(toPrimary) !== undefined, toPrimary);
  assert.deepEqual([level(toPrimary), logged(toPrimary)?.['active']], ['info', primary.target]);
  await upstreams.close();
  primary.stop();
});

test('waits for each upstream, and names the one that is not ready in time', async () => {
  const server = await startServer();
  const lines: Record<string, unknown>[] = [];
  const log = pino({ base: null }, { write: (line) => void lines.push(JSON.parse(line)) });
  const config = (name: string, target: string) => ({
    name,
    targets: [target],
    services: [`${name}.Service`],
    serviceConfig: { methodConfig: [{ name: [{}], timeout: name === 'here' ? '1s' : '2s' }] },
    connectionsPerEndpoint: 1,
    place: 'gateway.yaml:1',
  });
  const upstreams = createUpstreams([config('here', server.target), config('away', 'ipv4:127.0.0.1:1')], {
    kubernetes: undefined,
    eventLoop: createEventLoop(),
    registry: new Registry(),
    log,
  });
  upstreams.connect();
  await upstreams.whenReady(500);
  const warnings = lines.filter(({ msg }) => msg === 'no replica is ready yet: serving without');
  assert.deepEqual(
    warnings.map(({ upstream, targets }) => [upstream, targets]),
    [['away', ['ipv4:127.0.0.1:1']]],
  );
  const timeouts = (['/here.Service/A', '/away.Service/A'] as const).map((path) => {
    const method = { path, requestStream: false, responseStream: false, idempotency: 'UNKNOWN' } as const;
    const upstream = upstreams.of(method);
    return [upstream.name, upstream.timeoutMs(method)];
  });
  assert.deepEqual(timeouts, [
    ['here', 1_000],
    ['away', 2_000],
  ]);
  await upstreams.close();
  server.stop();
});

test('lists each upstream that cannot be opened here, by its place', () => {
  const config = (name: string, place: string) => ({
    name,
    targets: ['kubernetes:///greeter:grpc'],
    services: [],
    serviceConfig: {},
    connectionsPerEndpoint: 1,
    place,
  });
  const options = {
    kubernetes: undefined,
    eventLoop: createEventLoop(),
    registry: new Registry(),
    log: pino({ enabled: false }),
  };
  const why = 'target "kubernetes:///greeter:grpc" can be used only inside a Kubernetes cluster';
  assert.throws(() => createUpstreams([config('a', 'gateway.yaml:2'), config('b', 'gateway.yaml:7')], options), {
    problems: [`gateway.yaml:2: ${why}`, `gateway.yaml:7: ${why}`],
  });
});
