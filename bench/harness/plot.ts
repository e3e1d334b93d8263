import type { Measure } from './measure.ts';
import { median, text } from './table.ts';

const width = 720;
const rowHeight = 26;
const labelWidth = 200;
const scaleWidth = width - labelWidth - 110;

/** Bars of one figure of a table, ours darker, with a line from the least to the most of the rounds. An SVG. */
export function plot(measures: readonly Measure[], table: string, figure: string): string {
  const rows = measures
    .filter((measure) => measure.table === table && measure.figure === figure)
    .toSorted((a, b) => median(a.values) - median(b.values));
  const most = Math.max(...rows.flatMap(({ values }) => values));
  const x = (value: number) => labelWidth + (scaleWidth * value) / most;
  const bars = rows.map(({ subject, values }, index) => {
    const y = 40 + index * rowHeight;
    const middle = y + (rowHeight - 8) / 2;
    const end = x(median(values));
    return `
  <text x="${labelWidth - 8}" y="${middle + 4}" text-anchor="end">${subject.replaceAll('&', '&amp;')}</text>
  <rect x="${labelWidth}" y="${y}" width="${(end - labelWidth).toFixed(1)}" height="${rowHeight - 8}" fill="${subject.startsWith('tandem') ? '#1f6feb' : '#9db4d0'}"/>
  <line x1="${x(Math.min(...values)).toFixed(1)}" x2="${x(Math.max(...values)).toFixed(1)}" y1="${middle}" y2="${middle}" stroke="#333"/>
  <text x="${(x(Math.max(...values)) + 6).toFixed(1)}" y="${middle + 4}">${text(median(values))}</text>`;
  });
  const height = 48 + rows.length * rowHeight;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif" font-size="13">
  <rect width="${width}" height="${height}" fill="#fff"/>
  <text x="8" y="22" font-weight="bold">${table}: ${figure} a request, median of the rounds; the line: least to most</text>${bars.join('')}
</svg>
`;
}
