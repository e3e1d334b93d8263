import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';
import type { TestContext } from 'node:test';
import type { AttributeValue, Span } from './spans.ts';

interface KeyValue {
  readonly key: string;
  readonly value: Readonly<Record<string, AttributeValue>>;
}

/** The part of an OTLP request in JSON that is looked at. */
export interface ExportRequest {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: readonly KeyValue[] };
    readonly scopeSpans: readonly {
      readonly spans: readonly {
        readonly traceId: string;
        readonly spanId: string;
        readonly parentSpanId?: string;
        readonly name: string;
        readonly kind: number;
        readonly startTimeUnixNano: string;
        readonly attributes: readonly KeyValue[];
      }[];
    }[];
  }[];
}

const kinds = ['UNSPECIFIED', 'INTERNAL', 'SERVER', 'CLIENT'];

/** The spans of an OTLP request in JSON. */
export function readSpans(request: ExportRequest): Span[] {
  return request.resourceSpans.flatMap(({ resource, scopeSpans }) => {
    const { 'service.name': service, 'service.instance.id': instance } = Object.fromEntries(toMap(resource.attributes));
    const process = service === instance ? `${service}` : `${service} ${instance}`;
    return scopeSpans.flatMap(({ spans }) =>
      spans.map((span) => ({
        ...span,
        process,
        parentSpanId: span.parentSpanId ?? '',
        kind: kinds[span.kind] ?? '',
        startUs: Number(span.startTimeUnixNano) / 1_000,
        attributes: toMap(span.attributes),
      })),
    );
  });
}

function toMap(attributes: readonly KeyValue[]): Map<string, AttributeValue> {
  return new Map(
    attributes.map(({ key, value }) => {
      const [[type, inside] = ['', '']] = Object.entries(value);
      return [key, type === 'intValue' ? Number(inside) : inside];
    }),
  );
}

/** A collector that keeps what it is sent. */
export async function startCollector(
  t: TestContext,
): Promise<{ readonly spans: readonly Span[]; readonly env: Record<string, string> }> {
  const spans: Span[] = [];
  const server = createServer(async (request, response) => {
    spans.push(...readSpans((await json(request)) as ExportRequest));
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  return {
    spans,
    env: { OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}`, OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json' },
  };
}
