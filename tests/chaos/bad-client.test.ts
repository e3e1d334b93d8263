import { setTimeout as delay } from 'node:timers/promises';
import { setFaults, clearFaults } from '../harness/faults.ts';
import {
  createChannelClient,
  createGrpcJsClient,
  gatewayServiceConfig,
  type GreeterClient,
  type HelloOptions,
} from '../harness/greeter-client.ts';
import { guarantee } from '../harness/guarantee.ts';
import { startLab } from '../harness/lab-fixture.ts';
import { sendInTurn, startLoad } from '../harness/load.ts';

/** The same detector twice: each client wants its own spelling. Any ejection outlasts the test. */
const clients: Readonly<Record<string, (target: string) => GreeterClient>> = {
  tandem: (target) =>
    createChannelClient({
      target,
      serviceConfig: {
        ...gatewayServiceConfig,
        loadBalancingConfig: [
          {
            outlier_detection: {
              interval: '1s',
              maxEjectionPercent: 50,
              failurePercentageEjection: { threshold: 85, minimumHosts: 3, requestVolume: 20 },
            },
          },
        ],
      },
    }),
  'grpc-js': (target) =>
    createGrpcJsClient(target, {
      'grpc.service_config': JSON.stringify({
        loadBalancingConfig: [
          {
            outlier_detection: {
              interval: { seconds: 1, nanos: 0 },
              max_ejection_percent: 50,
              failure_percentage_ejection: { threshold: 85, minimum_hosts: 3, request_volume: 20 },
              child_policy: [{ round_robin: {} }],
            },
          },
        ],
      }),
    }),
};

const tooLong: HelloOptions = { name: 'x'.repeat(2_000) };
const tooShort: HelloOptions = { timeoutMs: 1 };

guarantee('a bad client ejects no replica: 90 % INVALID_ARGUMENT, 1 ms timeouts, a request that all answer INTERNAL', {
  on: { outlierDetection: 'tandem' },
  control: { outlierDetection: 'grpc-js' },
  async scenario({ outlierDetection }, t) {
    const { lab, use, addresses, adminPort } = await startLab(t, {
      replicas: 3,
      gateways: 0,
      greeterEnv: { FAULTS: 'enabled' },
    });
    const client = use(clients[outlierDetection]?.(`ipv4:${addresses().join()}`) as GreeterClient);
    let bad: HelloOptions = {};
    let calls = 0;
    const load = startLoad(() => client.hello((calls += 1) % 10 === 0 ? {} : bad), { callsPerS: 200 });
    /** How many replicas get none of a few good calls, once the detector has had time for two judgements. */
    const silentReplicas = async () => {
      await delay(2_500);
      bad = {};
      for (const { name } of lab.replicas) await clearFaults(adminPort(name));
      const { servedBy } = await sendInTurn(() => client.hello(), 30);
      return lab.replicas.length - servedBy.size;
    };
    bad = tooLong;
    const ejectedByInvalid = await silentReplicas();
    bad = tooShort;
    const ejectedByShortTimeouts = await silentReplicas();
    for (const { name } of lab.replicas) {
      await setFaults(adminPort(name), { errorCode: 'INTERNAL', errorRate: 0.9 });
    }
    const ejectedByInternal = await silentReplicas();
    // And one whose own fault it is, so that the detector is seen to work.
    await setFaults(adminPort('c'), { errorCode: 'INTERNAL' });
    const ejectedForItself = await silentReplicas();
    const ledger = await load.stop();
    return { ...ledger, figures: { ejectedByInvalid, ejectedByShortTimeouts, ejectedByInternal, ejectedForItself } };
  },
  valid: ({ sent, ok, codes, figures }) =>
    figures.ejectedForItself >= 1 &&
    sent >= 1_000 &&
    ok >= 100 &&
    ['INVALID_ARGUMENT', 'DEADLINE_EXCEEDED', 'INTERNAL'].every((code) => (codes.get(code) ?? 0) >= 100),
  holds: ({ figures: { ejectedByInvalid, ejectedByShortTimeouts, ejectedByInternal } }) =>
    ejectedByInvalid + ejectedByShortTimeouts + ejectedByInternal === 0,
});
