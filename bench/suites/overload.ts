import { built } from '../harness/build.ts';
import { onLoopback, withConfig } from '../harness/gateway-config.ts';
import { hello } from '../harness/hello.ts';
import { percentile, runHttpLoad } from '../harness/http-load.ts';
import { startGreeters } from '../harness/replicas.ts';
import { startSubject } from '../harness/subject.ts';
import type { Suite } from '../harness/suite.ts';

/** A replica that works on 12 calls at a time, each for 0.1 to 0.2 s: 80 a second. */
const faults = { capacity: 12, delayMs: 100, jitterMs: 100 };

/** Three times of what a service can do, with the limit of calls and without; and more than a gateway itself can do. */
export const overload: Suite = async ({ measures, use, backends, effort }) => {
  const [replica] = await startGreeters({ use }, 1);
  if (replica === undefined) return;
  await replica.setFaults(faults);
  const targets = [`ipv4:${replica.address}`];
  const durationMs = effort.rounds * effort.roundMs;
  for (const [name, concurrency] of [
    ['limit of calls', {}],
    ['no limit', { min: 1_000, max: 1_000 }],
  ] as const) {
    await using config = withConfig({ upstreams: [{ name: 'greeter', targets, concurrency }] });
    const { port, stop } = use(
      await startSubject({ name, program: built('services/gateway/main.ts'), env: config.env }),
    );
    await runHttpLoad({ port, ...hello, connections: 24, durationMs: 2_000 });
    const peak = await runHttpLoad({ port, ...hello, connections: 24, durationMs: 4_000 });
    const peakPerS = (1_000 * peak.ok) / peak.durationMs;
    const load = { port, ...hello, connections: 1_000, perS: 3 * peakPerS };
    // What is in flight at the end counts to neither.
    const over = await runHttpLoad({ ...load, durationMs });
    const perS = (1_000 * over.ok) / (over.durationMs + 200);
    measures.add('overload of the upstream, three times its peak', name, {
      'peak calls/s': peakPerS,
      'goodput calls/s': perS,
      'goodput of peak %': (100 * perS) / peakPerS,
      'p99 of those served ms': percentile(over.latenciesMs, 99),
    });
    await stop();
  }

  const TARGET = `ipv4:${(await backends(3)).join(',')}`;
  for (const [name, program, env] of [
    ['tandem', built('services/gateway/main.ts'), {}],
    ['nothing shed', built('bench/subjects/gateway.ts'), { FEATURES: 'metrics,logs,traces' }],
  ] as const) {
    const gateway = use(await startSubject({ name, program, env: { ...onLoopback, ...env, TARGET } }));
    const load = { port: gateway.port, ...hello };
    await runHttpLoad({ ...load, connections: 64, durationMs: effort.warmUpMs });
    const unloaded = await runHttpLoad({ ...load, connections: 1, durationMs: 2_000 });
    const full = await runHttpLoad({ ...load, connections: 64, durationMs: 2_000 });
    const before = await gateway.usage();
    const twice = { ...load, connections: 2_000, perS: (2 * 1_000 * full.ok) / full.durationMs };
    const onset = await runHttpLoad({ ...twice, durationMs: 2_000 });
    const over = await runHttpLoad({ ...twice, durationMs });
    const after = await gateway.usage();
    measures.add("overload of the gateway's own CPU, twice its peak", name, {
      'peak calls/s': (1_000 * full.ok) / full.durationMs,
      'goodput calls/s': (1_000 * over.ok) / over.durationMs,
      'p99 unloaded ms': percentile(unloaded.latenciesMs, 99),
      'p99 in the first 2 s ms': percentile(onset.latenciesMs, 99),
      'p99 of those served ms': percentile(over.latenciesMs, 99),
      'RSS before MB': before.rssBytes / 1e6,
      'RSS after MB': after.rssBytes / 1e6,
    });
    await gateway.stop();
  }
};
