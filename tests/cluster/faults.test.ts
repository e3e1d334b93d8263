import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../harness/eventually.ts';
import { formatLedger } from '../harness/ledger.ts';
import { skipWithoutCluster } from './cluster.ts';
import { startNodeAgent } from './node-agent.ts';
import { installPair, type Pair, type Pod, unary } from './pair.ts';

const skip = await skipWithoutCluster();

/** Under a load of idempotent calls something is done to one of three greeters, and no call may fail. */
async function losesNothing(t: TestContext, pair: Pair, harm: (victim: Pod) => Promise<void>): Promise<void> {
  const [victim] = await pair.pods('greeter');
  assert.ok(victim);
  const load = await pair.load.start({ callsPerS: 100, maxMs: 120_000, http: pair.http([unary]) });
  await eventually('the victim has calls', async () => (await load.progress()).replicas[victim.metadata.name]);
  await harm(victim);
  await pair.settled('greeter');
  const { replicas: before } = await load.progress();
  const names = (await pair.pods('greeter')).map(({ metadata }) => metadata.name);
  await eventually(
    'all three have calls again',
    async () => {
      const { replicas } = await load.progress();
      return names.every((name) => (replicas[name]?.calls ?? 0) > (before[name]?.calls ?? 0));
    },
    { timeoutMs: 60_000 },
  );
  const ledger = await load.stop();
  t.diagnostic(`${t.name}: ${formatLedger(ledger)}`);
  assert.ok(ledger.sent >= 300, 'the account says nothing');
  assert.equal(ledger.failed, 0);
}

test('a replica that is lost costs idempotent calls no error', { skip }, async (t) => {
  const pair = await installPair(t, 'faults');
  const [first] = await pair.pods('greeter');
  assert.ok(first);
  const agent = await startNodeAgent(t, first.spec.nodeName);
  const restartsOf = async (name: string) => {
    const pod = (await pair.pods('greeter')).find(({ metadata }) => metadata.name === name);
    return pod?.status.containerStatuses?.[0]?.restartCount ?? 0;
  };

  await t.test('kubectl delete pod --force --grace-period=0', (t) =>
    losesNothing(t, pair, async ({ metadata: { name } }) => {
      await pair.kubectl('delete', 'pod', name, '--force', '--grace-period=0');
    }),
  );
  await t.test('kill -9 of its process', (t) =>
    losesNothing(t, pair, async ({ metadata: { name } }) => {
      const restarts = await restartsOf(name);
      assert.equal(await agent.signal({ pod: name }, 'SIGKILL'), 1);
      await eventually('its container starts again', async () => (await restartsOf(name)) > restarts, {
        timeoutMs: 60_000,
      });
    }),
  );
  await t.test('SIGSTOP of its process for 8 s', (t) =>
    losesNothing(t, pair, async ({ metadata: { name } }) => {
      const restarts = await restartsOf(name);
      assert.equal(await agent.freeze({ pod: name }, 8_000), 1);
      await delay(9_000);
      assert.equal(await restartsOf(name), restarts, 'it was thawed before its liveness probe gave up');
    }),
  );
  await t.test('eviction, which the disruption budget allows one at a time', async (t) => {
    const load = await pair.load.start({ callsPerS: 100, maxMs: 120_000, http: pair.http([unary]) });
    const [one, other] = await pair.pods('greeter');
    assert.ok(one && other);
    const evict = ({ metadata: { name } }: Pod) =>
      pair.evict(name).then(
        () => 'evicted',
        (error: Error) => error.message,
      );
    assert.equal(await evict(one), 'evicted');
    assert.match(await evict(other), /disruption budget/);
    await pair.settled('greeter');
    await eventually('the next one may go', async () => (await evict(other)) === 'evicted', { timeoutMs: 30_000 });
    await pair.settled('greeter');
    const ledger = await load.stop();
    t.diagnostic(`${t.name}: ${formatLedger(ledger)}`);
    assert.equal(ledger.failed, 0);
    assert.ok(ledger.sent >= 300, 'the account says nothing');
  });
});
