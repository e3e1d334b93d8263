import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { greeterCertificate } from '../../services/runtime/channel/testing/certificates.ts';
import { startChild } from '../../services/lab/child.ts';
import { projectFile, run, skipWithout } from '../harness/command.ts';
import { readDocumentedMetrics } from '../harness/documented-metrics.ts';
import { eventually } from '../harness/eventually.ts';

const secret = 's3cret-0af7651916';

type Line = Readonly<Record<string, unknown>>;

interface Program {
  readonly port: number;
  readonly adminPort: number;
  readonly lines: readonly string[];
  metrics(accept?: string): Promise<string>;
}

async function startProgram(t: TestContext, name: string, env: Record<string, string>): Promise<Program> {
  const lines: string[] = [];
  const child = startChild({
    name,
    entry: projectFile(`services/${name}/main.ts`),
    env: { HOST: '127.0.0.1', PORT: '0', ADMIN_PORT: '0', DRAIN_DELAY: '0', LOG_FORMAT: 'json', ...env },
    onLine: (line) => lines.push(line),
  });
  t.after(() => child.stop(10_000));
  const { port, adminPort } = await child.ready(60_000);
  return {
    port,
    adminPort,
    lines,
    async metrics(accept = 'text/plain') {
      const reply = await fetch(`http://127.0.0.1:${adminPort}/metrics`, { headers: { accept, connection: 'close' } });
      return reply.text();
    },
  };
}

/** A greeter and a gateway with a configuration in which each stage has something to do. */
async function startPair(t: TestContext, env: Record<string, string> = {}) {
  const directory = mkdtempSync(join(tmpdir(), 'tandem-observability-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const write = (name: string, content: string) => {
    const path = join(directory, name);
    writeFileSync(path, content);
    return path;
  };
  const tls = {
    TLS_CERT: write('tls.crt', greeterCertificate.cert),
    TLS_KEY: write('tls.key', greeterCertificate.key),
  };
  const greeter = await startProgram(t, 'greeter', { ...env, ...tls });
  const config = write(
    'gateway.yaml',
    `upstreams:
  - name: greeter
    targets: ['ipv4:127.0.0.1:${greeter.port}']
    tls: { ca: tls.crt, serverName: greeter.example }
auth:
  - { name: example, issuer: 'https://issuer.example', audiences: [api], jwks: 'http://127.0.0.1:9/jwks.json' }
policies:
  - { name: [{}], auth: anonymous, quota: { requests: 1000000, per: 1m, key: 'header:x-api-key' } }
  - { name: [{ service: helloworld.Greeter, method: SayHelloBidiStream }], auth: { provider: example } }
`,
  );
  const redis = { QUOTA_REDIS_URL: `redis://:${secret}@127.0.0.1:9` };
  const gateway = await startProgram(t, 'gateway', { ...env, ...redis, GATEWAY_CONFIG: config });
  const send = async (path: string, init: RequestInit = {}) => {
    const headers = { connection: 'close', ...(init.headers as Record<string, string>) };
    const reply = await fetch(`http://127.0.0.1:${gateway.port}${path}`, { ...init, headers });
    await reply.text();
    return reply;
  };
  return { greeter, gateway, send };
}

interface Family {
  readonly type: string;
  readonly labels: ReadonlySet<string>;
  readonly series: number;
}

/** The families of metrics in Prometheus's text. */
function readFamilies(text: string): Map<string, Family> {
  const families = new Map<string, { type: string; labels: Set<string>; series: number }>();
  for (const [, name = '', type = ''] of text.matchAll(/^# TYPE (\S+) (\S+)$/gm)) {
    families.set(name, { type, labels: new Set(), series: 0 });
  }
  for (const [, sample = '', labels = ''] of text.matchAll(/^(\w+)(?:\{(.*)\})? \S+$/gm)) {
    const family = families.get(sample) ?? families.get(sample.replace(/_(bucket|sum|count)$/, ''));
    assert.ok(family, `${sample} is of no family`);
    family.series++;
    for (const [, label = ''] of labels.matchAll(/(\w+)="(?:[^"\\]|\\.)*"/g)) family.labels.add(label);
  }
  return families;
}

/** Reads of /proc, which only Linux has. */
const onlyOnLinux = /^process_(virtual_memory_bytes|heap_bytes|open_fds|max_fds)$/;

test('docs/observability.md has each metric of both programs, and none that they do not have', async (t) => {
  const { greeter, gateway, send } = await startPair(t);
  await send('/v1/hello/Ada');
  await send('/v1/hello/Ada/stream?replyCount=2');
  const documented = readDocumentedMetrics();
  const both = documented.get('Both') ?? assert.fail('there is no table of both');
  for (const [program, heading] of [
    [gateway, 'Gateway'],
    [greeter, 'Greeter'],
  ] as const) {
    const text = await program.metrics();
    await t.test(`of the ${heading.toLowerCase()}`, () => {
      const expected = new Map([...(documented.get(heading) ?? []), ...both]);
      const families = readFamilies(text);
      const names = [...expected.keys()].filter((name) => process.platform === 'linux' || !onlyOnLinux.test(name));
      assert.deepEqual([...families.keys()].toSorted(), names.toSorted());
      for (const [name, { type, labels }] of families) {
        assert.equal(type, expected.get(name)?.type, name);
        const known = new Set([...(expected.get(name)?.labels ?? []), ...(type === 'histogram' ? ['le'] : [])]);
        assert.deepEqual(
          [...labels].filter((label) => !known.has(label)),
          [],
          name,
        );
      }
    });
    await t.test(`promtool finds nothing wrong with the ${heading.toLowerCase()}'s`, async (t) => {
      if (await skipWithout(t, 'promtool', ['--version'])) return;
      const { code, stdout, stderr } = await run('promtool', ['check', 'metrics'], { input: text });
      assert.deepEqual([code, stdout, stderr], [0, '', '']);
    });
  }
});

test('no client makes metrics grow', async (t) => {
  const { greeter, gateway, send } = await startPair(t);
  const storm = async (round: string) => {
    for (let i = 0; i < 40; i++) {
      const id = `${round}${i}`;
      const headers = {
        'x-request-id': id,
        'user-agent': id,
        [`x-made-up-${id}`]: id,
        traceparent: `00-${id.padEnd(32, 'a').replaceAll(/[^0-9a-f]/g, 'b')}-b7ad6b7169203331-01`,
        'accept-language': id,
        'x-api-key': id,
        host: `${id}.example`,
      };
      await Promise.all([
        send(`/v1/hello/${id}?${id}=${id}`, { headers }),
        send(`/${id}/${id}`, { headers }),
        send(`/v1/hello/${'x'.repeat(1_025)}${id}`, { headers }),
        send('/v1/hello', { method: i % 2 === 0 ? 'DELETE' : `M${id}`, headers }),
        send('/v1/hello', { method: 'POST', headers: { ...headers, 'content-type': `application/${id}` }, body: id }),
        send('/v1/hello:chat', { method: 'POST', headers: { ...headers, authorization: `Bearer ${id}` }, body: '' }),
        send(`/helloworld.Greeter/${id}`, { method: 'POST', headers }),
      ]);
    }
  };
  const countSeries = async () =>
    [gateway, greeter].map(async (program) =>
      [...readFamilies(await program.metrics())]
        // What Node says of its sockets and collections has as many types as Node has.
        .filter(([name]) => !/^nodejs_(active|gc)_/.test(name))
        .reduce((sum, [, { series }]) => sum + series, 0),
    );
  await storm('a');
  const before = await Promise.all(await countSeries());
  await storm('b');
  const after = await Promise.all(await countSeries());
  assert.deepEqual(after, before);
  assert.ok(
    before.every((series) => series < 1_500),
    `${before.join(' and ')} series`,
  );
  for (const program of [gateway, greeter]) assert.doesNotMatch(await program.metrics(), /[ab]3[0-9]\b/);
});

test('the histograms of latency lead to traces, for a scraper that asks for OpenMetrics', async (t) => {
  const { greeter, gateway, send } = await startPair(t, { OTEL_TRACES_EXPORTER: 'console' });
  const traceId = '0af7651916cd43dd8448eb211c80319c';
  await send('/v1/hello/Ada', { headers: { traceparent: `00-${traceId}-b7ad6b7169203331-01` } });
  const openMetrics = 'application/openmetrics-text;version=1.0.0,text/plain;q=0.5';
  for (const [program, name] of [
    [gateway, 'http_server_request_duration_seconds'],
    [greeter, 'grpc_server_call_duration_seconds'],
  ] as const) {
    const exemplar = new RegExp(`^${name}_bucket\\{.*\\} 1 # \\{trace_id="${traceId}"\\} [\\d.e-]+ [\\d.]+$`, 'm');
    await eventually('the exemplar is there', async () => exemplar.test(await program.metrics(openMetrics)));
    assert.doesNotMatch(await program.metrics(), new RegExp(traceId));
  }
});

test('a request has one line in each log, by the same names, and the level changes while they run', async (t) => {
  const { greeter, gateway, send } = await startPair(t, { ACCESS_LOG_RATIO: '1' });
  const traceId = '1af7651916cd43dd8448eb211c80319c';
  const linesOf = (program: Program, requestId: string): Line[] =>
    program.lines.map((line) => JSON.parse(line) as Line).filter((line) => line.requestId === requestId);
  const headers = { 'x-request-id': 'first', traceparent: `00-${traceId}-b7ad6b7169203331-01` };
  assert.equal((await send('/v1/hello/Ada', { headers })).status, 200);
  const programs = [gateway, greeter];
  await eventually('both have logged it', () => programs.every((program) => linesOf(program, 'first').length > 0));
  const [atGateway, atGreeter] = programs.map((program) => linesOf(program, 'first'));
  const shared = { level: 'info', trace_id: traceId, grpcMethod: 'helloworld.Greeter/SayHello', grpcCode: 'OK' };
  assert.equal(atGateway?.length, 1);
  assert.equal(atGreeter?.length, 1);
  assert.partialDeepStrictEqual(atGreeter?.[0], { ...shared, service: 'greeter', msg: 'call' });
  assert.partialDeepStrictEqual(atGateway?.[0], {
    ...shared,
    service: 'gateway',
    method: 'GET',
    path: '/v1/hello/Ada',
    route: '/v1/hello/{name}',
    code: 200,
    upstream: 'greeter',
    attempts: 1,
    replica: `127.0.0.1:${greeter.port}`,
    msg: 'request',
  });
  const documented = readFileSync(projectFile('docs/observability.md'), 'utf8').split('\n## Logs')[1] ?? '';
  for (const field of Object.keys({ ...atGateway?.[0], ...atGreeter?.[0] })) {
    if (['level', 'time', 'service', 'msg', 'span_id'].includes(field)) continue;
    assert.ok(documented.includes(`\`${field}\``), `${field} is not documented`);
  }

  for (const { adminPort } of programs) {
    const reply = await fetch(`http://127.0.0.1:${adminPort}/loglevel`, {
      method: 'PUT',
      headers: { 'content-type': 'application/json', connection: 'close' },
      body: '{"level": "warn"}',
    });
    assert.deepEqual(await reply.json(), { level: 'warn' });
  }
  await send('/v1/hello/Ada', { headers: { 'x-request-id': 'second' } });
  assert.equal((await send('/v1/nothing', { headers: { 'x-request-id': 'second' } })).status, 404);
  assert.deepEqual(
    programs.flatMap((program) => linesOf(program, 'second')),
    [],
  );
});

test('what is secret is logged at no level', async (t) => {
  const { greeter, gateway, send } = await startPair(t, { LOG_LEVEL: 'trace', ACCESS_LOG_RATIO: '1' });
  const headers = {
    authorization: `Bearer ${secret}`,
    cookie: `session=${secret}`,
    'proxy-authorization': `Basic ${secret}`,
    'x-api-key': secret,
    'x-made-up': secret,
    'grpc-metadata-x-token': secret,
  };
  const body = JSON.stringify({ name: secret });
  const json = { 'content-type': 'application/json' };
  const statuses = [
    await send('/v1/hello/Ada', { headers }),
    await send(`/v1/hello/Ada?access_token=${secret}`, { headers }),
    await send(`/v1/hello/Ada/stream?replyCount=2&name=${secret}`, { headers }),
    await send('/v1/hello', { method: 'POST', headers: { ...headers, ...json }, body }),
    await send('/v1/hello', { method: 'POST', headers: { ...headers, ...json }, body: `${secret} is no JSON` }),
    await send('/v1/hello:chat', { method: 'POST', headers: { ...headers, ...json }, body }),
    await send(`/v1/nothing?token=${secret}`, { headers }),
    await send('/v1/hello/Ada', { headers: { ...headers, 'grpc-metadata-authorization': secret } }),
  ].map(({ status }) => status);
  assert.ok(statuses.includes(200) && statuses.includes(400) && statuses.includes(404), statuses.join(' '));
  const requests = () => gateway.lines.filter((line) => line.includes('"msg":"request"'));
  await eventually('all are logged', () => requests().length >= statuses.length);
  const leaks = [...gateway.lines, ...greeter.lines].filter((line) => line.includes(secret));
  assert.deepEqual(leaks, []);
});
