import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../harness/eventually.ts';
import { clearFaults, setFaults } from '../harness/faults.ts';
import { gatewayServiceConfig } from '../harness/greeter-client.ts';
import { guarantee } from '../harness/guarantee.ts';
import { createHttpCaller } from '../harness/http-caller.ts';
import { startLab } from '../harness/lab-fixture.ts';
import { startLoad } from '../harness/load.ts';
import { sumOfMetric } from '../harness/metrics.ts';

const { retryThrottling, ...withoutBudget } = gatewayServiceConfig;
const hello = '/v1/hello/world';

guarantee('a full outage is not multiplied: attempts <= 1.1 x calls + the tokens of the retry budget', {
  on: { retryThrottling },
  control: { retryThrottling: undefined },
  async scenario({ retryThrottling }, t) {
    const { lab, use, gatewayPort, adminPort } = await startLab(t, {
      replicas: 3,
      greeterEnv: { FAULTS: 'enabled' },
      gatewayEnv: retryThrottling ? {} : { SERVICE_CONFIG: JSON.stringify(withoutBudget) },
    });
    const caller = use(createHttpCaller([gatewayPort()]));
    const adminPorts = lab.replicas.map(({ name }) => adminPort(name));
    for (const port of adminPorts) await setFaults(port, { errorCode: 'UNAVAILABLE' });
    const load = startLoad(() => caller.get(hello), { callsPerS: 200 });
    await delay(6_000);
    const ledger = await load.stop();
    const labels = { grpc_method: 'helloworld.Greeter/SayHello' };
    const seen = await Promise.all(
      adminPorts.map((port) => sumOfMetric(port, 'grpc_server_call_started_total', labels)),
    );
    const attempts = seen.reduce((sum, count) => sum + count, 0);
    for (const port of adminPorts) await clearFaults(port);
    await eventually('calls succeed again', async () => (await caller.get(hello)).code === 'OK', { timeoutMs: 2_000 });
    return { ...ledger, figures: { attempts, attemptsPerCall: attempts / ledger.sent } };
  },
  valid: ({ sent, ok, figures }) => sent >= 800 && ok === 0 && figures.attempts >= sent,
  holds: ({ sent, figures }) => figures.attempts <= 1.1 * sent + gatewayServiceConfig.retryThrottling.maxTokens,
});
