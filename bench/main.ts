import process from 'node:process';
import { parseArgs } from 'node:util';
import { build } from './harness/build.ts';
import { createMeasures } from './harness/measure.ts';
import { table } from './harness/table.ts';
import { startSubject, type Subject } from './harness/subject.ts';
import type { Suite } from './harness/suite.ts';
import { cache } from './suites/cache.ts';
import { endpoints } from './suites/endpoints.ts';
import { features } from './suites/features.ts';
import { gatewaySuite } from './suites/gateway.ts';
import { greeter } from './suites/greeter.ts';
import { overload } from './suites/overload.ts';
import { slowReplica } from './suites/slow-replica.ts';
import { soak, startUp } from './suites/start-up.ts';
import { streams } from './suites/streams.ts';
import { join } from 'node:path';

const suites: Readonly<Record<string, Suite>> = {
  gateway: gatewaySuite,
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

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: 'boolean', default: false } },
});
const chosen = positionals.length === 0 ? Object.keys(suites) : positionals;
const effort = values.quick
  ? { rounds: 3, roundMs: 1_000, warmUpMs: 2_500 }
  : { rounds: 5, roundMs: 1_500, warmUpMs: 2_000 };

build();
const measures = createMeasures();
for (const name of chosen) {
  const suite = suites[name];
  if (suite === undefined) throw new Error(`no suite ${name}: there are ${Object.keys(suites).join(', ')}`);
  const subjects: Subject[] = [];
  const use = (subject: Subject) => {
    subjects.push(subject);
    return subject;
  };
  try {
    await suite({
      measures,
      effort,
      goGateway: undefined,
      use,
      async backends(replicas) {
        const program = join(import.meta.dirname, 'harness/backend.ts');
        const backend = use(await startSubject({ name: 'backend', program, env: { REPLICAS: String(replicas) } }));
        return Array.from({ length: replicas }, (_, index) => `127.0.0.1:${backend.ports[`replica${index}`]}`);
      },
    });
  } finally {
    await Promise.all(subjects.map((subject) => subject.stop()));
  }
}
process.stdout.write(table(measures.all));
