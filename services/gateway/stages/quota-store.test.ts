import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { createQuotaStore } from './quota-store.ts';

const log = pino({ enabled: false });

test('memory counts each key until its time has passed', async (t) => {
  t.mock.timers.enable({ apis: ['Date', 'setTimeout'] });
  const count = createQuotaStore({ redisUrl: undefined, registry: new Registry(), log }).counterOf('a', {
    requests: 2,
    perS: 60,
  });
  assert.deepEqual(await count('x'), { allowed: true, remaining: 1, resetMs: 60_000 });
  t.mock.timers.tick(20_000);
  assert.deepEqual(await count('x'), { allowed: true, remaining: 0, resetMs: 40_000 });
  assert.deepEqual(await count('x'), { allowed: false, remaining: 0, resetMs: 40_000 });
  assert.deepEqual(await count('y'), { allowed: true, remaining: 1, resetMs: 60_000 });
  t.mock.timers.tick(40_000);
  assert.equal((await count('x')).allowed, true);
});

test('memory forgets the key that it saw first once there are too many', async () => {
  const count = createQuotaStore({ redisUrl: undefined, registry: new Registry(), log }).counterOf('a', {
    requests: 1,
    perS: 3_600,
  });
  for (let key = 0; key < 100_000; key++) void count(`${key}`);
  assert.deepEqual([(await count('0')).allowed, (await count('1')).allowed], [false, false]);
  await count('one more');
  assert.deepEqual([(await count('1')).allowed, (await count('0')).allowed], [false, true]);
});

test('without an answer of Redis memory counts, at once', async () => {
  const registry = new Registry();
  // Port 9 is discard: nobody listens.
  const store = createQuotaStore({ redisUrl: 'redis://127.0.0.1:9', registry, log });
  const count = store.counterOf('a', { requests: 1, perS: 60 });
  store.start();
  try {
    assert.equal((await count('x')).allowed, true);
    assert.equal((await count('x')).allowed, false);
    assert.match(await registry.metrics(), /tandem_quota_redis_failures_total 2\n/);
    assert.match(await registry.metrics(), /tandem_quota_redis_ready 0\n/);
  } finally {
    store.stop();
  }
});
