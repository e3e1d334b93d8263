import assert from 'node:assert/strict';
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { suite } from 'node:test';
import { parse } from 'yaml';
import { projectFile, run, skipWithout } from '../harness/command.ts';
import { readDocumentedMetrics } from '../harness/documented-metrics.ts';
import { namesOf } from './query.ts';

interface Rule {
  readonly record?: string;
  readonly alert?: string;
  readonly expr: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

interface RuleTests {
  readonly tests: readonly {
    readonly alert_rule_test?: readonly { readonly alertname: string; readonly exp_alerts: readonly unknown[] }[];
  }[];
}

interface Dashboard {
  readonly uid: string;
  readonly panels: readonly {
    readonly id: number;
    readonly title: string;
    readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
    readonly targets?: readonly { readonly expr: string; readonly legendFormat?: string }[];
  }[];
}

interface Query {
  readonly where: string;
  readonly expr: string;
  readonly legend?: string;
}

const read = (path: string) => readFileSync(projectFile(path), 'utf8');
const rulesFile = 'deploy/observability/rules.yaml';
const rules = (parse(read(rulesFile)) as { groups: { rules: Rule[] }[] }).groups.flatMap(({ rules }) => rules);
const alerts = rules.filter(({ alert }) => alert !== undefined);
const alertNames = alerts.map(({ alert = '' }) => alert);
const runbooks = read('docs/runbooks.md');
const dashboards = globSync('deploy/observability/dashboards/*.json', { cwd: projectFile('.') }).map((file) => ({
  file,
  dashboard: JSON.parse(read(file)) as Dashboard,
}));
const pages = globSync('{README,docs/*}.md', { cwd: projectFile('.') });

const queries: readonly Query[] = [
  ...rules.map(({ record, alert, expr }) => ({ where: `${rulesFile} ${record ?? alert}`, expr })),
  ...dashboards.flatMap(({ file, dashboard }) =>
    dashboard.panels.flatMap(({ title, targets = [] }) =>
      targets.map(({ expr, legendFormat: legend = '' }) => ({ where: `${file} ${title}`, expr, legend })),
    ),
  ),
  ...pages.flatMap((page) =>
    [...read(page).matchAll(/^ *```promql\n([^]*?)^ *```$/gm)].flatMap(([, block = '']) =>
      block
        .split('\n')
        .map((line) => line.replace(/ +# .*$/, '').trim())
        .filter((line) => line !== '')
        .map((expr) => ({ where: `${page}: ${expr}`, expr })),
    ),
  ),
];

/** Labels that Prometheus sets on what it scrapes. */
const targetLabels = ['job', 'instance', 'namespace', 'pod'];
const known = new Map<string, ReadonlySet<string>>([
  ['ALERTS', new Set(['alertname', 'alertstate', 'severity'])],
  ...rules.flatMap(({ record }) => (record === undefined ? [] : [[record, new Set<string>()] as const])),
  ...[...readDocumentedMetrics().values()].flatMap((table) =>
    [...table].flatMap(([name, { type, labels }]): [string, ReadonlySet<string>][] =>
      type === 'histogram'
        ? [
            [`${name}_bucket`, new Set([...labels, 'le'])],
            [`${name}_sum`, labels],
            [`${name}_count`, labels],
          ]
        : [[name, labels]],
    ),
  ),
]);

suite('rules', () => {
  test('promtool finds nothing wrong with them, and each does what its cases say', async (t) => {
    if (await skipWithout(t, 'promtool', ['--version'])) return;
    const checked = await run('promtool', ['check', 'rules', '--lint-fatal', rulesFile]);
    assert.equal(checked.code, 0, checked.stdout + checked.stderr);
    const file = 'deploy/observability/rules.test.yaml';
    const tested = await run('promtool', ['test', 'rules', file], { timeoutMs: 110_000 });
    assert.equal(tested.code, 0, tested.stdout + tested.stderr);
  });

  test('each alert has a case in which it fires and one in which it is silent', () => {
    const { tests } = parse(read('deploy/observability/rules.test.yaml')) as RuleTests;
    const cases = tests.flatMap(({ alert_rule_test: cases = [] }) => cases);
    const withCase = (fires: boolean) =>
      new Set(cases.filter(({ exp_alerts }) => exp_alerts.length > 0 === fires).map(({ alertname }) => alertname));
    assert.deepEqual([...withCase(true)].toSorted(), alertNames.toSorted());
    assert.deepEqual([...withCase(false)].toSorted(), alertNames.toSorted());
  });

  test('each alert has a section in docs/runbooks.md, and each section an alert', () => {
    const sections = [...runbooks.matchAll(/^### (.*)$/gm)].map(([, heading]) => heading);
    assert.deepEqual(sections, alertNames);
    for (const { alert = '', labels, annotations } of alerts) {
      assert.match(labels?.severity ?? '', /^(page|ticket)$/, alert);
      assert.ok(annotations?.summary, alert);
      assert.ok(`/${annotations.runbook_url}`.endsWith(`/docs/runbooks.md#${alert.toLowerCase()}`), alert);
    }
  });
});

suite('queries', () => {
  test('name metrics and labels that docs/observability.md has, and so those that there are', () => {
    for (const { where, expr, legend = '' } of queries) {
      const { metrics, grouping } = namesOf(expr);
      assert.ok(metrics.length > 0, `${where} names none`);
      const all = new Set(targetLabels);
      for (const { name, labels } of metrics) {
        const has = known.get(name);
        assert.ok(has, `${where}: there is no ${name}`);
        for (const label of has) all.add(label);
        for (const label of labels)
          assert.ok(has.has(label) || targetLabels.includes(label), `${where}: ${name} has no ${label}`);
      }
      const shown = [...legend.matchAll(/\{\{(\w+)\}\}/g)].map(([, label = '']) => label);
      for (const label of [...grouping, ...shown]) assert.ok(all.has(label), `${where}: no metric has ${label}`);
    }
  });

  test('are PromQL', async (t) => {
    if (await skipWithout(t, 'promtool', ['--version'])) return;
    const folder = mkdtempSync(join(tmpdir(), 'tandem-queries-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const filled = (expr: string) => expr.replaceAll('$__rate_interval', '1m').replaceAll(/\$\w+/g, '.*');
    const file = join(folder, 'queries.json'); // which is YAML
    const records = queries.map(({ expr }, index) => ({ record: `query:${index}`, expr: filled(expr) }));
    writeFileSync(file, JSON.stringify({ groups: [{ name: 'queries', rules: records }] }));
    const { code, stdout, stderr } = await run('promtool', ['check', 'rules', file]);
    assert.equal(code, 0, stdout + stderr);
  });

  test('are read as they are meant', () => {
    assert.deepEqual(
      namesOf('sum by (a, le) (rate(x_bucket{b="}", c!~"d"}[5m])) / on(e) y:z > 1e3 or time() - 0.5 * w offset 5m'),
      {
        metrics: [
          { name: 'x_bucket', labels: ['b', 'c'] },
          { name: 'y:z', labels: [] },
          { name: 'w', labels: [] },
        ],
        grouping: ['a', 'le', 'e'],
      },
    );
  });
});

test('the pages name metrics that there are', () => {
  for (const page of pages) {
    for (const [, name = ''] of read(page).matchAll(
      /\b((?:tandem|http_server|grpc_client|grpc_server|nodejs|process)_\w+)/g,
    )) {
      const isFamily = [...known.keys()].some((metric) => metric.startsWith(name));
      assert.ok(isFamily, `${page}: there is no ${name}`);
    }
  }
});

test('no two panels of a dashboard lie over each other', () => {
  assert.equal(dashboards.length, 4);
  for (const { file, dashboard } of dashboards) {
    const { panels } = dashboard;
    assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length, file);
    const cells = panels.flatMap(({ gridPos: { x, y, w, h } }) =>
      Array.from({ length: w * h }, (_, cell) => `${x + (cell % w)} ${y + Math.floor(cell / w)}`),
    );
    assert.equal(new Set(cells).size, cells.length, file);
  }
});
