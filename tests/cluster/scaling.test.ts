import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../harness/eventually.ts';
import { guarantee } from '../harness/guarantee.ts';
import { skipWithoutCluster } from './cluster.ts';
import { follow } from './kubectl.ts';
import type { LoadProgress } from './load-server.ts';
import { installPair, unary } from './pair.ts';

/** The goal is 1 s. */
const limitMs = 5_000;
/** The busiest replica may have so much more than the idlest, in a time without change. */
const evenPercent = 10;
const countedMs = 4_000;

guarantee(
  'new pods get traffic within a second of being ready, an even share, and none is lost while 3 become 6 become 2',
  {
    skip: await skipWithoutCluster(),
    on: { client: 'gateway' },
    control: { client: 'grpc-js dns:///' },
    async scenario({ client }, t) {
      const pair = await installPair(t, 'scale');
      /** When this machine heard that a pod is ready. */
      const readyMs = new Map<string, number>();
      const columns = '{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\\n"}';
      const selector = ['-l', 'app.kubernetes.io/instance=greeter'];
      follow(t, ['-n', pair.namespace, 'get', 'pods', ...selector, '--watch', '-o', `jsonpath=${columns}`], (line) => {
        const [name = '', ready] = line.split(' ');
        if (ready === 'True' && !readyMs.has(name)) readyMs.set(name, Date.now());
      });
      await eventually('three pods are ready', () => readyMs.size === 3);

      const what =
        client === 'gateway'
          ? { http: pair.http([unary]) }
          : { grpcJs: { target: `dns:///greeter.${pair.namespace}.svc:50051` } };
      const load = await pair.load.start({ callsPerS: 100, maxMs: 120_000, ...what });
      const before = await eventually('all get calls', async () => {
        const progress = await load.progress();
        return Object.keys(progress.replicas).length === 3 ? progress : undefined;
      });

      await pair.kubectl('scale', 'deployment/greeter', '--replicas=6');
      await eventually('six pods are ready', () => readyMs.size === 6, { timeoutMs: 60_000 });
      const fresh = [...readyMs.keys()].filter((name) => before.replicas[name] === undefined);
      await eventually(
        'the new pods get calls',
        async () => {
          const { replicas } = await load.progress();
          return fresh.every((name) => replicas[name] !== undefined);
        },
        { timeoutMs: limitMs },
      ).catch(() => {});
      const from = await load.progress();
      await delay(countedMs);
      const to = await load.progress();

      await pair.kubectl('scale', 'deployment/greeter', '--replicas=2');
      await pair.settled('greeter');
      await delay(1_000);
      const ledger = await load.stop();
      const firstCallMs = Math.max(
        ...fresh.map((name) => (to.replicas[name]?.firstMs ?? Number.POSITIVE_INFINITY) - (readyMs.get(name) ?? 0)),
      );
      return {
        ...ledger,
        figures: {
          pods: readyMs.size,
          firstCallMs,
          unevenPercent: unevenPercent([...readyMs.keys()], from, to),
        },
      };
    },
    valid: ({ sent, ok, figures }) => sent >= 1_000 && ok >= sent / 2 && figures.pods === 6,
    holds: ({ failed, figures }) =>
      failed === 0 && figures.firstCallMs <= limitMs && figures.unevenPercent <= evenPercent,
  },
);

/** By how much the busiest of the pods had more calls than the idlest. */
function unevenPercent(pods: readonly string[], from: LoadProgress, to: LoadProgress): number {
  const calls = pods.map((name) => (to.replicas[name]?.calls ?? 0) - (from.replicas[name]?.calls ?? 0));
  return (Math.max(...calls) / Math.min(...calls) - 1) * 100;
}
