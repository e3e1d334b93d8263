import { built } from '../harness/build.ts';
import { withConfig } from '../harness/gateway-config.ts';
import { hello } from '../harness/hello.ts';
import { percentile, runHttpLoad } from '../harness/http-load.ts';
import { startGreeters } from '../harness/replicas.ts';
import { startSubject } from '../harness/subject.ts';
import type { Suite } from '../harness/suite.ts';

/** Long beside what a busy machine adds. */
const fastMs = 200;
const slowMs = 10 * fastMs;
const hedging = { maxAttempts: 2, hedgingDelay: `${(2 * fastMs) / 1_000}s`, nonFatalStatusCodes: ['UNAVAILABLE'] };

/** One replica of three that is ten times slower, and what the policies make of it. */
export const slowReplica: Suite = async ({ measures, use }) => {
  const replicas = await startGreeters({ use }, 3);
  const [slow] = replicas;
  for (const replica of replicas) await replica.setFaults({ delayMs: replica === slow ? slowMs : fastMs });
  const targets = [`ipv4:${replicas.map(({ address }) => address).join(',')}`];
  const policies = [
    { name: 'round robin', policy: 'round_robin', hedging: undefined },
    { name: 'least request', policy: 'least_request_experimental', hedging: undefined },
    { name: 'least request, hedging', policy: 'least_request_experimental', hedging },
  ];
  for (const { name, policy, hedging: hedgingPolicy } of policies) {
    const serviceConfig = {
      loadBalancingConfig: [{ [policy]: {} }],
      methodConfig: [{ name: [{}], timeout: '8s', ...(hedgingPolicy && { hedgingPolicy }) }],
    };
    const concurrency = { min: 1_000, max: 1_000 };
    await using config = withConfig({ upstreams: [{ name: 'greeter', targets, concurrency, serviceConfig }] });
    const gateway = use(await startSubject({ name, program: built('services/gateway/main.ts'), env: config.env }));
    const load = (durationMs: number) =>
      runHttpLoad({
        port: gateway.port,
        ...hello,
        connections: 64,
        durationMs,
      });
    // The first calls are spread before any answer tells who is slow.
    await load(3 * slowMs);
    const counts = () => Promise.all(replicas.map((replica) => replica.calls()));
    const before = await counts();
    const { latenciesMs, ok, durationMs, wrong } = await load(5 * slowMs);
    if (wrong.size > 0) throw new Error(`${name}: ${[...wrong].join(', ')}`);
    const sent = (await counts()).map((count, index) => count - (before[index] ?? 0));
    measures.add('one replica of three ten times slower, c = 64', name, {
      'share of the slow %': (100 * (sent[0] ?? 0)) / sent.reduce((sum, one) => sum + one, 0),
      'calls/s': (1_000 * ok) / durationMs,
      'p50 ms': percentile(latenciesMs, 50),
      'p90 ms': percentile(latenciesMs, 90),
      'p99 ms': percentile(latenciesMs, 99),
    });
    await gateway.stop();
  }
};
