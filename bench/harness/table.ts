import type { Measure } from './measure.ts';

/** Markdown: a table for each, a row for each subject, the median of the rounds and between what they lie. */
export function table(measures: readonly Measure[]): string {
  const tables = new Set(measures.map((measure) => measure.table));
  return [...tables]
    .map((name) => {
      const ofTable = measures.filter((measure) => measure.table === name);
      const subjects = [...new Set(ofTable.map(({ subject }) => subject))];
      const figures = [...new Set(ofTable.map(({ figure }) => figure))];
      const cells = (subject: string) =>
        figures.map((figure) => cell(ofTable.find((one) => one.subject === subject && one.figure === figure)));
      return [
        `### ${name}\n`,
        `| | ${figures.join(' | ')} |`,
        `|---|${figures.map(() => '---:').join('|')}|`,
        ...subjects.map((subject) => `| ${subject} | ${cells(subject).join(' | ')} |`),
        '',
      ].join('\n');
    })
    .join('\n');
}

/** The middle one of numbers, or between the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  return ((sorted[Math.floor(middle)] ?? Number.NaN) + (sorted[Math.ceil(middle)] ?? Number.NaN)) / 2;
}

function cell(measure: Measure | undefined): string {
  if (measure === undefined) return '';
  const { values } = measure;
  if (values.length === 1) return text(values[0] ?? 0);
  return `${text(median(values))} (${text(Math.min(...values))}–${text(Math.max(...values))})`;
}

/** Three digits that count. */
export function text(value: number): string {
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString('en');
  return String(Number(value.toPrecision(3)));
}
