import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { parseArgs } from 'node:util';
import { judge, verdictTable } from './harness/budget.ts';
import { build, buildGoGateway } from './harness/build.ts';
import { machine } from './harness/machine.ts';
import { createMeasures, type Measure } from './harness/measure.ts';
import { plot } from './harness/plot.ts';
import { startSubject, type Subject } from './harness/subject.ts';
import type { Suite } from './harness/suite.ts';
import { table } from './harness/table.ts';
import { cache } from './suites/cache.ts';
import { endpoints } from './suites/endpoints.ts';
import { features } from './suites/features.ts';
import { gateway } from './suites/gateway.ts';
import { greeter } from './suites/greeter.ts';
import { overload } from './suites/overload.ts';
import { slowReplica } from './suites/slow-replica.ts';
import { soak } from './suites/soak.ts';
import { startUp } from './suites/start-up.ts';
import { streams } from './suites/streams.ts';

/*
 * node bench/main.ts [--quick] [SUITE…]
 *
 * Runs the suites, all but `soak` by default, and writes what they measured into bench/results/ and docs/: those that did
 * not run keep what they measured before. `--quick` only prints.
 */
const suites: Readonly<Record<string, Suite>> = {
  gateway,
  features,
  greeter,
  streams,
  cache,
  endpoints,
  'slow-replica': slowReplica,
  overload,
  'start-up': startUp,
  soak,
};
const inDefault = Object.keys(suites).filter((name) => name !== 'soak');

interface Results {
  readonly machine: ReturnType<typeof machine>;
  readonly suites: Record<
    string,
    { readonly takenAt: string; readonly load: number; readonly measures: readonly Measure[] }
  >;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: 'boolean', default: false } },
});
const chosen = positionals.length === 0 ? inDefault : positionals;
const unknown = chosen.filter((name) => !(name in suites));
if (unknown.length > 0) throw new Error(`no suite ${unknown.join(', ')}: there are ${Object.keys(suites).join(', ')}`);
// Whoever is under measurement ends with this process.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));

const effort = values.quick
  ? { rounds: 3, roundMs: 1_000, leadInMs: 300, warmUpMs: 5_000 }
  : { rounds: 5, roundMs: 1_500, leadInMs: 400, warmUpMs: 6_000 };
build();
const goGateway = buildGoGateway();
if (goGateway === undefined) process.stdout.write('Go is not installed: grpc-gateway is left out\n');
const folder = join(import.meta.dirname, 'results');
const results = readResults();
for (const name of chosen) {
  const startedMs = performance.now();
  const load = Math.round(100 * (os.loadavg()[0] ?? 0)) / 100;
  const measures = await run(suites[name] as Suite);
  results.suites[name] = { takenAt: new Date().toISOString(), load, measures };
  const tookS = Math.round((performance.now() - startedMs) / 1_000);
  process.stdout.write(`${table(measures)}\n(${name}: ${tookS} s)\n\n`);
}
const all = Object.keys(suites).flatMap((name) => results.suites[name]?.measures ?? []);
const verdicts = verdictTable(judge(all));
process.stdout.write(verdicts);
if (!values.quick) {
  mkdirSync(folder, { recursive: true });
  const written = {
    'results.json': `${JSON.stringify(results, undefined, 2)}\n`,
    'table.md': report(),
    'plot.svg': '',
  };
  written['plot.svg'] = plot(all, 'gateway, c = 64', 'CPU µs');
  for (const [file, content] of Object.entries(written)) writeFileSync(join(folder, file), content);
  writeInto('performance.md', 'goals', verdicts);
  writeInto('performance.md', 'gateway', table(all.filter((measure) => measure.table === 'gateway, c = 64')));
  for (const doc of ['performance.md', 'observability.md']) {
    writeInto(doc, 'features', table(all.filter((measure) => measure.table === 'features, c = 64')));
  }
}

async function run(suite: Suite): Promise<readonly Measure[]> {
  const measures = createMeasures();
  const subjects: Subject[] = [];
  const use = (subject: Subject) => {
    subjects.push(subject);
    return subject;
  };
  async function backends(replicas: number): Promise<string[]> {
    const program = join(import.meta.dirname, 'harness/backend.ts');
    const backend = use(await startSubject({ name: 'backend', program, env: { REPLICAS: String(replicas) } }));
    return Array.from({ length: replicas }, (_, index) => `127.0.0.1:${backend.ports[`replica${index}`]}`);
  }
  try {
    await suite({ measures, effort, goGateway, use, backends });
  } finally {
    await Promise.all(subjects.map((subject) => subject.stop()));
  }
  return measures.all;
}

/** Puts figures between two comments of a page, where docs say what they mean. */
function writeInto(doc: string, name: string, content: string): void {
  const file = join(import.meta.dirname, '../docs', doc);
  const begin = `<!-- ${name}: by make bench -->`;
  const [before, rest = ''] = readFileSync(file, 'utf8').split(begin);
  const end = rest.indexOf('<!-- end -->');
  if (end === -1) throw new Error(`${doc} has no place for ${name}`);
  writeFileSync(file, `${before}${begin}\n\n${content.trim()}\n\n${rest.slice(end)}`);
}

function readResults(): Results {
  const now = machine();
  try {
    const before = JSON.parse(readFileSync(join(folder, 'results.json'), 'utf8')) as Results;
    // Figures of two machines do not belong into one table.
    if (JSON.stringify(before.machine) === JSON.stringify(now)) return before;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  return { machine: now, suites: {} };
}

function report(): string {
  const facts = Object.entries(results.machine).map(([key, value]) => `${key} ${value}`);
  return `<!-- Written by make bench. -->\n\n${facts.join(', ')}.\n\n${verdicts}\n${table(all)}`;
}
