import { randomFillSync } from 'node:crypto';
import type { Attributes, SpanKind } from '@opentelemetry/api';
import { type AdminHandler, RequestError } from './admin.ts';

/** A span as it is shown. Times are milliseconds since 1970. */
export interface KeptSpan {
  readonly spanId: string;
  readonly parentSpanId: string | undefined;
  readonly name: string;
  readonly kind: SpanKind;
  readonly startMs: number;
  /** Undefined while it goes on. */
  readonly endMs: number | undefined;
  readonly attributes: Attributes;
  /** What went wrong; empty where there are no words for it, undefined where nothing did. */
  readonly error: string | undefined;
}

/** This process's part of one trace. It is cheap to make: its spans are put together only when somebody looks. */
export interface KeptTrace {
  readonly traceId: string;
  readonly route: string;
  readonly failed: boolean;
  readonly slow: boolean;
  /** When it was added, in milliseconds since 1970. */
  readonly endMs: number;
  /** About what it takes in memory. */
  readonly bytes: number;
  spans(): readonly KeptSpan[];
}

/** The last traces of a process, sampled or not, with no collector. */
export interface TraceStore {
  add(trace: KeptTrace): void;
  /** The newest first. */
  find(filter?: TraceFilter): readonly KeptTrace[];
}

export interface TraceFilter {
  readonly failed?: boolean;
  readonly slow?: boolean;
  readonly route?: string | undefined;
  readonly traceId?: string | undefined;
  /** Defaults to 100. */
  readonly limit?: number;
}

/**
 * Keeps those that failed or were slow apart from the others, which would push them out otherwise. Of the others there are
 * few: what lives longer than its request is copied by the garbage collector.
 */
export function createTraceStore(
  options: {
    /** Of those that failed or were slow. Defaults to 500. */
    readonly maxNotable?: number;
    /** Of the others. Defaults to 100. */
    readonly maxFine?: number;
    /** Of each of the two kinds. Defaults to 4 MiB. */
    readonly maxBytes?: number;
  } = {},
): TraceStore {
  const { maxNotable = 500, maxFine = 100, maxBytes = 4 * 1024 * 1024 } = options;
  const fine = new Ring(maxFine, maxBytes);
  const notable = new Ring(maxNotable, maxBytes);
  return {
    add(trace) {
      (trace.failed || trace.slow ? notable : fine).add(trace);
    },
    find({ failed, slow, route, traceId, limit = 100 } = {}) {
      return [...notable.values(), ...fine.values()]
        .filter(
          (kept) =>
            (!failed || kept.failed) &&
            (!slow || kept.slow) &&
            (route === undefined || kept.route === route) &&
            (traceId === undefined || kept.traceId === traceId),
        )
        .sort((a, b) => b.endMs - a.endMs)
        .slice(0, limit);
    },
  };
}

const randomPool = Buffer.alloc(4_096);
let randomUsed = randomPool.length;

/** The id of a trace (16 bytes) or of a span (8), in hexadecimal. */
export function randomId(bytes: 8 | 16): string {
  if (randomUsed + bytes > randomPool.length) {
    randomFillSync(randomPool);
    randomUsed = 0;
  }
  randomUsed += bytes;
  return randomPool.toString('hex', randomUsed - bytes, randomUsed);
}

/** First in, first out, within two bounds. */
class Ring {
  private readonly slots: (KeptTrace | undefined)[];
  private readonly maxBytes: number;
  private oldest = 0;
  private size = 0;
  private bytes = 0;

  constructor(maxTraces: number, maxBytes: number) {
    this.slots = Array.from({ length: maxTraces });
    this.maxBytes = maxBytes;
  }

  add(trace: KeptTrace): void {
    if (this.size === this.slots.length) this.dropOldest();
    this.slots[(this.oldest + this.size) % this.slots.length] = trace;
    this.size++;
    this.bytes += trace.bytes;
    while (this.bytes > this.maxBytes) this.dropOldest();
  }

  *values(): Iterable<KeptTrace> {
    for (let i = 0; i < this.size; i++) yield this.slots[(this.oldest + i) % this.slots.length] as KeptTrace;
  }

  private dropOldest(): void {
    this.bytes -= this.slots[this.oldest]?.bytes ?? 0;
    this.slots[this.oldest] = undefined;
    this.oldest = (this.oldest + 1) % this.slots.length;
    this.size--;
  }
}

const parameters = new Set(['failed', 'slow', 'route', 'trace_id', 'limit']);
const maxLimit = 1_000;

/**
 * Shows the traces as OTLP JSON, which any OpenTelemetry collector takes as it is: `?failed`, `?slow`, `?route=`,
 * `?trace_id=`, `?limit=100`. https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
 */
export function showTraces(
  store: TraceStore,
  resource: { readonly service: string; readonly podName: string },
): AdminHandler {
  const attributes = toKeyValues({ 'service.name': resource.service, 'service.instance.id': resource.podName });
  return (request, response) => {
    const { searchParams } = new URL(request.url ?? '', 'http://localhost');
    for (const name of searchParams.keys()) {
      if (!parameters.has(name)) throw new RequestError(400, `${name} is none of ${[...parameters].join(', ')}`);
    }
    const limit = Number(searchParams.get('limit') ?? 100);
    if (!(Number.isInteger(limit) && limit >= 1 && limit <= maxLimit)) {
      throw new RequestError(400, `limit ${searchParams.get('limit')} must be from 1 to ${maxLimit}`);
    }
    const found = store.find({
      failed: isSet(searchParams, 'failed'),
      slow: isSet(searchParams, 'slow'),
      route: searchParams.get('route') ?? undefined,
      traceId: searchParams.get('trace_id') ?? undefined,
      limit,
    });
    const spans = found.flatMap((trace) => trace.spans().map((span) => toOtlp(trace.traceId, span)));
    const body = { resourceSpans: [{ resource: { attributes }, scopeSpans: [{ scope: { name: 'tandem' }, spans }] }] };
    response.setHeader('content-type', 'application/json').end(`${JSON.stringify(body)}\n`);
  };
}

/** `?slow`, `?slow=true` and `?slow=1` ask for it. */
function isSet(parameters: URLSearchParams, name: string): boolean {
  return parameters.has(name) && !['false', '0'].includes(parameters.get(name) ?? '');
}

const errorStatus = 2;

function toOtlp(traceId: string, span: KeptSpan): object {
  const { parentSpanId, error } = span;
  return {
    traceId,
    spanId: span.spanId,
    ...(parentSpanId && { parentSpanId }),
    name: span.name,
    kind: span.kind + 1, // The API counts from INTERNAL, OTLP from UNSPECIFIED.
    startTimeUnixNano: toNanos(span.startMs),
    endTimeUnixNano: toNanos(span.endMs ?? Date.now()),
    attributes: toKeyValues(span.attributes),
    status: error === undefined ? {} : { code: errorStatus, ...(error && { message: error }) },
  };
}

/** Through microseconds: nanoseconds since 1970 are more than a number holds. */
function toNanos(ms: number): string {
  return `${Math.round(ms * 1_000)}000`;
}

function toKeyValues(attributes: Attributes): object[] {
  return Object.entries(attributes).map(([key, value]) => ({ key, value: toAnyValue(value) }));
}

function toAnyValue(value: unknown): object {
  if (typeof value === 'boolean') return { boolValue: value };
  if (typeof value !== 'number') return { stringValue: String(value) };
  return Number.isInteger(value) ? { intValue: String(value) } : { doubleValue: value };
}
