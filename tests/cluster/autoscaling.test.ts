import assert from 'node:assert/strict';
import test from 'node:test';
import { eventually } from '../harness/eventually.ts';
import { formatLedger } from '../harness/ledger.ts';
import { skipWithoutCluster } from './cluster.ts';
import { installPair, unary } from './pair.ts';

/** What the chart has, with windows that end while the test still watches, and a request that its load exceeds. */
const autoscaling = {
  enabled: true,
  minReplicas: 1,
  maxReplicas: 3,
  targetCPUUtilizationPercentage: 80,
  behavior: {
    scaleDown: { stabilizationWindowSeconds: 10, policies: [{ type: 'Percent', value: 100, periodSeconds: 15 }] },
  },
};
const waitMs = 180_000;

test('the autoscaler adds greeters under load and takes them away after it', {
  skip: await skipWithoutCluster(),
}, async (t) => {
  const pair = await installPair(t, 'hpa', { greeter: { autoscaling, resources: { requests: { cpu: '30m' } } } });
  const replicas = async () =>
    Number(await pair.kubectl('get', 'deployment/greeter', '-o', 'jsonpath={.status.readyReplicas}'));
  const utilization = '{.status.currentMetrics[0].resource.current.averageUtilization}';
  await eventually(
    'it knows the use of a pod at rest',
    async () => {
      const percent = await pair.kubectl('get', 'hpa/greeter', '-o', `jsonpath=${utilization}`);
      return percent !== '' && Number(percent) < 80;
    },
    { timeoutMs: waitMs },
  );
  assert.equal(await replicas(), 1);

  const load = await pair.load.start({ callsPerS: 150, maxMs: 300_000, http: pair.http([unary]) });
  const startedMs = Date.now();
  await eventually('there are more', async () => (await replicas()) > 1, { timeoutMs: waitMs });
  const upAfterMs = Date.now() - startedMs;
  const most = await replicas();
  const ledger = await load.stop();
  const endedMs = Date.now();
  await eventually('there is one again', async () => (await replicas()) === 1, { timeoutMs: waitMs });
  const downAfterMs = Date.now() - endedMs;
  t.diagnostic(`${t.name}: ${formatLedger({ ...ledger, figures: { replicas: most, upAfterMs, downAfterMs } })}`);
  assert.equal(ledger.failed, 0);
});
