import assert from 'node:assert/strict';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { projectFile } from '../harness/command.ts';
import { eventually } from '../harness/eventually.ts';
import { formatLedger } from '../harness/ledger.ts';
import { skipWithoutCluster } from './cluster.ts';
import { helm, kubectl } from './kubectl.ts';
import { installPair, maxResentShare, type Program, unary } from './pair.ts';

const programs = ['greeter', 'gateway'] as const satisfies readonly Program[];
const previousVersion = '0.0.9';

test('upgrade from the previous version of the charts, rollback, uninstall', {
  skip: await skipWithoutCluster(),
}, async (t) => {
  const charts = await previousCharts(t);
  const pair = await installPair(t, 'release', {}, charts);
  const load = await pair.load.start({ callsPerS: 100, maxMs: 300_000, http: { ...pair.http([unary]), resend: true } });
  assert.deepEqual(await versions(pair.namespace), { greeter: previousVersion, gateway: previousVersion });
  const graceOf = (program: Program) =>
    pair.kubectl('get', `deployment/${program}`, '-o', 'jsonpath={.spec.template.spec.terminationGracePeriodSeconds}');

  for (const program of programs) await pair.upgrade(program, program);
  const upgraded = await versions(pair.namespace);
  for (const program of programs) {
    assert.notEqual(upgraded[program], previousVersion);
    assert.equal(await graceOf(program), '40');
  }
  for (const program of programs) {
    await helm(['rollback', program, '-n', pair.namespace]);
    await pair.settled(program);
    assert.equal(await graceOf(program), '38');
  }
  assert.deepEqual(await versions(pair.namespace), { greeter: previousVersion, gateway: previousVersion });
  const ledger = await load.stop();
  t.diagnostic(`${t.name}: ${formatLedger(ledger)}`);
  assert.ok(ledger.sent >= 500, 'the account says nothing');
  assert.equal(ledger.failed, 0);
  assert.ok(ledger.resent <= ledger.sent * maxResentShare, `${ledger.resent} went out twice`);

  const installed = await objects(pair.namespace);
  for (const program of programs) await helm(['uninstall', program, '-n', pair.namespace, '--wait', '--timeout=60s']);
  const wanted = ['configmap/kube-root-ca.crt', 'configmap/load', 'pod/load', 'serviceaccount/default'];
  const left = async () => (await objects(pair.namespace)).filter((object) => !wanted.includes(object));
  await eventually('the pods are gone', async () => (await left()).length === 0, { timeoutMs: 60_000 }).catch(() => {});
  assert.deepEqual(await left(), []);
  t.diagnostic(
    `of ${installed.length} objects with both releases only those of the namespace and of the load are left`,
  );
});

/**
 * Copies of the charts with a lower version and other values, which stand for the last release: there has been none yet.
 * Two of the values are those of pods, so that the upgrade rolls them.
 */
async function previousCharts(t: TestContext): Promise<Record<Program, string>> {
  const folder = await mkdtemp(join(tmpdir(), 'tandem-charts-'));
  t.after(() => rm(folder, { recursive: true }));
  await cp(projectFile('helm'), folder, { recursive: true, dereference: true });
  for (const program of programs) {
    const edit = async (file: string, from: RegExp, to: string) => {
      const path = join(folder, program, file);
      const text = await readFile(path, 'utf8');
      assert.match(text, from);
      await writeFile(path, text.replace(from, to));
    };
    await edit('Chart.yaml', /^version: .*$/m, `version: ${previousVersion}`);
    await edit('values.yaml', /^ {2}delay: 5s$/m, '  delay: 3s');
  }
  return { greeter: join(folder, 'greeter'), gateway: join(folder, 'gateway') };
}

async function versions(namespace: string): Promise<Record<string, string>> {
  const releases = JSON.parse(await helm(['list', '-n', namespace, '-o', 'json'])) as { name: string; chart: string }[];
  return Object.fromEntries(releases.map(({ name, chart }) => [name, chart.replace(`${name}-`, '')]));
}

/** All that is in a namespace, but what comes and goes by itself. */
async function objects(namespace: string): Promise<readonly string[]> {
  const kinds = await kubectl(['api-resources', '--namespaced', '--verbs=list', '-o', 'name']);
  const wanted = kinds
    .split('\n')
    .filter((kind) => kind !== '' && !/^(events|.*\.metrics\.k8s\.io|events\.events\.k8s\.io)/.test(kind));
  const found = await kubectl(['-n', namespace, 'get', wanted.join(','), '-o', 'name']);
  return found.split('\n').filter(Boolean).sort();
}
