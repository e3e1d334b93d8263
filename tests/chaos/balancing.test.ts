import { setTimeout as delay } from 'node:timers/promises';
import { setFaults } from '../harness/faults.ts';
import { createChannelClient } from '../harness/greeter-client.ts';
import { guarantee } from '../harness/guarantee.ts';
import { gatewayConfig } from '../harness/gateway-config.ts';
import { createHttpCaller } from '../harness/http-caller.ts';
import { startLab } from '../harness/lab-fixture.ts';
import { startLoad } from '../harness/load.ts';
import { sumOfMetric } from '../harness/metrics.ts';
import { widestDifference } from '../harness/spread.ts';

const faulty = { FAULTS: 'enabled' };

guarantee('in every window of calls the first attempts to any two replicas differ by at most one, retries or not', {
  on: { policy: 'round_robin' },
  control: { policy: 'least_request_experimental' },
  async scenario({ policy }, t) {
    const { lab, use, addresses, adminPort } = await startLab(t, { replicas: 3, gateways: 0, greeterEnv: faulty });
    const picks: string[] = [];
    let retries = 0;
    const client = use(
      createChannelClient({
        target: lab.target,
        serviceConfig: {
          loadBalancingConfig: [{ [policy]: {} }],
          methodConfig: [
            {
              name: [{}],
              retryPolicy: {
                maxAttempts: 4,
                initialBackoff: '0.02s',
                maxBackoff: '0.05s',
                backoffMultiplier: 2,
                retryableStatusCodes: ['UNAVAILABLE'],
              },
            },
          ],
        },
        onEvent(event) {
          if (event.type !== 'attempt-started') return;
          if (event.reason === 'first') picks.push(event.endpointId);
          else retries += 1;
        },
      }),
    );
    await client.connected(3);
    await setFaults(adminPort('c'), { errorCode: 'UNAVAILABLE', errorRate: 0.2 });
    const load = startLoad(() => client.hello(), { callsPerS: 200 });
    await delay(4_000);
    const ledger = await load.stop();
    return { ...ledger, figures: { retries, widestDifference: widestDifference(picks, addresses()) } };
  },
  valid: ({ sent, ok, figures }) => sent >= 500 && ok === sent && figures.retries >= 10,
  holds: ({ figures }) => figures.widestDifference <= 1,
});

guarantee('under least request a replica that is ten times slower gets at most 6 % of the calls', {
  on: { policy: 'least_request_experimental' },
  control: { policy: 'round_robin' },
  async scenario({ policy }, t) {
    const { lab, adminPort, addresses } = await startLab(t, { replicas: 3, gateways: 0, greeterEnv: faulty });
    // A limit of calls that is far away: this is about who gets a call, not about who is let in.
    const upstream = {
      name: 'greeter',
      targets: [lab.target],
      concurrency: { min: 1_000, max: 1_000 },
      serviceConfig: {
        loadBalancingConfig: [{ [policy]: {} }],
        methodConfig: [{ name: [{}], timeout: '8s' }],
      },
    };
    const gateway = await startLab(t, { replicas: 0, gatewayEnv: gatewayConfig(t, { upstreams: [upstream] }) });
    const { use, gatewayPort } = gateway;
    for (const name of ['a', 'b']) await setFaults(adminPort(name), { delayMs: 200, jitterMs: 200 });
    await setFaults(adminPort('c'), { delayMs: 2_000, jitterMs: 2_000 });
    const caller = use(createHttpCaller([gatewayPort()]));
    const gatewayAdmin = gateway.lab.gateways[0]?.serving?.adminPort ?? 0;
    const attempts = (endpoint?: string) =>
      sumOfMetric(gatewayAdmin, 'tandem_channel_endpoint_attempts_total', endpoint === undefined ? {} : { endpoint });
    const [, , slow] = addresses();
    const picks = async () => ({ all: await attempts(), slow: await attempts(slow) });
    // More than it can be: so many are in flight all the time.
    const load = startLoad(() => caller.get('/v1/hello/world'), { callsPerS: 10_000, maxInFlight: 64 });
    // The first calls are spread before any answer tells who is slow.
    await delay(4_000);
    const before = await picks();
    await delay(10_000);
    const after = await picks();
    const ledger = await load.stop();
    const callsToTheSlowPercent = (100 * (after.slow - before.slow)) / (after.all - before.all);
    return { ...ledger, figures: { callsToTheSlowPercent } };
  },
  valid: ({ sent, ok, servedBy }) => sent >= 400 && ok === sent && servedBy.size === 3,
  holds: ({ figures }) => figures.callsToTheSlowPercent <= 6,
});
