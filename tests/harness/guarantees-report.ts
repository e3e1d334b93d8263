import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import type { TestEvent } from 'node:test/reporters';
import { projectFile } from './command.ts';

const page = projectFile('docs/guarantees.md');

/** What a run told of one test of `tests/chaos/`. */
interface Report {
  readonly name: string;
  /** Of a guarantee, first with what is claimed to help, then without. */
  readonly runs: { readonly variable: string; readonly ledger: string }[];
  /** Of any other test. */
  readonly figures: string[];
  skipped: string | undefined;
}

/**
 * A reporter of `node --test` that writes `docs/guarantees.md` from the ledgers of a run in which every chaos test passed.
 * With `CI` set it fails a run whose claims are not those that the page listed before.
 */
// oxlint-disable-next-line import/no-default-export -- node:test takes a reporter so
export default async function* guaranteesReport(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const reports: Report[] = [];
  const files = new Set<string>();
  let failed = false;
  // These events come in the order of the tests, file by file, however many run at the same time.
  for await (const { type, data } of events) {
    const report = reports.at(-1);
    if (type === 'test:fail') failed = true;
    else if (type === 'test:summary' && data.file !== undefined) files.add(basename(data.file));
    else if (type === 'test:start' && data.nesting === 0) {
      reports.push({ name: data.name, runs: [], figures: [], skipped: undefined });
    } else if (type === 'test:pass' && data.nesting === 0 && data.skip !== undefined && report !== undefined) {
      report.skipped = String(data.skip);
    } else if (type === 'test:diagnostic' && data.file !== undefined) {
      const [, variable, ledger] = /^(?:on|control): \{ (.*?) \}: (sent \d.*)$/.exec(data.message) ?? [];
      if (variable !== undefined && ledger !== undefined) report?.runs.push({ variable, ledger });
      else report?.figures.push(data.message);
    }
  }
  const missing = readdirSync(projectFile('tests/chaos')).filter(
    (name) => name.endsWith('.test.ts') && !files.has(name),
  );
  if (failed || missing.length > 0) {
    yield `docs/guarantees.md stays as it is: ${failed ? 'a test failed' : `${missing.join(', ')} did not run`}\n`;
    return;
  }
  const before = listedClaims(readPage());
  const text = pageOf(reports);
  writeFileSync(page, text);
  yield 'docs/guarantees.md has the ledgers of this run\n';
  const now = listedClaims(text);
  const changed = [...before, ...now].filter((claim) => !before.has(claim) || !now.has(claim));
  if (process.env.CI && changed.length > 0) {
    process.exitCode = 1;
    yield `docs/guarantees.md did not list what is tested, commit what \`make chaos\` writes: ${changed.join('; ')}\n`;
  }
}

function readPage(): string {
  try {
    return readFileSync(page, 'utf8');
  } catch {
    return '';
  }
}

/** The first column of its tables. */
function listedClaims(text: string): Set<string> {
  return new Set([...text.matchAll(/^\| (.*?) \|/gm)].map(([, claim = '']) => claim));
}

const preface = `# Guarantees

Written by \`make chaos\`, which tests each claim over real processes on one machine; the figures are those of its last run.

A claim is tested twice, with the same load and the same predicate. Once as the product is, and it must hold; and once with
one variable changed, the control, and then it must not hold: so that it is seen that the test can fail. The account of all
calls must be such that it says something (enough were sent, and so on) both times. Where a claim names a time, five times
that is allowed, since the machine may be busy: the account says what it was.
`;

function pageOf(reports: readonly Report[]): string {
  const isGuarantee = ({ runs, skipped }: Report) => runs.length > 0 || skipped !== undefined;
  const claims = reports.filter(isGuarantee).map(({ name, runs, skipped }) => {
    const [on, control] = runs.map(({ variable, ledger }) => `\`${variable}\`<br>${ledger}`);
    return `| ${name} | ${on ?? `not run: ${skipped}`} | ${control ?? ''} |`;
  });
  const others = reports
    .filter((report) => !isGuarantee(report))
    .map(({ name, figures }) => `| ${name} | ${figures.join('<br>')} |`);
  return [
    preface,
    '| claim | with | without (control) |\n|---|---|---|',
    ...claims,
    '\nTests of the same kind, which have no control:\n',
    '| behaviour | account |\n|---|---|',
    ...others,
    '',
  ].join('\n');
}
