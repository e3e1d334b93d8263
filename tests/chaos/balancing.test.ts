import { setTimeout as delay } from 'node:timers/promises';
import { setFaults } from '../harness/faults.ts';
import { createChannelClient } from '../harness/greeter-client.ts';
import { guarantee } from '../harness/guarantee.ts';
import { createHttpCaller } from '../harness/http-caller.ts';
import { startLab } from '../harness/lab-fixture.ts';
import { startLoad } from '../harness/load.ts';
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
    const serviceConfig = JSON.stringify({ loadBalancingConfig: [{ [policy]: {} }] });
    const { use, gatewayPort, adminPort } = await startLab(t, {
      replicas: 3,
      greeterEnv: faulty,
      gatewayEnv: { SERVICE_CONFIG: serviceConfig },
    });
    for (const name of ['a', 'b']) await setFaults(adminPort(name), { delayMs: 100, jitterMs: 100 });
    await setFaults(adminPort('c'), { delayMs: 1_000, jitterMs: 1_000 });
    const caller = use(createHttpCaller([gatewayPort()]));
    let steady = false;
    let all = 0;
    let slow = 0;
    const load = startLoad(
      async () => {
        const outcome = await caller.get('/v1/hello/world');
        if (steady) all += 1;
        if (steady && outcome.servedBy === 'c') slow += 1;
        return outcome;
      },
      // More than it can be: so many are in flight all the time.
      { callsPerS: 10_000, maxInFlight: 64 },
    );
    // The first calls are spread before any answer tells who is slow.
    await delay(3_000);
    steady = true;
    await delay(8_000);
    steady = false;
    const ledger = await load.stop();
    return { ...ledger, figures: { callsToTheSlowPercent: (100 * slow) / all } };
  },
  valid: ({ sent, ok, servedBy }) => sent >= 500 && ok === sent && servedBy.size === 3,
  holds: ({ figures }) => figures.callsToTheSlowPercent <= 6,
});
