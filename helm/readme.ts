import { readFileSync } from 'node:fs';
import process from 'node:process';
import { readValues } from './values.ts';

// Run by `make charts`: the README of a chart, with the table of its values made of their comments, on standard output.
const [chart = ''] = process.argv.slice(2);
const readme = readFileSync(new URL(`${chart}/README.md`, import.meta.url), 'utf8');
const marks = /(?<=<!-- values.* -->\n).*(?=<!-- end of the values -->)/s;
if (!marks.test(readme)) throw new Error(`helm/${chart}/README.md must have the marks that the table stands between`);

const rows = readValues(chart).map(({ path, description, default: value }) => {
  const json = JSON.stringify(value) ?? '';
  const shown = json.length > 80 ? 'values.yaml' : json && `\`${json}\``;
  return `| \`${path.join('.')}\` | ${shown} | ${description} |`.replace(/^(\| `[^`]*`) \|  \|/, '$1 | |');
});
process.stdout.write(readme.replace(marks, () => `\n| value | default | |\n|---|---|---|\n${rows.join('\n')}\n\n`));
