import { collectDefaultMetrics, Counter, Gauge, Registry } from 'prom-client';
import project from '../../../package.json' with { type: 'json' };
import { noTracing, type Tracing } from './tracing.ts';

/**
 * A registry of the program's own, with prom-client's process metrics, `tandem_build_info` and the spans that tracing had
 * to drop. It sets no default labels, because Prometheus knows pod and job from the scrape.
 */
export function createMetrics(options: {
  readonly service: string;
  /** Defaults to one that is off. */
  readonly tracing?: Tracing;
}): Registry {
  const { service, tracing = noTracing } = options;
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  new Gauge({
    name: 'tandem_build_info',
    help: 'Always 1; the labels say what is running.',
    labelNames: ['service', 'version', 'node_version'],
    registers: [registry],
  }).set({ service, version: project.version, node_version: process.versions.node }, 1);
  const dropped = new Counter({
    name: 'tandem_telemetry_spans_dropped_total',
    help: 'Spans that were not delivered to the collector; reason queue_full, or the error of the exporter.',
    labelNames: ['reason'],
    registers: [],
    collect() {
      this.reset();
      this.inc({ reason: 'queue_full' }, 0);
      for (const [reason, spans] of tracing.dropped) this.inc({ reason }, spans);
    },
  });
  registry.registerMetric(dropped);
  return registry;
}
