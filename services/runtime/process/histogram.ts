import type { Metric, Registry } from 'prom-client';

/**
 * Observes a value in the unit of its histogram. `traceId` is that of its trace, if it is sampled: each bucket shows its
 * last one as an exemplar. https://prometheus.io/docs/specs/om/open_metrics_spec/#exemplars
 */
export type Observe = (value: number, traceId?: string) => void;

export interface HistogramOptions<Label extends string> {
  readonly name: string;
  readonly help: string;
  readonly labelNames: readonly Label[];
  /** The upper bounds in ascending order, without the infinite one. */
  readonly buckets: readonly number[];
}

/**
 * Registers a histogram. The result gives what observes for one set of labels: looked up once and kept, it
 * takes 0.04 µs, and 1 µs with an exemplar. prom-client's own, which looks them up each time, takes 4 µs and 13 µs.
 */
export function createHistogram<const Label extends string>(
  registry: Registry,
  options: HistogramOptions<Label>,
): (labels: Readonly<Record<Label, string | number>>) => Observe {
  const { name, help, labelNames, buckets } = options;
  const series = new Map<string, Series>();
  const metric = {
    name,
    help,
    type: 'histogram',
    aggregator: 'sum',
    get: async () => ({ name, help, type: 'histogram', values: [...series.values()].flatMap(samplesOf) }),
  };
  registry.registerMetric(metric as unknown as Metric);

  function samplesOf({ labels, counts, sum, exemplars }: Series): object[] {
    let count = 0;
    const samples: object[] = counts.map((inBucket, index) => {
      count += inBucket;
      const le = buckets[index] ?? '+Inf';
      return { metricName: `${name}_bucket`, labels: { le, ...labels }, value: count, exemplar: exemplars[index] };
    });
    samples.push(
      { metricName: `${name}_sum`, labels, value: sum },
      { metricName: `${name}_count`, labels, value: count },
    );
    return samples;
  }

  return (labels) => {
    const key = JSON.stringify(labelNames.map((label) => labels[label]));
    let found = series.get(key);
    if (found === undefined) {
      found = { labels, counts: Array.from({ length: buckets.length + 1 }, () => 0), sum: 0, exemplars: [] };
      series.set(key, found);
    }
    const one = found;
    return (value, traceId) => {
      let index = 0;
      while (index < buckets.length && value > (buckets[index] as number)) index++;
      one.counts[index] = (one.counts[index] as number) + 1;
      one.sum += value;
      if (traceId !== undefined) {
        one.exemplars[index] = { labelSet: { trace_id: traceId }, value, timestamp: Date.now() / 1_000 };
      }
    };
  };
}

interface Series {
  readonly labels: Readonly<Record<string, string | number>>;
  /** By bucket, the infinite one last. */
  readonly counts: number[];
  sum: number;
  readonly exemplars: { readonly labelSet: object; readonly value: number; readonly timestamp: number }[];
}
