import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import {
  type Attributes,
  type Context,
  propagation,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api';
import type { CallStatus } from '#runtime/call/call.ts';
import { codeName } from '#runtime/call/status.ts';
import { CallTrace } from '#runtime/channel/call-trace.ts';
import { type KeptSpan, type KeptTrace, randomId } from '#runtime/process/trace-store.ts';
import type { HttpRoute } from '../transcoding/routes.ts';

const tracer = trace.getTracer('tandem-gateway');

/** How a request ended. */
export interface RequestOutcome {
  /** Of HTTP. */
  readonly code: number;
  /** What its call ended with; undefined for a request that made none. */
  readonly status: CallStatus | undefined;
  readonly failed: boolean;
  readonly slow: boolean;
}

/** Starts the trace of a request. Where it is sampled it is a server span below the one that the client's headers name. */
export type TraceStarter = (request: IncomingMessage, route: HttpRoute | undefined) => RequestTrace;

/** Call it once tracing has started: what the headers are called depends on it. */
export function createTraceStarter(options: { readonly tracing: boolean }): TraceStarter {
  if (!options.tracing) return (request, route) => new RequestTrace(request, route, undefined, undefined, undefined);
  const fields = propagation.fields();
  return (request, route) => {
    const { headers } = request;
    // Most requests have none.
    const parent = fields.some((name) => headers[name] !== undefined)
      ? propagation.extract(ROOT_CONTEXT, headers)
      : ROOT_CONTEXT;
    const span = tracer.startSpan(nameOf(request.method, route), { kind: SpanKind.SERVER }, parent);
    return new RequestTrace(request, route, span, trace.setSpan(parent, span), trace.getSpanContext(parent));
  };
}

/**
 * One request with the attempts of its call. It is kept whether it is sampled or not, and holds nothing of the request but
 * a few strings.
 */
export class RequestTrace implements KeptTrace {
  /** Follows the call that the request makes. */
  readonly call: CallTrace;
  private readonly httpRoute: HttpRoute | undefined;
  private readonly span: Span | undefined;
  private readonly method: string;
  private readonly path: string;
  /** Of the whole, which the path is a part of in memory too. */
  private readonly urlBytes: number;
  private readonly host: string | undefined;
  private readonly userAgent: string | undefined;
  private readonly protocolVersion: string;
  private readonly peer: string;
  private readonly startMs = Date.now();
  private readonly startedMs = performance.now();
  private endedMs: number | undefined;
  private outcome: RequestOutcome | undefined;
  /** Of the client's span; made from the header when somebody asks. */
  private parent: Pick<SpanContext, 'traceId' | 'spanId'> | undefined;
  private readonly traceparent: string | undefined;
  private ownTraceId: string | undefined;
  private ownSpanId: string | undefined;

  constructor(
    request: IncomingMessage,
    route: HttpRoute | undefined,
    span: Span | undefined,
    context: Context | undefined,
    parent: SpanContext | undefined,
  ) {
    const { headers } = request;
    this.call = new CallTrace(context);
    this.httpRoute = route;
    this.span = span;
    this.method = request.method ?? '';
    this.path = pathOf(request.url);
    this.urlBytes = request.url?.length ?? 0;
    this.host = headers.host;
    this.userAgent = headers['user-agent'];
    this.protocolVersion = request.httpVersion;
    this.peer = request.socket.remoteAddress ?? '';
    this.parent = parent;
    this.traceparent = span === undefined ? traceparentOf(headers) : undefined;
  }

  /** Without a span, that of the client's `traceparent`, or else one of its own. */
  get traceId(): string {
    return (this.ownTraceId ??= this.span?.spanContext().traceId ?? this.clientSpan()?.traceId ?? randomId(16));
  }

  get spanId(): string {
    return (this.ownSpanId ??= this.span?.spanContext().spanId ?? randomId(8));
  }

  /** Whether its spans are sent to the collector. */
  get isSampled(): boolean {
    return this.span?.isRecording() === true;
  }

  get route(): string {
    return this.httpRoute?.template.text ?? '';
  }

  get failed(): boolean {
    return this.outcome?.failed === true;
  }

  get slow(): boolean {
    return this.outcome?.slow === true;
  }

  get endMs(): number {
    return this.startMs + ((this.endedMs ?? performance.now()) - this.startedMs);
  }

  /** With objects and attempts at roughly what they take. */
  get bytes(): number {
    const { urlBytes, userAgent = '', host = '', call } = this;
    return 1_000 + urlBytes + userAgent.length + host.length + 500 * call.size;
  }

  end(outcome: RequestOutcome): void {
    this.endedMs = performance.now();
    this.outcome = outcome;
    const { span } = this;
    if (span === undefined) return;
    if (span.isRecording()) {
      span.setAttributes(this.attributes());
      if (outcome.failed) span.setStatus({ code: SpanStatusCode.ERROR, message: this.error() ?? '' });
    }
    span.end();
  }

  spans(): readonly KeptSpan[] {
    const { startMs, endedMs } = this;
    const { spanId } = this;
    const request: KeptSpan = {
      spanId,
      parentSpanId: this.clientSpan()?.spanId,
      name: nameOf(this.method, this.httpRoute),
      kind: SpanKind.SERVER,
      startMs,
      endMs: endedMs === undefined ? undefined : this.endMs,
      attributes: this.attributes(),
      error: this.error(),
    };
    return [request, ...this.call.spans(spanId)];
  }

  /** The one that this trace goes on from, by its header where no span has read that. */
  private clientSpan(): Pick<SpanContext, 'traceId' | 'spanId'> | undefined {
    if (this.span === undefined && this.traceparent !== undefined) this.parent ??= parseTraceparent(this.traceparent);
    return this.parent;
  }

  /** https://opentelemetry.io/docs/specs/semconv/http/http-spans/. Not the query: it may hold what is nobody's business. */
  private attributes(): Attributes {
    const { method, httpRoute, host, userAgent, peer, outcome } = this;
    const known = knownMethods.has(method);
    const attributes: Attributes = {
      'http.request.method': known ? method : '_OTHER',
      'url.scheme': 'http',
      'url.path': this.path,
      'network.protocol.version': this.protocolVersion,
      'network.peer.address': peer,
      'client.address': peer,
    };
    if (!known) attributes['http.request.method_original'] = method;
    if (httpRoute !== undefined) attributes['http.route'] = httpRoute.template.text;
    if (userAgent !== undefined) attributes['user_agent.original'] = userAgent;
    if (host !== undefined) {
      const [, name = host, port] = /^(.*?)(?::(\d+))?$/.exec(host) ?? [];
      attributes['server.address'] = name;
      if (port !== undefined) attributes['server.port'] = Number(port);
    }
    if (outcome === undefined) return attributes;
    const { code, status, failed } = outcome;
    attributes['http.response.status_code'] = code;
    if (status !== undefined) attributes['rpc.response.status_code'] = codeName(status.code);
    if (failed) attributes['error.type'] = code < 500 && status !== undefined ? codeName(status.code) : String(code);
    return attributes;
  }

  private error(): string | undefined {
    return this.failed ? (this.outcome?.status?.details ?? '') : undefined;
  }
}

/** https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server-span */
const knownMethods = new Set(['CONNECT', 'DELETE', 'GET', 'HEAD', 'OPTIONS', 'PATCH', 'POST', 'PUT', 'QUERY', 'TRACE']);

/** Only routes make names: methods and paths are the client's choice, and without end. */
function nameOf(method = '', route: HttpRoute | undefined): string {
  if (route !== undefined) return `${route.httpMethod} ${route.template.text}`;
  return knownMethods.has(method) ? method : 'HTTP';
}

function pathOf(url = ''): string {
  const question = url.indexOf('?');
  return question === -1 ? url : url.slice(0, question);
}

function traceparentOf({ traceparent }: IncomingHttpHeaders): string | undefined {
  return typeof traceparent === 'string' ? traceparent : undefined;
}

/** https://www.w3.org/TR/trace-context/#traceparent-header */
function parseTraceparent(header: string): { readonly traceId: string; readonly spanId: string } | undefined {
  const [, traceId, spanId] =
    /^(?!ff)[\da-f]{2}-(?!0{32})([\da-f]{32})-(?!0{16})([\da-f]{16})-[\da-f]{2}(?:-|$)/.exec(header) ?? [];
  return traceId === undefined || spanId === undefined ? undefined : { traceId, spanId };
}
