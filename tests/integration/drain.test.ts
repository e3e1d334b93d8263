import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { StopSignal } from '../../services/lab/lab.ts';
import { guarantee } from '../harness/guarantee.ts';
import { createHttpCaller } from '../harness/http-caller.ts';
import { startLab } from '../harness/lab-fixture.ts';
import { formatLedger } from '../harness/ledger.ts';
import { startLoad } from '../harness/load.ts';

const unary = '/v1/hello/world';

test('a rolling update of the greeters under load loses no call', async (t) => {
  // So that retries hide nothing. tests/chaos/rolling-update.test.ts does it five times, and has the control.
  const withoutRetries = { SERVICE_CONFIG: '{"healthCheckConfig":{"serviceName":""}}' };
  const fixture = await startLab(t, { replicas: 2, gatewayEnv: withoutRetries });
  const caller = fixture.use(createHttpCaller([fixture.gatewayPort()]));
  const load = startLoad(() => caller.get(unary), { callsPerS: 120 });
  await delay(300);
  await fixture.lab.roll();
  await delay(300);
  const ledger = await load.stop();
  assert.ok(ledger.sent >= 100);
  assert.equal(ledger.failed, 0, formatLedger(ledger));
});

guarantee('stopping one of two gateways under load loses no request', {
  on: { signal: 'SIGTERM' },
  control: { signal: 'SIGKILL' },
  async scenario({ signal }: { signal: StopSignal }, t) {
    const fixture = await startLab(t, { replicas: 2, gateways: 2, gatewayEnv: { DRAIN_DELAY: '400ms' } });
    const ports = [fixture.gatewayPort(0), fixture.gatewayPort(1)];
    const caller = fixture.use(createHttpCaller(ports));
    const load = startLoad(() => caller.get(unary), { callsPerS: 120 });
    await delay(300);
    const stopped = fixture.lab.gateways[0]?.stop(signal === 'SIGTERM' ? 10_000 : undefined);
    // As long as a load balancer may take to hear of it.
    await delay(200);
    caller.use(ports.slice(1));
    await stopped;
    await delay(300);
    const ledger = await load.stop();
    assert.deepEqual(fixture.events, []);
    return ledger;
  },
  valid: ({ sent, ok }) => sent >= 90 && ok >= sent * 0.5,
  holds: ({ failed }) => failed === 0,
});
