import type { Metric, Registry } from 'prom-client';

/** One series of a counter. Only ever raise it. */
export interface Count {
  value: number;
}

export interface CounterOptions<Label extends string> {
  readonly name: string;
  readonly help: string;
  readonly labelNames: readonly Label[];
}

export interface Counter<Label extends string> {
  /** The series of these labels, which is shown from now on. To be kept: it is looked up by their values. */
  of(labels: Readonly<Record<Label, string>>): Count;
  /** Shows them no more. */
  remove(labels: Readonly<Record<Label, string>>): void;
  series(): Iterable<{ readonly labels: Readonly<Record<Label, string>> } & Count>;
}

/** Registers a counter for what happens in each request: a number to be raised, where prom-client's looks its labels up. */
export function createCounter<const Label extends string>(
  registry: Registry,
  options: CounterOptions<Label>,
): Counter<Label> {
  const { name, help, labelNames } = options;
  const series = new Map<string, { readonly labels: Readonly<Record<Label, string>>; value: number }>();
  const keyOf = (labels: Readonly<Record<Label, string>>) => JSON.stringify(labelNames.map((label) => labels[label]));
  const metric = {
    name,
    help,
    type: 'counter',
    aggregator: 'sum',
    // The registry takes `_total` off the name where OpenMetrics is asked for.
    get: async () => ({ name: metric.name, help, type: 'counter', values: [...series.values()] }),
  };
  registry.registerMetric(metric as unknown as Metric);

  return {
    of(labels) {
      const key = keyOf(labels);
      let found = series.get(key);
      if (found === undefined) series.set(key, (found = { labels, value: 0 }));
      return found;
    },
    remove: (labels) => void series.delete(keyOf(labels)),
    series: () => series.values(),
  };
}
