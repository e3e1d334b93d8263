import { setTimeout as delay } from 'node:timers/promises';
import type { StopSignal } from '../../services/lab/lab.ts';
import { guarantee } from '../harness/guarantee.ts';
import { createHttpCaller } from '../harness/http-caller.ts';
import { startLab } from '../harness/lab-fixture.ts';
import { startLoad } from '../harness/load.ts';

/** So that retries hide nothing. */
const withoutRetries = { SERVICE_CONFIG: '{"healthCheckConfig":{"serviceName":""}}' };

/** About 60 ms long, so that each replica has some in flight at any moment. */
const stream = '/v1/hello/world/stream?replyCount=4&replyInterval=0.02s';
const unary = '/v1/hello/world';
const rolls = 5;

guarantee('rolling all replicas five times at 200 calls/s loses no call, without a retry policy', {
  on: { signal: 'SIGTERM' },
  control: { signal: 'SIGKILL' },
  async scenario({ signal }: { signal: StopSignal }, t) {
    const fixture = await startLab(t, { replicas: 3, gatewayEnv: withoutRetries });
    const caller = fixture.use(createHttpCaller([fixture.gatewayPort()]));
    let calls = 0;
    const load = startLoad(() => caller.get((calls += 1) % 2 === 0 ? unary : stream), { callsPerS: 200 });
    const processes = new Set<number | undefined>();
    for (let roll = 0; roll < rolls; roll += 1) {
      await fixture.lab.roll({ signal });
      for (const { pid } of fixture.lab.replicas) processes.add(pid);
    }
    await delay(300);
    const ledger = await load.stop();
    return { ...ledger, figures: { processes: processes.size } };
  },
  valid: ({ sent, ok, figures }) => sent >= 1_000 && ok >= sent * 0.8 && figures.processes === 3 * rolls,
  holds: ({ failed }) => failed === 0,
});
