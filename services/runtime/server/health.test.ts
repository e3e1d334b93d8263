import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import type { ServiceDefinition } from '@grpc/grpc-js';
import { service } from 'grpc-health-check';
import { Code } from '../call/status.ts';
import { eventually, startServer, type TestClient } from './testing.ts';

const definition = service as ServiceDefinition;
const names = ['', 'readiness', 'liveness', 'helloworld.Greeter'];

function check(client: TestClient, name: string): Promise<string | number> {
  return new Promise((resolve) => {
    client.check({ service: name }, (error: { code: number } | null, reply: { status: string }) =>
      resolve(error?.code ?? reply.status),
    );
  });
}

/** Collects what a Watch says; `ended` once it has. */
function watch(client: TestClient, name: string) {
  const seen: string[] = [];
  const call = client.watch({ service: name });
  call.on('data', ({ status }: { status: string }) => seen.push(status));
  call.on('error', () => {});
  call.on('status', ({ code }: { code: number }) => seen.push(`ended ${code}`));
  return { call, seen };
}

suite('health', () => {
  test('Check and List say SERVING for each name, and an unknown one is NOT_FOUND', async () => {
    await using fixture = await startServer({});
    const client = fixture.connect(definition);
    for (const name of names) assert.equal(await check(client, name), 'SERVING', name);
    assert.equal(await check(client, 'no.such.Service'), Code.NOT_FOUND);
    const list = await new Promise((resolve) => {
      client.list({}, (error: unknown, reply: unknown) => resolve(error ?? reply));
    });
    assert.deepEqual(list, { statuses: Object.fromEntries(names.map((name) => [name, { status: 'SERVING' }])) });
  });

  test('turns NOT_SERVING in the drain, liveness alone stays, and those who watch hear of it', async () => {
    await using fixture = await startServer({});
    const client = fixture.connect(definition);
    const watches = names.map((name) => watch(client, name));
    await eventually(() => assert.ok(watches.every(({ seen }) => seen.length === 1)));
    fixture.server.drain();
    await eventually(() => {
      const seen = Object.fromEntries(names.map((name, i) => [name, watches[i]?.seen]));
      assert.deepEqual(seen, {
        '': ['SERVING', 'NOT_SERVING'],
        readiness: ['SERVING', 'NOT_SERVING'],
        liveness: ['SERVING'],
        'helloworld.Greeter': ['SERVING', 'NOT_SERVING'],
      });
    });
    assert.equal(await check(client, ''), 'NOT_SERVING');
    assert.equal(await check(client, 'liveness'), 'SERVING');
  });

  test('an open Watch is ended when the server finishes, and does not hold it', async () => {
    await using fixture = await startServer({});
    const { seen } = watch(fixture.connect(definition), '');
    await eventually(() => assert.equal(seen.length, 1));
    fixture.server.drain();
    await fixture.server.finish();
    await eventually(() => assert.deepEqual(seen, ['SERVING', 'NOT_SERVING', `ended ${Code.OK}`]));
  });

  test('forgets a Watch whose client left', async () => {
    await using fixture = await startServer({});
    const { call, seen } = watch(fixture.connect(definition), '');
    await eventually(() => assert.equal(seen.length, 1));
    call.cancel();
    await eventually(() => assert.equal(fixture.server.counters()['grpc.health.v1.Health/Watch']?.cancelled, 1));
    await fixture.server.finish();
  });
});
