import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../harness/eventually.ts';
import { setFaults } from '../harness/faults.ts';
import { createChannelClient, sayHello } from '../harness/greeter-client.ts';
import { startLab } from '../harness/lab-fixture.ts';
import { formatLedger } from '../harness/ledger.ts';
import { startLoad } from '../harness/load.ts';
import { sumOfMetric } from '../harness/metrics.ts';

test('a hedge that loses is cancelled down to the greeter and counts neither way', async (t) => {
  const { lab, use, adminPort } = await startLab(t, {
    replicas: 3,
    gateways: 0,
    greeterEnv: { FAULTS: 'enabled' },
  });
  const retryThrottling = { maxTokens: 20, tokenRatio: 0.1 };
  let lost = 0;
  let ejections = 0;
  const client = use(
    createChannelClient({
      target: lab.target,
      serviceConfig: {
        retryThrottling,
        methodConfig: [{ name: [{}], hedgingPolicy: { maxAttempts: 2, hedgingDelay: '0.05s' } }],
      },
      onEvent(event) {
        if (event.type === 'attempt-ended' && event.lost) lost += 1;
        if (event.type === 'ejected') ejections += 1;
      },
    }),
  );
  await client.connected(3);
  const slow = adminPort('c');
  await setFaults(slow, { delayMs: 60_000 });
  const load = startLoad(() => client.hello(), { callsPerS: 100 });
  await delay(3_000);
  const ledger = await load.stop();
  t.diagnostic(`${lost} hedges lost; ${formatLedger(ledger)}`);

  assert.equal(ledger.failed, 0);
  assert.ok(lost >= 50, `${lost} hedges lost`);
  const labels = { grpc_method: sayHello.method.path.slice(1) };
  const started = () => sumOfMetric(slow, 'grpc_server_call_started_total', labels);
  const cancelled = () =>
    sumOfMetric(slow, 'grpc_server_call_duration_seconds_count', { ...labels, grpc_status: 'CANCELLED' });
  assert.ok((await started()) >= 50);
  await eventually(
    'all calls of the slow greeter are cancelled',
    async () => (await cancelled()) === (await started()),
  );
  const { targets, retryBudget } = client.channel.snapshot();
  const failures = targets[0]?.endpoints.map((endpoint) => endpoint.failures);
  assert.deepEqual(failures, [0, 0, 0]);
  assert.equal(retryBudget?.tokens, retryThrottling.maxTokens);
  assert.equal(ejections, 0);
});
