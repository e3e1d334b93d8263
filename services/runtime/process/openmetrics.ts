import { type Metric, Registry } from 'prom-client';

/** The other format that Prometheus reads, and the one that it asks for first. It alone has exemplars. */
export const openMetricsType = Registry.OPENMETRICS_CONTENT_TYPE;

/** Whether the `Accept` header of a scrape names it. No other client gets it unasked. */
export function acceptsOpenMetrics(accept: string | undefined): boolean {
  return accept !== undefined && /\bapplication\/openmetrics-text\b/.test(accept);
}

/**
 * The metrics of a registry as OpenMetrics text. prom-client can do only one of the two formats for good: for this one it
 * renames the counters.
 */
export function writeOpenMetrics(registry: Registry): Promise<string> {
  const view = new Registry<typeof openMetricsType>();
  view.setContentType(openMetricsType);
  for (const metric of registry.getMetricsAsArray() as unknown as RegisteredMetric[]) {
    view.registerMetric((metric.type === 'counter' ? withoutSuffix(metric) : metric) as unknown as Metric);
  }
  return view.metrics();
}

/** What prom-client's metrics are to its registry; its declarations leave it out. */
interface RegisteredMetric {
  readonly name: string;
  readonly type: string;
  get(): Promise<object>;
}

/** A counter by the name of its family: the samples are written with `_total` behind it. */
function withoutSuffix(counter: RegisteredMetric): RegisteredMetric {
  const name = counter.name.replace(/_total$/, '');
  return { name, type: counter.type, get: async () => ({ ...(await counter.get()), name }) };
}
