import { setTimeout as delay } from 'node:timers/promises';
import { guarantee } from '../harness/guarantee.ts';
import { skipWithoutCluster } from './cluster.ts';
import { gatewayConfig, installPair, maxResentShare, type Program, shortStream, unary } from './pair.ts';

const skip = await skipWithoutCluster();
const rolls = 3;

/** So that retries hide nothing. */
const withoutRetries = gatewayConfig({ serviceConfig: { healthCheckConfig: { serviceName: '' } } });

/** So long that each of them is open when a pod stops. */
const longStream = '/v1/hello/world/stream?replyCount=75&replyInterval=0.2s';
/** What a stream may end with beside OK: the client knows that it has not got all, and may come back. */
const sentAwayCodes = ['stream ended with UNAVAILABLE', 'HTTP 503'];

interface Roll {
  readonly program: Program;
  /** What may not fail at all. */
  readonly paths: readonly string[];
  readonly on: { readonly delay: string; readonly grace: string };
  readonly control: { readonly delay: string; readonly grace: string };
}

const cases: readonly Roll[] = [
  {
    program: 'greeter',
    paths: [unary, shortStream],
    on: { delay: '5s', grace: '5s' },
    // A call that a greeter refuses is made at another one, so that it takes both to lose any.
    control: { delay: '0s', grace: '0s' },
  },
  {
    program: 'gateway',
    // It ends streams itself, at a moment of their own within the delay.
    paths: [unary],
    on: { delay: '5s', grace: '5s' },
    control: { delay: '0s', grace: '5s' },
  },
];

for (const { program, paths, on, control } of cases) {
  guarantee(`three rolling updates of the ${program} lose no call and cut no stream, without a retry policy`, {
    skip,
    on: { drain: on },
    control: { drain: control },
    async scenario({ drain }, t) {
      const pair = await installPair(t, `roll-${program}`, {
        gateway: { config: withoutRetries },
        [program]: { drain, ...(program === 'gateway' && { config: withoutRetries }) },
      });
      const { length: replicas } = await pair.pods(program);
      const load = await pair.load.start({
        callsPerS: 80,
        maxMs: 300_000,
        maxInFlight: 1_000,
        http: { ...pair.http(paths), resend: program === 'gateway' },
      });
      const streams = await pair.load.start({
        callsPerS: 5,
        maxMs: 300_000,
        maxInFlight: 20,
        warm: false,
        http: pair.http([longStream], {}),
      });
      const pods = new Set<string>();
      for (let roll = 0; roll < rolls; roll += 1) {
        await pair.kubectl('rollout', 'restart', `deployment/${program}`);
        await pair.settled(program);
        for (const { metadata } of await pair.pods(program)) pods.add(metadata.name);
      }
      await delay(500);
      const [ledger, streamLedger] = await Promise.all([load.stop(), streams.stop()]);
      const sentAway = sentAwayCodes.reduce((sum, code) => sum + (streamLedger.codes.get(code) ?? 0), 0);
      return {
        ...ledger,
        figures: {
          replicas,
          newPods: pods.size,
          longStreams: streamLedger.sent,
          longStreamsSentAway: sentAway,
          longStreamsCut: streamLedger.failed - sentAway,
        },
      };
    },
    valid: ({ sent, ok, figures }) =>
      sent >= 1_000 &&
      ok >= sent * 0.5 &&
      figures.newPods === figures.replicas * rolls &&
      figures.longStreams > figures.longStreamsSentAway &&
      figures.longStreamsSentAway > 0,
    holds: ({ sent, failed, resent, figures }) =>
      failed === 0 && resent <= sent * maxResentShare && figures.longStreamsCut === 0,
  });
}
