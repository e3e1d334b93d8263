import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import type { StopSignal } from '../../services/lab/lab.ts';
import { guarantee } from '../harness/guarantee.ts';
import { createHttpCaller } from '../harness/http-caller.ts';
import { startLab } from '../harness/lab-fixture.ts';
import { startLoad } from '../harness/load.ts';

/** Without a retry policy, so that retries hide nothing. */
const withoutRetries = { SERVICE_CONFIG: '{"healthCheckConfig":{"serviceName":""}}' };

/** About 60 ms long, so that each replica has some in flight at any moment. */
const stream = '/v1/hello/world/stream?replyCount=4&replyInterval=0.02s';
const unary = '/v1/hello/world';

guarantee('a rolling update of the greeters under load loses no call', {
  on: { signal: 'SIGTERM' },
  control: { signal: 'SIGKILL' },
  async scenario({ signal }: { signal: StopSignal }, t) {
    const fixture = await startLab(t, { replicas: 3, gatewayEnv: withoutRetries });
    const caller = fixture.use(createHttpCaller([fixture.gatewayPort()]));
    let calls = 0;
    const load = startLoad(() => caller.get((calls += 1) % 2 === 0 ? unary : stream), { callsPerS: 120 });
    await delay(300);
    await fixture.lab.roll({ signal });
    await delay(300);
    return load.stop();
  },
  valid: ({ sent, ok, servedBy }) => sent >= 150 && ok >= sent * 0.8 && servedBy.size >= 4,
  holds: ({ failed }) => failed === 0,
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
