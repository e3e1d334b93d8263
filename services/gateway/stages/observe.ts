import type { IncomingMessage, ServerResponse } from 'node:http';
import { Histogram, type Registry } from 'prom-client';
import type { CallContext, CallStatus } from '#runtime/call/call.ts';
import { Code, type CodeName, codeName, localStatus } from '#runtime/call/status.ts';
import type { Logger } from '#runtime/process/log.ts';
import type { TraceStore } from '#runtime/process/trace-store.ts';
import { httpStatusOf } from '../edge/errors.ts';
import type { StreamForm } from '../edge/open-streams.ts';
import type { HttpRoute } from '../transcoding/routes.ts';
import { type ShedReason, shedReasonOf } from './admit.ts';
import type { CacheOutcome } from './cache.ts';
import { createTraceStarter } from './request-trace.ts';

/** How the token of a request was found. */
export type AuthOutcome = 'ok' | 'missing' | 'expired' | 'invalid' | 'claim-not-passable' | 'keys-unavailable';

/** What is seen of one request: filled in on its way, and told when its response has closed. */
export interface Observation {
  /** Follows the request's call. */
  readonly context: CallContext;
  /** The trace that the request belongs to: that of its span, or that of its `traceparent`, or one of its own. */
  readonly traceId: string;
  /** What the call ended with; undefined for a request that made none. */
  status: CallStatus | undefined;
  /** The replica that answered. */
  endpointId: string;
  /** How it went over HTTP; undefined for what is no stream. */
  streamForm: StreamForm | undefined;
  /** Undefined for a method that asks for none. */
  auth: AuthOutcome | undefined;
  /** How the cache answered it; undefined for a method without one. */
  cache: CacheOutcome | undefined;
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
 * Counts and times requests by route, logs each (at debug when all is well, so that a busy gateway is quiet), keeps the
 * traces of the last ones and, while tracing is on, gives each a server span below the one that its headers name.
 */
export function createHttpObserver(options: {
  readonly registry: Registry;
  readonly log: Logger;
  readonly tracing: boolean;
  /** Keeps the last traces. Defaults to none. */
  readonly traces?: TraceStore;
  /** A request that takes longer, and is no stream, is slow. Defaults to 1 s. */
  readonly slowRequestMs?: number;
}): HttpObserver {
  const { log, traces, slowRequestMs = 1_000 } = options;
  const startTrace = createTraceStarter(options);
  const duration = new Histogram({
    name: 'http_server_request_duration_seconds',
    help: 'Time from the head of a request to the end of its reply; code 499: the client went away; grpc_code: how its call ended',
    labelNames: ['method', 'route', 'code', 'grpc_code'],
    buckets: [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers: [options.registry],
  });
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
    const severity = severityOf(fields.code, status);
    // An overload is told once in a while by the upstream, and counted: a line for each call would add to it.
    const isQuiet = (severity < 400 && !fields.slow) || fields.shed !== undefined;
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
      const trace = startTrace(request, route);
      const observation: Observation = {
        context: trace.call,
        traceId: trace.traceId,
        status: undefined,
        endpointId: '',
        streamForm: undefined,
        auth: undefined,
        cache: undefined,
      };
      response.once('close', () => {
        const { endpointId, streamForm, auth, cache } = observation;
        const httpCode = response.writableFinished ? response.statusCode : clientClosedRequest;
        const status = observation.status ?? (response.writableFinished ? undefined : clientLeft);
        // The end of a WebSocket is no end of a response.
        const code = streamForm === 'websocket' ? switchingProtocols : httpCode;
        const shed = status && shedReasonOf(status);
        const durationMs = performance.now() - startedMs;
        count(route, code, status === undefined ? '' : codeName(status.code), durationMs);
        const failed = severityOf(code, status) >= 500;
        const slow = streamForm === undefined && durationMs >= slowRequestMs;
        const fields = {
          trace_id: trace.traceId,
          code,
          durationMs: Math.round(durationMs * 100) / 100,
          requestId,
          ...(endpointId && { endpointId }),
          ...(streamForm && { stream: streamForm }),
          ...(slow && { slow }),
          ...(auth && { auth }),
          ...(cache && { cache }),
          ...(shed && { shed }),
        };
        writeLog(request, route, fields, status);
        trace.end({ code, status, failed, slow });
        traces?.add(trace);
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
}

/** A stream has its HTTP status before it fails: the worse of the two counts. */
function severityOf(code: number, status: CallStatus | undefined): number {
  return Math.max(code, status === undefined ? 0 : httpStatusOf(status.code));
}

interface AccessFields {
  readonly trace_id: string;
  readonly code: number;
  readonly durationMs: number;
  readonly requestId: string;
  readonly endpointId?: string;
  readonly stream?: StreamForm;
  readonly slow?: boolean;
  readonly auth?: AuthOutcome;
  readonly cache?: CacheOutcome;
  readonly shed?: ShedReason;
}
