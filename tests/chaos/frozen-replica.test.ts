import { setTimeout as delay } from 'node:timers/promises';
import type { Transport } from '#runtime/call/call.ts';
import { createGrpcJsTransport } from '#runtime/channel/transport/grpc-js.ts';
import { eventually } from '../harness/eventually.ts';
import { createChannelClient, gatewayServiceConfig } from '../harness/greeter-client.ts';
import { guarantee } from '../harness/guarantee.ts';
import { createHttpCaller } from '../harness/http-caller.ts';
import { type LabFixture, startLab } from '../harness/lab-fixture.ts';
import type { Outcome } from '../harness/ledger.ts';
import { startLoad } from '../harness/load.ts';

/** Freezes one of three replicas under load, thaws it, and waits until it is back in the pick. */
async function freezeUnderLoad({ lab }: LabFixture, send: () => Promise<Outcome>) {
  const [victim] = lab.replicas;
  let since = 0;
  const load = startLoad(
    async () => {
      const outcome = await send();
      if (outcome.servedBy === victim?.name) since += 1;
      return outcome;
    },
    { callsPerS: 200 },
  );
  await eventually('the replica has calls', () => since > 0);
  victim?.freeze();
  await delay(6_000);
  victim?.thaw();
  // What it was asked while it was frozen is answered at once; calls that go on coming show that it is back. The trials
  // that failed may have put off the next one by 10 s.
  since = 0;
  await eventually('the replica has calls again', () => since > 50, { timeoutMs: 20_000 });
  return load.stop();
}

const { retryPolicy } = gatewayServiceConfig.methodConfig[0] ?? {};
const { perAttemptRecvTimeout: _, ...withoutAttemptTimeout } = retryPolicy ?? {};
const patient = { ...gatewayServiceConfig, methodConfig: [{ name: [{}], retryPolicy: withoutAttemptTimeout }] };

guarantee('a frozen replica of three costs idempotent calls through the gateway no error', {
  on: { perAttemptRecvTimeout: retryPolicy?.perAttemptRecvTimeout },
  control: { perAttemptRecvTimeout: undefined },
  async scenario({ perAttemptRecvTimeout }, t) {
    const gatewayEnv = perAttemptRecvTimeout ? {} : { SERVICE_CONFIG: JSON.stringify(patient) };
    const fixture = await startLab(t, { replicas: 3, gatewayEnv });
    const caller = fixture.use(createHttpCaller([fixture.gatewayPort()]));
    return freezeUnderLoad(fixture, () => caller.get('/v1/hello/world'));
  },
  valid: ({ sent, ok, servedBy }) => sent >= 1_000 && ok >= sent / 2 && servedBy.size === 3,
  holds: ({ failed }) => failed === 0,
});

guarantee('a frozen replica is found by its failures in a row before they use up the retry budget', {
  on: { detectorKnowsReplicas: true },
  control: { detectorKnowsReplicas: false },
  async scenario({ detectorKnowsReplicas }, t) {
    const fixture = await startLab(t, { replicas: 3, gateways: 0 });
    let ejections = 0;
    const client = fixture.use(
      createChannelClient({
        target: fixture.lab.target,
        serviceConfig: gatewayServiceConfig,
        transport: detectorKnowsReplicas ? createGrpcJsTransport() : underOtherNames(createGrpcJsTransport()),
        onEvent({ type }) {
          if (type === 'ejected') ejections += 1;
        },
      }),
    );
    await client.connected(3);
    const ledger = await freezeUnderLoad(fixture, () => client.hello());
    return { ...ledger, figures: { ejections } };
  },
  valid: ({ sent, ok, servedBy }) => sent >= 1_000 && ok >= sent / 2 && servedBy.size === 3,
  holds: ({ failed }) => failed === 0,
});

/** Connections whose attempts are of endpoints that nobody has heard of: whoever keeps count of failures finds none. */
function underOtherNames(transport: Transport): Transport {
  return (endpoint, onState) => {
    const connection = transport(endpoint, onState);
    const renamed = { ...endpoint, id: `other ${endpoint.id}` };
    return {
      endpoint: renamed,
      get state() {
        return connection.state;
      },
      get lastError() {
        return connection.lastError;
      },
      get inFlight() {
        return connection.inFlight;
      },
      start: (call, observer) => connection.start(call, observer),
      close: (graceMs) => connection.close(graceMs),
    };
  };
}
