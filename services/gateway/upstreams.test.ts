import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as grpc from '@grpc/grpc-js';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { until } from './edge/testing.ts';
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
