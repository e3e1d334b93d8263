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
import { Code, codeName } from '#runtime/call/status.ts';
import type { Logger } from '#runtime/process/log.ts';
import type { HttpRoute } from '../transcoding/routes.ts';

/** What is seen of one request: filled in on its way, and told when its response has closed. */
export interface Observation {
  /** The OpenTelemetry context of the request's span; undefined while tracing is off. */
  readonly context: Context | undefined;
  /** What the call ended with; undefined for a request that made none. */
  status: CallStatus | undefined;
  /** The replica that answered. */
  endpointId: string;
}

export interface HttpObserver {
  /** `route` is undefined for a request that none takes. */
  observe(
    request: IncomingMessage,
    response: ServerResponse,
    route: HttpRoute | undefined,
    requestId: string,
  ): Observation;
  /** Requests by `method route code`. */
  counters(): Record<string, number>;
}

/** The client went before its reply: nginx's code, which no reply carries. */
const clientClosedRequest = 499;

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
    help: 'Time from the head of a request to the end of its reply; code 499: the client went away',
    labelNames: ['method', 'route', 'code'],
    buckets: [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers: [options.registry],
  });
  const tracer = trace.getTracer('tandem-gateway');
  const series = new Map<
    HttpRoute | undefined,
    Map<number, { observe(seconds: number): void; name: string; count: number }>
  >();

  function count(route: HttpRoute | undefined, code: number, durationMs: number): void {
    let byCode = series.get(route);
    if (byCode === undefined) series.set(route, (byCode = new Map()));
    let one = byCode.get(code);
    if (one === undefined) {
      // Only routes make labels: paths and methods are the client's choice, and without end.
      const [method, template] = route ? [route.httpMethod, route.template.text] : ['', ''];
      const child = duration.labels({ method, route: template, code });
      one = {
        observe: (seconds) => child.observe(seconds),
        name: route ? `${method} ${template} ${code}` : `${code}`,
        count: 0,
      };
      byCode.set(code, one);
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
    const level = fields.code >= 500 ? 'warn' : fields.code >= 400 ? 'info' : 'debug';
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
      const observation: Observation = { context: span?.context, status: undefined, endpointId: '' };
      response.once('close', () => {
        const code = response.writableFinished ? response.statusCode : clientClosedRequest;
        const durationMs = performance.now() - startedMs;
        const { status, endpointId } = observation;
        count(route, code, durationMs);
        const fields = {
          code,
          durationMs: Math.round(durationMs * 100) / 100,
          requestId,
          ...(endpointId && { endpointId }),
        };
        if (span === undefined) return writeLog(request, route, fields, status);
        otelContext.with(span.context, () => writeLog(request, route, fields, status));
        span.end(code);
      });
      return observation;
    },
    counters() {
      return Object.fromEntries(
        [...series.values()].flatMap((byCode) => [...byCode.values()]).map((one) => [one.name, one.count]),
      );
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
      end(code: number) {
        span.setAttribute('http.response.status_code', code);
        if (code >= 500) span.setStatus({ code: SpanStatusCode.ERROR });
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
}
