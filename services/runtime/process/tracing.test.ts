import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, it, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

interface Span {
  readonly name: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
}

const program = fileURLToPath(new URL('testdata/traced-work.ts', import.meta.url));

describe('tracing', { concurrency: true, timeout: 60_000 }, () => {
  const off: [string, Record<string, string>][] = [
    ['no variable asks for it', {}],
    ['the SDK is disabled', { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1', OTEL_SDK_DISABLED: 'true' }],
    ['the exporter is none', { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1', OTEL_TRACES_EXPORTER: 'none' }],
  ];
  for (const [when, env] of off) {
    it(`is off and loads nothing of the SDK when ${when}`, async () => {
      const lines = await run(env);
      assert.partialDeepStrictEqual(lines.get('started'), { enabled: false, sdk: false });
      assert.equal(lines.get('working')?.trace_id, undefined);
    });
  }

  it('sends the spans, in the trace that the log names', async (t) => {
    const collector = await startCollector(t);
    const lines = await run(collector.env);
    assert.partialDeepStrictEqual(lines.get('started'), { enabled: true, sdk: true });
    const spans = collector.spans();
    assert.deepEqual(spans.map(({ name }) => name).toSorted(), ['inner', 'outer']);
    const outer = spans.find(({ name }) => name === 'outer');
    const inner = spans.find(({ name }) => name === 'inner');
    assert.equal(inner?.parentSpanId, outer?.spanId);
    assert.partialDeepStrictEqual(lines.get('working'), { trace_id: outer?.traceId, span_id: outer?.spanId });
    assert.deepEqual(lines.get('stopped')?.dropped, {});
    assert.deepEqual(collector.paths, new Set(['/v1/traces']), 'neither metrics nor logs are sent');
    assert.partialDeepStrictEqual(collector.resource(), {
      'service.name': 'fixture',
      'service.instance.id': 'pod-1',
    });
  });

  it('lets the environment name the service', async (t) => {
    const collector = await startCollector(t);
    await run({ ...collector.env, OTEL_SERVICE_NAME: 'named', OTEL_RESOURCE_ATTRIBUTES: 'k8s.namespace.name=shop' });
    assert.partialDeepStrictEqual(collector.resource(), {
      'service.name': 'named',
      'service.instance.id': 'pod-1',
      'k8s.namespace.name': 'shop',
    });
  });

  it('samples as the environment says', async (t) => {
    const collector = await startCollector(t);
    const env = { OTEL_TRACES_SAMPLER: 'parentbased_traceidratio', OTEL_TRACES_SAMPLER_ARG: '0' };
    await run({ ...collector.env, ...env });
    assert.deepEqual(collector.spans(), []);
  });

  it('counts what the bounded queue has no room for', async (t) => {
    const collector = await startCollector(t);
    const lines = await run({ ...collector.env, OTEL_BSP_MAX_QUEUE_SIZE: '10', SPANS: '25' });
    // The first ten leave at once, as they fill a batch; the next ten find room.
    assert.deepEqual(lines.get('stopped')?.dropped, { queue_full: 5 });
    assert.equal(collector.spans().length, 20);
  });

  for (const protocol of ['grpc', 'http/protobuf', 'http/json']) {
    it(`counts what a collector that is down does not take (${protocol})`, async () => {
      const lines = await run({
        OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1',
        OTEL_EXPORTER_OTLP_PROTOCOL: protocol,
        OTEL_EXPORTER_OTLP_TIMEOUT: '500',
        OTEL_LOG_LEVEL: 'error',
      });
      const { stopMs, dropped } = lines.get('stopped') ?? {};
      assert.deepEqual(Object.values(dropped as Record<string, number>), [2]);
      assert.ok(Number(stopMs) < 5_500);
    });
  }

  it('stops within 5 seconds when the collector never answers', async (t) => {
    const collector = await startCollector(t, () => {});
    const lines = await run(collector.env);
    assert.ok(Number(lines.get('stopped')?.stopMs) < 5_500);
  });
});

/** Runs the fixture to its end; its log lines by message. Rejects if it fails or writes to stderr. */
async function run(env: Record<string, string>): Promise<Map<unknown, Record<string, unknown>>> {
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [program], { env });
  assert.equal(stderr, '');
  const lines = stdout.trimEnd().split('\n');
  return new Map(lines.map((line) => JSON.parse(line) as Record<string, unknown>).map((line) => [line.msg, line]));
}

/** A stand-in for an OpenTelemetry collector: OTLP over HTTP as JSON, kept in memory. */
async function startCollector(t: TestContext, listener?: RequestListener) {
  const bodies: { resourceSpans: { resource: { attributes: Attribute[] }; scopeSpans: { spans: Span[] }[] }[] }[] = [];
  const paths = new Set<string | undefined>();
  const collect: RequestListener = async (request, response) => {
    paths.add(request.url);
    bodies.push(JSON.parse((await request.setEncoding('utf8').toArray()).join('')));
    response.setHeader('content-type', 'application/json').end('{}');
  };
  const server = createServer(listener ?? collect).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  const resourceSpans = () => bodies.flatMap((body) => body.resourceSpans);
  return {
    env: {
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json',
    },
    paths,
    spans: () => resourceSpans().flatMap(({ scopeSpans }) => scopeSpans.flatMap(({ spans }) => spans)),
    resource: () =>
      Object.fromEntries(
        (resourceSpans()[0]?.resource.attributes ?? []).map(({ key, value }) => [key, Object.values(value)[0]]),
      ),
  };
}

interface Attribute {
  readonly key: string;
  readonly value: Readonly<Record<string, unknown>>;
}
