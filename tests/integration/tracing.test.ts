import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';
import test, { type TestContext } from 'node:test';
import { createHttpCaller } from '../harness/http-caller.ts';
import { startLab } from '../harness/lab-fixture.ts';

interface Span {
  readonly service: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  /** 2 is SERVER, 3 is CLIENT. */
  readonly kind: number;
}

/** The part of an OTLP request in JSON that is looked at. */
interface ExportRequest {
  readonly resourceSpans: readonly {
    readonly resource: {
      readonly attributes: readonly { readonly key: string; readonly value: { readonly stringValue: string } }[];
    };
    readonly scopeSpans: readonly { readonly spans: readonly Omit<Span, 'service'>[] }[];
  }[];
}

/** A collector that keeps what it is sent. */
async function startCollector(t: TestContext) {
  const spans: Span[] = [];
  const server = createServer(async (request, response) => {
    const { resourceSpans } = (await json(request)) as ExportRequest;
    for (const { resource, scopeSpans } of resourceSpans) {
      const service = resource.attributes.find(({ key }) => key === 'service.name')?.value.stringValue ?? '';
      for (const span of scopeSpans.flatMap((scope) => scope.spans)) spans.push({ ...span, service });
    }
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return { spans, endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

test('a request is one trace from the gateway to the greeter, all of it sent before the exit', async (t) => {
  const { spans, endpoint } = await startCollector(t);
  const env = { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json' };
  const { lab, use, gatewayPort } = await startLab(t, { replicas: 1, env });
  assert.equal((await use(createHttpCaller([gatewayPort()])).get('/v1/hello/world')).code, 'OK');
  await lab.stop();

  const calls = spans.filter(({ name }) => !name.includes('grpc.health.v1'));
  const described = calls.map(({ service, kind }) => `${service} ${kind === 2 ? 'SERVER' : 'CLIENT'}`);
  assert.deepEqual(described.toSorted(), ['gateway CLIENT', 'gateway SERVER', 'greeter SERVER']);
  assert.equal(new Set(calls.map(({ traceId }) => traceId)).size, 1);
  const [server, client, greeter] = ['gateway SERVER', 'gateway CLIENT', 'greeter SERVER'].map(
    (which) => calls[described.indexOf(which)],
  );
  assert.equal(server?.parentSpanId ?? '', '');
  assert.equal(client?.parentSpanId, server?.spanId);
  assert.equal(greeter?.parentSpanId, client?.spanId);
});
