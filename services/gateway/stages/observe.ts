import type { IncomingMessage, ServerResponse } from 'node:http';
import {
  type Context,
  context as otelContext,
  propagation,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api';
import { Histogram, type Registry } from 'prom-client';
import type { CallStatus } from '#runtime/call/call.ts';
import { Code, type CodeName, codeName, localStatus } from '#runtime/call/status.ts';
import type { Logger } from '#runtime/process/log.ts';
import { httpStatusOf } from '../edge/errors.ts';
import type { StreamForm } from '../edge/open-streams.ts';
import type { HttpRoute } from '../transcoding/routes.ts';
import { type ShedReason, shedReasonOf } from './admit.ts';

/** What is seen of one request: filled in on its way, and told when its response has closed. */
export interface Observation {
  /** The OpenTelemetry context of the request's span; undefined while tracing is off. */
  readonly context: Context | undefined;
  /** What the call ended with; undefined for a request that made none. */
  status: CallStatus | undefined;
  /** The replica that answered. */
  endpointId: string;
  /** How it went over HTTP; undefined for what is no stream. */
  streamForm: StreamForm | undefined;
}

export interface HttpObserver {
  /** `route` is undefined for a request that none takes. */
  observe(
    request: IncomingMessage,
    response: ServerResponse,
    route: HttpRoute | undefined,
    requestId: string,
  ): Observation;
  /** Requests by `method route code`, where the code is that of HTTP. */
  counters(): Record<string, number>;
}

/** The client went before its reply: nginx's code, which no reply carries. */
const clientClosedRequest = 499;
const clientLeft = localStatus(Code.CANCELLED, 'the client went away', 'maybe');
const switchingProtocols = 101;

/**
 * Counts and times requests by route, logs each (at debug when all is well, so that a busy gateway is quiet) and, while
 * tracing is on, gives each a server span below the one that the client's `traceparent` names.
 */
export function createHttpObserver(options: {
  readonly registry: Registry;
  readonly log: Logger;
  readonly tracing: boolean;
}): HttpObserver {
  const { log, tracing } = options;
  const duration = new Histogram({
    name: 'http_server_request_duration_seconds',
    help: 'Time from the head of a request to the end of its reply; code 499: the client went away; grpc_code: how its call ended',
    labelNames: ['method', 'route', 'code', 'grpc_code'],
    buckets: [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers: [options.registry],
  });
  const tracer = trace.getTracer('tandem-gateway');
  const series = new Map<
    HttpRoute | undefined,
    Map<string, { observe(seconds: number): void; name: string; count: number }>
  >();

  /** A stream has its HTTP status before it fails: only the code of its call tells. */
  function count(route: HttpRoute | undefined, code: number, grpcCode: CodeName | '', durationMs: number): void {
    let byCode = series.get(route);
    if (byCode === undefined) series.set(route, (byCode = new Map()));
    const key = `${code}${grpcCode}`;
    let one = byCode.get(key);
    if (one === undefined) {
      // Only routes make labels: paths and methods are the client's choice, and without end.
      const [method, template] = route ? [route.httpMethod, route.template.text] : ['', ''];
      const child = duration.labels({ method, route: template, code, grpc_code: grpcCode });
      one = {
        observe: (seconds) => child.observe(seconds),
        name: route ? `${method} ${template} ${code}` : `${code}`,
        count: 0,
      };
      byCode.set(key, one);
    }
    one.count++;
    one.observe(durationMs / 1_000);
  }

  function writeLog(
    request: IncomingMessage,
    route: HttpRoute | undefined,
    fields: AccessFields,
    status?: CallStatus,
  ): void {
    const severity = Math.max(fields.code, status === undefined ? 0 : httpStatusOf(status.code));
    // An overload is told once in a while by the upstream, and counted: a line for each call would add to it.
    const isQuiet = severity < 400 || fields.shed !== undefined;
    const level = isQuiet ? 'debug' : severity >= 500 ? 'warn' : 'info';
    if (!log.isLevelEnabled(level)) return;
    const grpc = status && {
      grpcCode: codeName(status.code),
      ...(status.code !== Code.OK && { details: status.details }),
    };
    const [path] = (request.url ?? '').split('?', 1); // a query may hold what is nobody's business
    log[level]({ method: request.method, path, route: route?.template.text, ...fields, ...grpc }, 'request');
  }

  return {
    observe(request, response, route, requestId) {
      const startedMs = performance.now();
      const span = tracing ? startSpan(request, route) : undefined;
      const observation: Observation = {
        context: span?.context,
        status: undefined,
        endpointId: '',
        streamForm: undefined,
      };
      response.once('close', () => {
        const { endpointId, streamForm } = observation;
        const httpCode = response.writableFinished ? response.statusCode : clientClosedRequest;
        const status = observation.status ?? (response.writableFinished ? undefined : clientLeft);
        // The end of a WebSocket is no end of a response.
        const code = streamForm === 'websocket' ? switchingProtocols : httpCode;
        const shed = status && shedReasonOf(status);
        const durationMs = performance.now() - startedMs;
        count(route, code, status === undefined ? '' : codeName(status.code), durationMs);
        const fields = {
          code,
          durationMs: Math.round(durationMs * 100) / 100,
          requestId,
          ...(endpointId && { endpointId }),
          ...(streamForm && { stream: streamForm }),
          ...(shed && { shed }),
        };
        if (span === undefined) return writeLog(request, route, fields, status);
        otelContext.with(span.context, () => writeLog(request, route, fields, status));
        span.end(code, status);
      });
      return observation;
    },
    counters() {
      const counts: Record<string, number> = {};
      for (const byCode of series.values()) {
        for (const { name, count } of byCode.values()) counts[name] = (counts[name] ?? 0) + count;
      }
      return counts;
    },
  };

  /** https://opentelemetry.io/docs/specs/semconv/http/http-spans/ */
  function startSpan(request: IncomingMessage, route: HttpRoute | undefined) {
    const parent = propagation.extract(ROOT_CONTEXT, request.headers);
    const name = route ? `${route.httpMethod} ${route.template.text}` : `${request.method}`;
    const [path, query] = (request.url ?? '').split('?', 2);
    const span: Span = tracer.startSpan(
      name,
      {
        kind: SpanKind.SERVER,
        attributes: {
          'http.request.method': request.method ?? '',
          'url.scheme': 'http',
          'url.path': path ?? '',
          ...(query !== undefined && { 'url.query': query }),
          ...(route && { 'http.route': route.template.text }),
          ...(request.headers.host && { 'server.address': request.headers.host.replace(/:\d+$/, '') }),
          ...(request.headers['user-agent'] && { 'user_agent.original': request.headers['user-agent'] }),
          'network.protocol.version': request.httpVersion,
          'client.address': request.socket.remoteAddress ?? '',
        },
      },
      parent,
    );
    return {
      context: trace.setSpan(parent, span),
      end(code: number, status: CallStatus | undefined) {
        span.setAttribute('http.response.status_code', code);
        if (status !== undefined) span.setAttribute('rpc.grpc.status_code', status.code);
        if (code >= 500 || (status !== undefined && httpStatusOf(status.code) >= 500))
          span.setStatus({ code: SpanStatusCode.ERROR });
        span.end();
      },
    };
  }
}

interface AccessFields {
  readonly code: number;
  readonly durationMs: number;
  readonly requestId: string;
  readonly endpointId?: string;
  readonly stream?: StreamForm;
  readonly shed?: ShedReason;
}
