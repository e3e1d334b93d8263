import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { jaegerConfig } from '../../services/lab/observe/jaeger-config.ts';
import { eventually } from './eventually.ts';
import type { AttributeValue, Span } from './spans.ts';

/** A Jaeger of its own, with its traces in memory. */
export interface Jaeger {
  /** Where it takes OTLP, by protocol. */
  readonly endpoints: { readonly grpc: string; readonly 'http/protobuf': string };
  /** The spans of a trace as far as they have come. */
  spansOf(traceId: string): Promise<Span[]>;
}

/** Starts the `jaeger` of the PATH (2.x, https://www.jaegertracing.io/docs/latest/) and stops it after the test. */
export async function startJaeger(t: TestContext): Promise<Jaeger> {
  const [grpc, http, query] = (await freePorts(3)) as [number, number, number];
  const folder = await mkdtemp(join(tmpdir(), 'tandem-jaeger-'));
  const config = join(folder, 'jaeger.json');
  await writeFile(config, jaegerConfig({ otlpGrpc: grpc, otlpHttp: http, query }, 1_000));
  const child = spawn('jaeger', ['--config', config], { stdio: 'ignore' });
  const exited = once(child, 'exit');
  t.after(async () => {
    child.kill('SIGKILL');
    await exited;
    await rm(folder, { recursive: true });
  });
  // Else connections are kept for a while, and look like ones that the test forgot.
  const get = (path: string) => fetch(`http://127.0.0.1:${query}${path}`, { headers: { connection: 'close' } });
  await eventually(
    'Jaeger answers',
    async () => {
      if (child.exitCode !== null) throw new Error(`jaeger ended with ${child.exitCode}`);
      return get('/api/services').then(
        (response) => response.ok,
        () => false,
      );
    },
    { timeoutMs: 60_000 },
  );

  return {
    endpoints: { grpc: `http://127.0.0.1:${grpc}`, 'http/protobuf': `http://127.0.0.1:${http}` },
    async spansOf(traceId) {
      const response = await get(`/api/traces/${traceId}`);
      if (response.status === 404) return [];
      return readTrace((await response.json()) as TraceReply);
    },
  };
}

interface Tag {
  readonly key: string;
  readonly value: AttributeValue;
}

interface JaegerSpan {
  readonly traceID: string;
  readonly spanID: string;
  readonly operationName: string;
  readonly startTime: number;
  readonly references: readonly { readonly refType: string; readonly spanID: string }[];
  readonly tags: readonly Tag[];
  readonly processID: string;
}

type Processes = Readonly<Record<string, { readonly serviceName: string; readonly tags: readonly Tag[] }>>;

/** What Jaeger answers for `/api/traces/ID`. */
export interface TraceReply {
  readonly data?: readonly { readonly spans: readonly JaegerSpan[]; readonly processes: Processes }[];
}

/** The spans of a trace that Jaeger has answered with. */
export function readTrace({ data }: TraceReply): Span[] {
  return (data ?? []).flatMap(({ spans, processes }) => spans.map((span) => toSpan(span, processes)));
}

function toSpan(span: JaegerSpan, processes: Processes): Span {
  const { serviceName = '', tags = [] } = processes[span.processID] ?? {};
  const instance = tags.find(({ key }) => key === 'service.instance.id')?.value;
  const attributes = new Map(span.tags.map(({ key, value }) => [key, value]));
  return {
    process: serviceName === instance ? serviceName : `${serviceName} ${String(instance)}`,
    traceId: span.traceID,
    spanId: span.spanID,
    parentSpanId: span.references.find(({ refType }) => refType === 'CHILD_OF')?.spanID ?? '',
    name: span.operationName,
    startUs: span.startTime,
    kind: String(attributes.get('span.kind')).toUpperCase(),
    attributes,
  };
}

/** Ports that nobody listened to just now. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(servers.map((server) => once(server, 'listening')));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => once(server.close(), 'close')));
  return ports;
}
