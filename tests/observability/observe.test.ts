import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { globSync, readFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { basename } from 'node:path';
import { text } from 'node:stream/consumers';
import test from 'node:test';
import { projectFile, run, skipWithout } from '../harness/command.ts';
import { eventually } from '../harness/eventually.ts';
import { freePorts } from '../harness/jaeger.ts';
import { startLab } from '../harness/lab-fixture.ts';

const main = projectFile('services/lab/observe/main.ts');

/** In the lab nobody speaks TLS. */
const ofTls = ['TLS files that could not be used', 'TLS handshakes that failed'];

test('make observe has all programs of the lab scraped, all rules evaluated and a trace kept, and leaves nothing', async (t) => {
  if (await skipWithout(t, 'prometheus', ['--version'])) return;
  if (await skipWithout(t, 'jaeger', ['version'])) return;
  const jaeger = await freePortsInARow(6);
  const [otlp, prometheus, admin] = [jaeger + 1, jaeger + 2, jaeger + 3];
  const { PATH, HOME, TMPDIR } = process.env;
  const observe = spawn(process.execPath, [main], {
    env: {
      PATH,
      HOME,
      TMPDIR,
      ADMIN_PORT: `${admin}`,
      PROMETHEUS_PORT: `${prometheus}`,
      JAEGER_PORT: `${jaeger}`,
      OTLP_PORT: `${otlp}`,
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exited = once(observe, 'exit');
  t.after(async () => {
    if (observe.exitCode === null) observe.kill('SIGTERM');
    await exited;
  });
  const { gatewayPort } = await startLab(t, {
    replicas: 2,
    ports: { gateway: 0, admin, greeter: 0 },
    env: { OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${otlp}`, OTEL_BSP_SCHEDULE_DELAY: '100' },
  });
  const get = (url: string, headers = {}) => fetch(url, { headers: { connection: 'close', ...headers } });
  const ask = async (path: string) => {
    const { data } = (await (await get(`http://127.0.0.1:${prometheus}/api/v1/${path}`)).json()) as { data: Data };
    return data;
  };
  const [said] = (await once(observe.stdout.setEncoding('utf8'), 'data')) as [string];
  assert.match(said, new RegExp(`^Jaeger +http://localhost:${jaeger} .*\nPrometheus +http://localhost:${prometheus}/`));

  const traceId = '2af7651916cd43dd8448eb211c80319c';
  const traceparent = `00-${traceId}-b7ad6b7169203331-01`;
  assert.equal((await get(`http://127.0.0.1:${gatewayPort()}/v1/hello/Ada`, { traceparent })).status, 200);
  await eventually(
    'Jaeger has the trace',
    async () => (await (await get(`http://127.0.0.1:${jaeger}/api/traces/${traceId}`)).text()).includes('SayHello'),
    { timeoutMs: 30_000 },
  );
  let state = '';
  await eventually(
    () => `all targets are up, and all rules evaluated and silent: ${state}`,
    async () => {
      const { activeTargets = [] } = await ask('targets?state=active');
      const rules = ((await ask('rules')).groups ?? []).flatMap(({ rules }) => rules);
      const up = activeTargets.map(({ labels: { job, pod }, health }) => `${job} ${pod} ${health}`).toSorted();
      const bad = rules.filter(({ health }) => health !== 'ok').map(({ name, lastError }) => `${name} ${lastError}`);
      const alerts = ((await ask('alerts')).alerts ?? []).map(({ labels }) => labels.alertname);
      state = JSON.stringify({ up, bad, alerts });
      return (
        rules.length > 30 &&
        state === '{"up":["gateway gateway up","greeter a up","greeter b up"],"bad":[],"alerts":[]}'
      );
    },
    { timeoutMs: 60_000 },
  );

  let silent: string[] = [];
  await eventually(
    () => `the dashboards are answered: ${silent.join(', ')}`,
    async () => {
      silent = [];
      for (const { dashboard, title, expr } of readPanels()) {
        const query = expr.replaceAll('$__rate_interval', '1m').replaceAll(/\$\w+/g, '.*');
        const { result } = await ask(`query?query=${encodeURIComponent(query)}`);
        assert.ok(result, `${title}: Prometheus cannot answer ${query}`);
        // Some of the others have nothing to say: no request has failed.
        const isHeard = ['channel', 'runtime'].includes(dashboard) && !ofTls.includes(title);
        if (isHeard && result.length === 0) silent.push(title);
      }
      return silent.length === 0;
    },
    { timeoutMs: 40_000 },
  );

  observe.kill('SIGINT');
  assert.deepEqual(await exited, [0, null]);
  const { stdout } = await run('ps', ['-eo', 'args=']);
  assert.doesNotMatch(stdout, new RegExp(`^prometheus .*127.0.0.1:${prometheus}`, 'm'));
});

test('make observe says which port is busy, and how to change it', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const { port: busy } = server.address() as AddressInfo;
  const { PATH, HOME } = process.env;
  const observe = spawn(process.execPath, [main], { env: { PATH, HOME, JAEGER_PORT: `${busy}` }, stdio: 'pipe' });
  const [said, [code]] = await Promise.all([text(observe.stderr), once(observe, 'exit')]);
  assert.equal(code, 1);
  assert.match(said, new RegExp(`port ${busy} for Jaeger is busy: free it or set JAEGER_PORT`));
});

test('make observe says what is not installed', async () => {
  const [prometheus, jaeger, otlp] = await freePorts(3);
  const { code, stdout, stderr } = await run(process.execPath, [main], {
    env: { PATH: '/nowhere', PROMETHEUS_PORT: `${prometheus}`, JAEGER_PORT: `${jaeger}`, OTLP_PORT: `${otlp}` },
  });
  assert.equal(code, 1);
  assert.match(stdout, /^Jaeger +is not installed .*\nPrometheus +is not installed /);
  assert.equal(stderr, 'observe: there is nothing to start\n');
});

interface Data {
  readonly activeTargets?: readonly { readonly labels: Readonly<Record<string, string>>; readonly health: string }[];
  readonly groups?: readonly {
    readonly rules: readonly { readonly name: string; readonly health: string; readonly lastError?: string }[];
  }[];
  readonly alerts?: readonly { readonly labels: Readonly<Record<string, string>> }[];
  readonly result?: readonly unknown[];
}

interface Panel {
  readonly title: string;
  readonly targets?: readonly { readonly expr: string }[];
}

function readPanels(): { dashboard: string; title: string; expr: string }[] {
  return globSync(projectFile('deploy/observability/dashboards/*.json')).flatMap((file) =>
    (JSON.parse(readFileSync(file, 'utf8')) as { panels: Panel[] }).panels.flatMap(({ title, targets = [] }) =>
      targets.map(({ expr }) => ({ dashboard: basename(file, '.json'), title, expr })),
    ),
  );
}

/** The first of so many ports in a row that nobody listens to, below those that the system gives away. */
async function freePortsInARow(count: number): Promise<number> {
  const first = randomInt(20_000, 30_000);
  const servers = Array.from({ length: count }, () => createServer());
  const opened = await Promise.allSettled(
    servers.map((server, index) => once(server.listen(first + index, '127.0.0.1'), 'listening')),
  );
  await Promise.all(servers.map((server) => new Promise((resolve) => void server.close(resolve))));
  return opened.every(({ status }) => status === 'fulfilled') ? first : freePortsInARow(count);
}
