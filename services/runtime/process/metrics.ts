import { collectDefaultMetrics, Counter, Gauge, Registry } from 'prom-client';
import project from '../../../package.json' with { type: 'json' };
import { noTracing, type Tracing } from './tracing.ts';

/** What prom-client calls a total and is none: their parts have metrics of their own. */
const misnamedGauges = ['nodejs_active_handles_total', 'nodejs_active_requests_total', 'nodejs_active_resources_total'];

/**
 * A registry of the program's own, with prom-client's process metrics, what is running with which settings, and the spans
 * that tracing had to drop. It sets no default labels, because Prometheus knows pod and job from the scrape.
 */
export function createMetrics(options: {
  readonly service: string;
  /** Of `hashConfig()`. */
  readonly configHash: string;
  /** Defaults to one that is off. */
  readonly tracing?: Tracing;
}): Registry {
  const { service, configHash, tracing = noTracing } = options;
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  for (const name of misnamedGauges) registry.removeSingleMetric(name);
  new Gauge({
    name: 'tandem_build_info',
    help: 'Always 1; the labels say what is running.',
    labelNames: ['service', 'version', 'node_version'],
    registers: [registry],
  }).set({ service, version: project.version, node_version: process.versions.node }, 1);
  new Gauge({
    name: 'tandem_config_info',
    help: 'Always 1; replicas with the same hash have the same settings.',
    labelNames: ['hash'],
    registers: [registry],
  }).set({ hash: configHash }, 1);
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
