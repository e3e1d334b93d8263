import { readFileSync } from 'node:fs';
import type { Measure } from './measure.ts';
import { median, text } from './table.ts';

/** Where a figure stands: table, subject, figure. */
type Place = readonly [string, string, string];

/** One goal of `budget.json`: a figure, or its ratio to another one. */
interface Goal {
  readonly figure: string;
  readonly of: Place;
  readonly to?: Place;
  readonly atMost?: number;
  readonly atLeast?: number;
}

export interface Verdict {
  readonly figure: string;
  readonly goal: string;
  /** The median of the rounds, and between what they lie. */
  readonly value: string;
  readonly verdict: 'holds' | 'no difference' | 'not met' | 'not measured';
}

/**
 * Holds what was measured against the goals. A ratio is taken in each round, of figures that were measured one after the
 * other; where the rounds lie on both sides of the goal, it says that they show no difference from it.
 */
export function judge(measures: readonly Measure[]): Verdict[] {
  const goals = JSON.parse(readFileSync(new URL('../budget.json', import.meta.url), 'utf8')) as Goal[];
  const valuesAt = ([table, subject, figure]: Place) =>
    measures.find((one) => one.table === table && one.subject === subject && one.figure === figure)?.values;

  return goals.map(({ figure, of, to, atMost, atLeast }) => {
    const limit = atMost ?? atLeast ?? Number.NaN;
    const goal = `${atMost === undefined ? '≥' : '≤'} ${limit}${to === undefined ? '' : ' ×'}`;
    const numerators = valuesAt(of);
    const denominators = to === undefined ? numerators?.map(() => 1) : valuesAt(to);
    if (numerators === undefined || denominators === undefined) {
      return { figure, goal, value: '', verdict: 'not measured' };
    }
    const values = numerators.map((value, round) => value / (denominators[round] ?? Number.NaN));
    const [least, most] = [Math.min(...values), Math.max(...values)];
    const meets = (value: number) => (atMost === undefined ? value >= limit : value <= limit);
    const spread = values.length === 1 ? '' : ` (${text(least)}–${text(most)})`;
    const verdict = values.every(meets) ? 'holds' : values.some(meets) ? 'no difference' : 'not met';
    return { figure, goal, value: `${text(median(values))}${spread}`, verdict };
  });
}

/** Markdown. */
export function verdictTable(verdicts: readonly Verdict[]): string {
  const rows = verdicts.map(({ figure, goal, value, verdict }) => `| ${figure} | ${goal} | ${value} | ${verdict} |`);
  return ['### Goals\n', '| figure | goal | measured | |', '|---|---:|---:|---|', ...rows, ''].join('\n');
}
