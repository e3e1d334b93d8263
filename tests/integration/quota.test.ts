import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { skipWithout } from '../harness/command.ts';
import { eventually } from '../harness/eventually.ts';
import { createHttpCaller } from '../harness/http-caller.ts';
import { startLab } from '../harness/lab-fixture.ts';
import { formatLedger } from '../harness/ledger.ts';
import { startLoad } from '../harness/load.ts';
import { sumOfMetric } from '../harness/metrics.ts';
import { startRedis } from '../harness/redis.ts';

const quota = { requests: 20, per: '2s', key: 'header:x-api-key' };
const phaseMs = 6_000;
/** Four windows of two seconds touch six seconds. */
const shared = 4 * quota.requests;

test('two gateways share a quota in Redis; it dies, freezes and comes back under load, and no request fails', async (t) => {
  if (await skipWithout(t, 'redis-server', ['--version'])) return;
  const redis = await startRedis(t);
  const directory = mkdtempSync(join(tmpdir(), 'tandem-quota-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const config = join(directory, 'gateway.yaml');
  writeFileSync(config, JSON.stringify({ policies: [{ name: [{}], quota }] }));
  const { lab, use, lines, gatewayPort } = await startLab(t, {
    replicas: 1,
    gateways: 2,
    gatewayEnv: { GATEWAY_CONFIG: config, QUOTA_REDIS_URL: redis.url },
  });
  const gateways = [gatewayPort(0), gatewayPort(1)];
  const caller = use(createHttpCaller(gateways));

  /** Offers twice what the quota allows at both gateways together. */
  async function load(phase: string): Promise<number> {
    const running = startLoad(() => caller.get('/v1/hello/world'), { callsPerS: 40 });
    await delay(phaseMs);
    const ledger = await running.stop();
    t.diagnostic(`${phase}: ${formatLedger(ledger)}`);
    const failures = [...ledger.codes.keys()].filter((code) => code !== 'HTTP 429');
    assert.deepEqual(failures, [], phase);
    return ledger.ok;
  }

  const redisCounts = (ready: 0 | 1) =>
    eventually(`both gateways see that Redis is ${ready ? 'back' : 'gone'}`, async () => {
      const seen = lab.gateways.map(({ serving }) => sumOfMetric(serving?.adminPort ?? 0, 'tandem_quota_redis_ready'));
      return (await Promise.all(seen)).every((value) => value === ready);
    });

  await redisCounts(1);
  assert.ok((await load('Redis')) <= shared);

  const reply = await fetch(`http://127.0.0.1:${gateways[0]}/v1/hello/world`, {
    headers: { 'x-api-key': 'my-secret', connection: 'close' },
  });
  assert.equal(reply.headers.get('ratelimit'), `"all";r=${quota.requests - 1};t=2`);
  await reply.text();
  const keys = await redis.keys();
  assert.equal(keys.length >= 1, true);
  for (const key of keys) assert.match(key, /^tandem:quota:[\w-]{22}:[\w-]{22}$/, 'a key in plain text');

  const dying = load('Redis killed after a second');
  await delay(1_000);
  await redis.kill();
  assert.ok((await dying) <= 2 * shared);
  await redisCounts(0);
  const alone = await load('without Redis');
  assert.ok(alone <= 2 * shared, `${alone}`);

  await redis.start();
  await redisCounts(1);
  assert.ok((await load('Redis again')) <= shared);

  redis.freeze();
  assert.ok((await load('Redis frozen')) <= 2 * shared);
  redis.thaw();
  await redisCounts(1);
  assert.ok((await load('Redis thawed')) <= shared);
  const told = lines.filter(({ line }) => line.includes('Redis cannot be reached'));
  assert.ok(told.length >= 2 && told.length <= 8, `${told.length} lines on Redis`);
});
