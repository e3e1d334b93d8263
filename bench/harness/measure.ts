import { type LoadResult, percentile } from './http-load.ts';
import type { Subject } from './subject.ts';

/** One figure of one subject, a value for each round. */
export interface Measure {
  /** `gateway, c = 64` */
  readonly table: string;
  readonly subject: string;
  /** With its unit: `CPU µs`. */
  readonly figure: string;
  readonly values: number[];
}

/** All that was measured, in the order in which it first came. */
export interface Measures {
  readonly all: readonly Measure[];
  add(table: string, subject: string, figures: Readonly<Record<string, number>>): void;
}

export function createMeasures(): Measures {
  const all: Measure[] = [];
  return {
    all,
    add(table, subject, figures) {
      for (const [figure, value] of Object.entries(figures)) {
        let found = all.find((one) => one.table === table && one.subject === subject && one.figure === figure);
        if (found === undefined) all.push((found = { table, subject, figure, values: [] }));
        found.values.push(value);
      }
    },
  };
}

/** How long to measure. */
export interface Effort {
  readonly rounds: number;
  readonly roundMs: number;
  /** Before each round. */
  readonly leadInMs: number;
  /** With c = 64, until the compiler is done. */
  readonly warmUpMs: number;
}

/**
 * What the process of a subject takes for each reply of a load. It runs for a moment before that counts: a process that
 * had nothing to do has given up memory, and has to grow it again.
 *
 * @throws Error if a reply was wrong.
 */
export async function measureLoad(
  subject: Subject,
  { leadInMs, roundMs }: Effort,
  load: (durationMs: number) => Promise<LoadResult>,
): Promise<Record<string, number>> {
  await load(leadInMs);
  const before = await subject.usage();
  const result = await load(roundMs);
  const after = await subject.usage();
  if (result.wrong.size > 0 || result.ok === 0) {
    const wrong = [...result.wrong].map(([what, count]) => `${count} x ${what}`).join(', ');
    throw new Error(`${subject.name}: ${result.ok} replies were right, ${wrong || 'none'} wrong`);
  }
  return {
    'CPU µs': (after.cpuUs - before.cpuUs) / result.ok,
    'calls/s': (1_000 * result.ok) / result.durationMs,
    'p50 ms': percentile(result.latenciesMs, 50),
    'p99 ms': percentile(result.latenciesMs, 99),
  };
}

/** Each in turn, as often as there are rounds, every other round backwards: what drifts, drifts for all. */
export async function interleave<T>(
  rounds: number,
  subjects: readonly T[],
  measure: (subject: T) => Promise<void>,
): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    for (const subject of round % 2 === 0 ? subjects : subjects.toReversed()) await measure(subject);
  }
}
