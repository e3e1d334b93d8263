import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Registry } from 'prom-client';
import type { CallContext, CallStatus, Method } from '#runtime/call/call.ts';
import { Code, type CodeName, codeName, localStatus } from '#runtime/call/status.ts';
import { createAccessLog } from '#runtime/process/access-log.ts';
import { createHistogram, type Observe } from '#runtime/process/histogram.ts';
import type { Logger } from '#runtime/process/log.ts';
import type { TraceStore } from '#runtime/process/trace-store.ts';
import { httpStatusOf } from '../edge/errors.ts';
import type { StreamForm } from '../edge/open-streams.ts';
import { type HttpRoute, isApiRoute } from '../transcoding/routes.ts';
import { shedReasonOf } from './admit.ts';
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
 * Counts and times requests by route, logs those that did not go well and a share of the others, keeps the traces of the
 * last ones and, while tracing is on, gives each a server span below the one that its headers name.
 */
export function createHttpObserver(options: {
  readonly registry: Registry;
  readonly log: Logger;
  readonly tracing: boolean;
  /** The name of the upstream that serves a method. Defaults to none. */
  readonly upstreamOf?: (method: Method) => string;
  /** Keeps the last traces. Defaults to none. */
  readonly traces?: TraceStore;
  /** A request that takes longer, and is no stream, is slow. Defaults to 1 s. */
  readonly slowRequestMs?: number;
  /** The share of the requests that went well which are logged. Defaults to 1 %. */
  readonly accessLogRatio?: number;
}): HttpObserver {
  const { registry, log, upstreamOf, traces, slowRequestMs = 1_000, accessLogRatio = 0.01 } = options;
  const startTrace = createTraceStarter(options);
  const { levelOf } = createAccessLog(log, accessLogRatio);
  const duration = createHistogram(registry, {
    name: 'http_server_request_duration_seconds',
    help: 'Time from the head of a request to the end of its reply; code 499: the client went away; grpc_code: how its call ended; form: that of a stream',
    labelNames: ['method', 'route', 'code', 'grpc_code', 'form'],
    buckets: [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
  });
  const observedRoutes = new Map<HttpRoute | undefined, ObservedRoute>();

  function ofRoute(route: HttpRoute | undefined): ObservedRoute {
    let found = observedRoutes.get(route);
    if (found === undefined) {
      const method = route !== undefined && isApiRoute(route) ? route.service.method : undefined;
      const fields = route && {
        route: route.template.text,
        ...(method && { grpcMethod: method.path.slice(1) }),
        ...(method && upstreamOf && { upstream: upstreamOf(method) }),
      };
      observedRoutes.set(route, (found = { fields: fields ?? {}, series: new Map() }));
    }
    return found;
  }

  /** A stream has its HTTP status before it fails: only the code of its call tells. */
  function seriesOf(
    route: HttpRoute | undefined,
    { series }: ObservedRoute,
    code: number,
    grpcCode: CodeName | '',
    form: StreamForm | '',
  ): Series {
    const key = `${code}${grpcCode}${form}`;
    let found = series.get(key);
    if (found === undefined) {
      // Only routes make labels: paths and methods are the client's choice, and without end.
      const [method, template] = route ? [route.httpMethod, route.template.text] : ['', ''];
      found = {
        observe: duration({ method, route: template, code, grpc_code: grpcCode, form }),
        name: route ? `${method} ${template} ${code}` : `${code}`,
        count: 0,
      };
      series.set(key, found);
    }
    return found;
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
      response.on('close', () => {
        const { endpointId, streamForm, auth, cache } = observation;
        const httpCode = response.writableFinished ? response.statusCode : clientClosedRequest;
        const status = observation.status ?? (response.writableFinished ? undefined : clientLeft);
        // The end of a WebSocket is no end of a response.
        const code = streamForm === 'websocket' ? switchingProtocols : httpCode;
        const durationMs = performance.now() - startedMs;
        const observed = ofRoute(route);
        const one = seriesOf(
          route,
          observed,
          code,
          status === undefined ? '' : codeName(status.code),
          streamForm ?? '',
        );
        one.count++;
        one.observe(durationMs / 1_000, trace.isSampled ? trace.traceId : undefined);
        const severity = severityOf(code, status);
        const failed = severity >= 500;
        const slow = streamForm === undefined && durationMs >= slowRequestMs;
        const shed = status && shedReasonOf(status);
        // An overload is told once in a while by the upstream, and counted: a line for each call would add to it.
        const fault = severity < 400 || shed !== undefined ? 'none' : failed ? 'server' : 'client';
        const level = levelOf({ fault, slow: slow && shed === undefined, id: requestId });
        if (level !== undefined) {
          const { method, url = '' } = request;
          const { size: attempts } = trace.call;
          const fields = {
            trace_id: trace.traceId,
            requestId,
            method,
            path: url.split('?', 1)[0], // a query may hold what is nobody's business
            ...observed.fields,
            code,
            durationMs: Math.round(durationMs * 100) / 100,
            ...(slow && { slow }),
            ...(streamForm && { stream: streamForm }),
            ...(auth && { auth }),
            ...(cache && { cache }),
            ...(shed && { shed }),
            ...(attempts > 0 && { attempts }),
            ...(endpointId && { replica: endpointId }),
            ...(status && { grpcCode: codeName(status.code) }),
            ...(status && status.code !== Code.OK && { details: status.details }),
          };
          log[level](fields, 'request');
        }
        trace.end({ code, status, failed, slow });
        traces?.add(trace);
      });
      return observation;
    },
    counters() {
      const counts: Record<string, number> = {};
      for (const { series } of observedRoutes.values()) {
        for (const { name, count } of series.values()) counts[name] = (counts[name] ?? 0) + count;
      }
      return counts;
    },
  };
}

/** A stream has its HTTP status before it fails: the worse of the two counts. */
function severityOf(code: number, status: CallStatus | undefined): number {
  return Math.max(code, status === undefined ? 0 : httpStatusOf(status.code));
}

/** What is looked up once a route. */
interface ObservedRoute {
  /** Of its log lines. */
  readonly fields: object;
  /** By HTTP and gRPC code, and form. */
  readonly series: Map<string, Series>;
}

interface Series {
  readonly observe: Observe;
  /** Among the counters. */
  readonly name: string;
  count: number;
}
