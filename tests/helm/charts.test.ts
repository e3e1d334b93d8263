import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { suite, type TestContext, test } from 'node:test';
import { parse, parseAllDocuments } from 'yaml';
import { settings as gatewaySettings } from '../../services/gateway/config.ts';
import { settings as greeterSettings } from '../../services/greeter/config.ts';
import { projectFile, run, runProgramFile, skipWithout } from '../harness/command.ts';

/** The Kubernetes that the charts are checked against. */
const kubernetes = '1.34.4';
const namespace = 'shop';

/** Each release that is rendered: `chart.name.values.yaml` in testdata, and beside it the golden, what comes of it. */
const cases = readdirSync(projectFile('tests/helm/testdata'))
  .filter((file) => file.endsWith('.values.yaml'))
  .map((file) => {
    const [chart = '', name = ''] = file.split('.');
    return {
      chart,
      name: `${chart} ${name}`,
      release: file === 'greeter.backup.values.yaml' ? 'greeter-backup' : chart,
      values: projectFile(`tests/helm/testdata/${file}`),
      golden: projectFile(`tests/helm/testdata/${file.replace('.values.yaml', '.golden.yaml')}`),
    };
  });
type Case = (typeof cases)[number];

// oxlint-disable-next-line typescript/no-explicit-any -- of any kind
type Manifest = Record<string, any>;

const helm = ['version'] as const;

async function template(tool: string, { chart, release }: Pick<Case, 'chart' | 'release'>, ...args: string[]) {
  const common = ['--namespace', namespace, '--kube-version', kubernetes];
  return run(tool, ['template', release, projectFile(`helm/${chart}`), ...common, ...args]);
}

/** What is rendered, and must be. */
async function render(chart: string, ...args: string[]): Promise<readonly Manifest[]> {
  const { code, stdout, stderr } = await template('helm', { chart, release: chart }, ...args);
  assert.equal(code, 0, stderr);
  return manifestsIn(stdout);
}

function manifestsIn(text: string): readonly Manifest[] {
  return parseAllDocuments(text).flatMap((document) => (document.toJS() as Manifest | null) ?? []);
}

function goldenOf({ golden }: Case): string {
  assert.ok(existsSync(golden), `${golden} is missing: UPDATE_GOLDENS=1 node --test tests/helm/charts.test.ts`);
  return readFileSync(golden, 'utf8');
}

function find(manifests: readonly Manifest[], kind: string): Manifest {
  const manifest = manifests.find((candidate) => candidate.kind === kind);
  assert.ok(manifest, `no ${kind}`);
  return manifest;
}

function variables(manifests: readonly Manifest[]): Map<string, string> {
  const [container] = find(manifests, 'Deployment').spec.template.spec.containers;
  return new Map(container.env.map(({ name, value }: Record<string, string>) => [name, value]));
}

for (const tool of ['helm', 'helm4']) {
  suite(tool, { concurrency: 2 }, () => {
    for (const chart of ['common', 'greeter', 'gateway']) {
      test(`has nothing to say against the chart ${chart}`, async (t) => {
        if (await skipWithout(t, tool, helm)) return;
        const { code, stdout } = await run(tool, ['lint', '--strict', projectFile(`helm/${chart}`)]);
        assert.equal(code, 0, stdout);
      });
    }

    for (const rendered of cases) {
      test(`renders ${rendered.name} as before`, async (t) => {
        if (await skipWithout(t, tool, helm)) return;
        const { code, stdout, stderr } = await template(tool, rendered, '--values', rendered.values);
        assert.equal(code, 0, stderr);
        // Blank lines of a script are indented, too, and editors take that away; those between objects are not the charts'.
        const text = stdout.replace(/ +$/gm, '').replace(/\n+(---\n|$)/g, '\n$1');
        if (process.env.UPDATE_GOLDENS) writeFileSync(rendered.golden, text);
        assert.equal(text, goldenOf(rendered));
      });
    }
  });
}

test('kubeconform finds only what Kubernetes knows', async (t) => {
  if (await skipWithout(t, 'kubeconform', ['-v'])) return;
  const args = ['-strict', '-summary', '-kubernetes-version', kubernetes, '-schema-location', kubernetesSchemas()];
  // Of other groups than Kubernetes' own: the goldens hold them.
  args.push('-skip', 'ServiceMonitor,HTTPRoute');
  const { code, stdout, stderr } = await run('kubeconform', [...args, ...cases.map(({ golden }) => golden)]);
  assert.equal(code, 0, stdout + stderr);
  assert.match(stdout, /Invalid: 0, Errors: 0, Skipped: [1-9]/);
});

/** Those installed beside kubeconform, or the public ones. */
function kubernetesSchemas(): string {
  const found = (process.env.PATH ?? '')
    .split(delimiter)
    .map((directory) => join(directory, 'kubeconform'))
    .filter(existsSync)
    .map((file) => join(dirname(realpathSync(file)), '../share/tandem-tools/kubernetes-schemas'))
    .find(existsSync);
  return found ?? 'default';
}

/** What kube-score would have otherwise, and why it is not so. */
const exceptions = [
  // A CPU limit stops a process that still has work while the CPU lies idle: see `resources` in values.yaml.
  '--ignore-container-cpu-limit',
  // Tags do not move and digests cannot, and pods must start while the registry is away.
  '--ignore-test=container-image-pull-policy',
  // topologySpreadConstraints spread the pods, and do not keep them from starting where there are few nodes.
  '--ignore-test=deployment-has-host-podantiaffinity',
];
/** By default whoever is in the cluster may call: what a NetworkPolicy must let in, only its owner knows. */
const noPolicy = ['--ignore-test=pod-networkpolicy'];

for (const { name, more } of [
  { name: 'greeter default', more: noPolicy },
  { name: 'greeter autoscaled', more: noPolicy },
  { name: 'greeter tls', more: noPolicy },
  { name: 'greeter guarded', more: [] },
  { name: 'gateway default', more: noPolicy },
  { name: 'gateway autoscaled', more: noPolicy },
  { name: 'gateway guarded', more: [] },
]) {
  test(`kube-score has nothing to say against ${name}`, async (t) => {
    if (await skipWithout(t, 'kube-score', helm)) return;
    const rendered = cases.find((candidate) => candidate.name === name);
    assert.ok(rendered);
    const args = [
      'score',
      '--kubernetes-version',
      'v1.34',
      '--exit-one-on-warning',
      '-o',
      'ci',
      ...exceptions,
      ...more,
    ];
    const { code, stdout, stderr } = await run('kube-score', [...args, '-'], { input: goldenOf(rendered) });
    assert.equal(code, 0, stdout.replace(/^\[(OK|SKIPPED)\].*\n/gm, '') + stderr);
  });
}

suite('values', { concurrency: 2 }, () => {
  for (const { chart, set, problem } of [
    { chart: 'greeter', set: 'replica=5', problem: "additional properties 'replica' not allowed" },
    { chart: 'greeter', set: 'drain.dely=5s', problem: "at '/drain': additional properties 'dely' not allowed" },
    { chart: 'greeter', set: 'drain.grace=20', problem: "at '/drain/grace': got number, want string" },
    { chart: 'greeter', set: 'drain.grace=20sec', problem: "at '/drain/grace': '20sec' does not match pattern" },
    { chart: 'greeter', set: 'resources.limit.memory=1Gi', problem: "'limit' not allowed" },
    { chart: 'greeter', set: 'image.digest=latest', problem: "at '/image/digest'" },
    { chart: 'greeter', set: 'tls.enabled=true', problem: 'tls.secretName must name a Secret' },
    { chart: 'gateway', set: 'backup=greeter_backup', problem: "at '/backup'" },
    { chart: 'gateway', set: 'config.upstreams[0].name=a', problem: "missing property 'targets'" },
    {
      chart: 'gateway',
      set: 'config.upstream=a',
      problem: "at '/config': additional properties 'upstream' not allowed",
    },
    {
      chart: 'gateway',
      set: 'config.upstreams[0].name=a,config.upstreams[0].targets[0]=dns:///a:1,config.upstreams[0].serviceConfig.retry=1',
      problem: "at '/config/upstreams/0/serviceConfig': additional properties 'retry' not allowed",
    },
    { chart: 'gateway', set: 'httpRoute.enabled=true', problem: 'httpRoute.parentRefs must name a Gateway' },
    { chart: 'gateway', set: 'service.type=Loadbalancer', problem: "at '/service/type'" },
  ]) {
    for (const tool of ['helm', 'helm4']) {
      test(`${set} stops the installation of the ${chart} (${tool})`, async (t) => {
        if (await skipWithout(t, tool, helm)) return;
        const { code, stderr } = await template(tool, { chart, release: chart }, '--set', set);
        assert.equal(code, 1);
        assert.ok(stderr.includes(problem), stderr);
      });
    }
  }

  for (const { delay, grace, seconds } of [
    { delay: '5s', grace: '20s', seconds: 40 },
    { delay: '0', grace: '0s', seconds: 15 },
    { delay: '250ms', grace: '0.5s', seconds: 16 },
    { delay: '1m', grace: '0.05h', seconds: 255 },
  ]) {
    test(`a drain of ${delay} and ${grace} has ${seconds} s before Kubernetes kills`, async (t) => {
      if (await skipWithout(t, 'helm', helm)) return;
      const manifests = await render('greeter', '--set-string', `drain.delay=${delay},drain.grace=${grace}`);
      assert.equal(find(manifests, 'Deployment').spec.template.spec.terminationGracePeriodSeconds, seconds);
    });
  }

  for (const { memory, options } of [
    { memory: '256Mi', options: '--max-old-space-size=153' },
    { memory: '1.5Gi', options: '--max-old-space-size=921' },
    { memory: '1G', options: '--max-old-space-size=571' },
    { memory: '536870912', options: '--max-old-space-size=307' },
    { memory: 'null', options: undefined },
  ]) {
    test(`a memory limit of ${memory} gives Node ${options ?? 'the choice'}`, async (t) => {
      if (await skipWithout(t, 'helm', helm)) return;
      const manifests = await render('greeter', '--set', `resources.limits.memory=${memory}`);
      assert.equal(variables(manifests).get('NODE_OPTIONS'), options);
    });
  }

  for (const { chart, settings } of [
    { chart: 'greeter', settings: greeterSettings },
    { chart: 'gateway', settings: gatewaySettings },
  ]) {
    test(`become variables that the ${chart} knows, and its ports`, async (t) => {
      if (await skipWithout(t, 'helm', helm)) return;
      const known = new Set(Object.values(settings).flatMap((setting) => ('env' in setting ? [setting.env] : [])));
      const set = 'tls.enabled=true,tls.secretName=x,tracing.endpoint=http://x:1';
      const manifests = await render(chart, '--set', set);
      const foreign = [...variables(manifests).keys()].filter((name) => !known.has(name) && !name.startsWith('OTEL_'));
      assert.deepEqual(foreign, ['NODE_OPTIONS']);
      const [container] = find(manifests, 'Deployment').spec.template.spec.containers;
      const ports = container.ports.map(({ containerPort }: Manifest) => containerPort);
      assert.deepEqual(ports, [settings.port.default, settings.adminPort.default]);
    });
  }
});

suite('the gateway', () => {
  for (const name of ['default', 'backup', 'exposed']) {
    test(`takes the file that its chart writes for ${name}`, async (t) => {
      const rendered = cases.find((candidate) => candidate.name === `gateway ${name}`);
      assert.ok(rendered);
      const file = temporaryFile(t, 'gateway.yaml');
      writeFileSync(file, find(manifestsIn(goldenOf(rendered)), 'ConfigMap').data['gateway.yaml']);
      const { code, stderr } = await runProgramFile('services/gateway/main.ts', ['--config', file, '--check-config']);
      assert.equal(code, 0, stderr);
    });
  }

  test('is rolled by a change of its file, and by nothing else', async (t) => {
    if (await skipWithout(t, 'helm', helm)) return;
    const podOf = async (...args: string[]) => find(await render('gateway', ...args), 'Deployment').spec.template;
    const before = await podOf();
    assert.notDeepEqual(await podOf('--set', 'backup=greeter-backup'), before);
    assert.deepEqual(await podOf('--set', 'replicas=7,service.port=80,networkPolicy.enabled=true'), before);
  });

  test('may read EndpointSlices in the namespaces of its targets, and has no token without any', async (t) => {
    if (await skipWithout(t, 'helm', helm)) return;
    const manifests = await render('gateway', '--set', 'backup=greeter-backup.spare');
    const roles = manifests.filter(({ kind }) => kind === 'Role');
    assert.deepEqual(
      roles.map(({ metadata }) => [metadata.namespace, metadata.name]),
      [
        [namespace, 'gateway'],
        ['spare', `${namespace}-gateway`],
      ],
    );
    for (const { rules } of roles) {
      const resources = ['endpointslices'];
      assert.deepEqual(rules, [{ apiGroups: ['discovery.k8s.io'], resources, verbs: ['get', 'list', 'watch'] }]);
    }
    const set = 'config.upstreams[0].name=a,config.upstreams[0].targets[0]=dns:///a:50051';
    const without = await render('gateway', '--set', set);
    assert.equal(find(without, 'Deployment').spec.template.spec.automountServiceAccountToken, false);
    assert.deepEqual(
      without.filter(({ kind }) => kind.startsWith('Role')),
      [],
    );
  });
});

test('charts have the version of the project', () => {
  const { version } = JSON.parse(readFileSync(projectFile('package.json'), 'utf8'));
  for (const chart of ['common', 'greeter', 'gateway']) {
    const about = parse(readFileSync(projectFile(`helm/${chart}/Chart.yaml`), 'utf8'));
    assert.equal(about.version, version);
    if (chart === 'common') continue;
    assert.equal(about.appVersion, version);
    assert.deepEqual(about.dependencies, [{ name: 'common', version }]);
  }
});

function temporaryFile(t: TestContext, name: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'tandem-helm-'));
  t.after(() => rmSync(directory, { recursive: true }));
  return join(directory, name);
}
