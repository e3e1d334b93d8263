import { collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import project from '../../../package.json' with { type: 'json' };

/**
 * A registry of the program's own, with prom-client's process metrics and `tandem_build_info`. It sets no default labels,
 * because Prometheus knows pod and job from the scrape.
 */
export function createMetrics(options: { readonly service: string }): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  new Gauge({
    name: 'tandem_build_info',
    help: 'Always 1; the labels say what is running.',
    labelNames: ['service', 'version', 'node_version'],
    registers: [registry],
  }).set({ service: options.service, version: project.version, node_version: process.versions.node }, 1);
  return registry;
}
