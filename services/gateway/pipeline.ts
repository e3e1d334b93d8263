import type { Caller, CallStart, CallStatus, Method } from '#runtime/call/call.ts';
import { ConfigError } from '#runtime/process/config.ts';
import type { Descriptors } from './descriptors.ts';
import { createCachedServe } from './edge/cached.ts';
import { deadlineOf } from './edge/deadline.ts';
import type { Guard, ServedRoute } from './edge/exchange.ts';
import { createForms } from './edge/form.ts';
import { relay } from './edge/relay.ts';
import { comesAfterEnd } from './edge/sse.ts';
import { withGoogleTypes } from './google.ts';
import type { Policy } from './policies.ts';
import type { Cache } from './stages/cache.ts';
import type { QuotaPolicy } from './policy-schema.ts';
import { createRouteTable, type Route, type RouteTable, routesOf } from './transcoding/routes.ts';

/** The service behind the gateway, as its calls see it. */
export interface Upstream extends Caller {
  readonly name: string;
  /** What a request is told before anything is done for it, where the gateway has no time for its call. */
  refusal(priority: CallStart['priority']): CallStatus | undefined;
  /** Lets in as many of the calls that go through it as the service can work on. */
  admit(next: Caller): Caller;
  /** The `timeout` of its service config, where one holds for the method. */
  timeoutMs(method: Method): number | undefined;
}

export interface Pipeline {
  readonly routes: RouteTable<ServedRoute>;
  readonly served: readonly Route[];
}

/**
 * The way of a request, composed for each route at the start:
 *
 *     HTTP ─▶ route ─▶ observe ─▶ authenticate ─▶ quota ─▶ decode ─▶ cache ─▶ admit ─▶ attempts ─▶ pick ─▶ connection ─▶ replica
 *             (google.api.http)                            JSON→bytes                  └─────── the upstream's channel ──────┘
 *
 * Where the gateway itself has more to do than it can, a request goes no further than `observe`.
 *
 * Left to right; no stage reaches back. What stands before `decode` is a `Guard`, which sees no body. Below it bodies are
 * bytes, and whatever stands there is a `Caller`: a stage between the two is a function `(next: Caller) => Caller`. Streams
 * come and go in the form that the client asks for (`edge/form.ts`).
 *
 * @throws ConfigError that lists every route that cannot be served.
 */
export function createPipeline(options: {
  readonly descriptors: Descriptors;
  /** The one that serves the method. */
  readonly upstreamOf: (method: Method) => Upstream;
  readonly policyOf: (method: Method) => Policy;
  /** Asks for a token of that provider. */
  readonly authenticate: (provider: string) => Guard;
  readonly cache: Cache;
  /** Counts, and refuses what is past the quota. */
  readonly checkQuota: (quota: QuotaPolicy) => Guard;
  readonly streamIdleTimeoutMs: number;
  /** How often a silent stream shows that it is alive. */
  readonly streamHeartbeatMs: number;
  /** The longest message of a stream of requests. */
  readonly bodyLimitBytes: number;
}): Pipeline {
  const {
    descriptors,
    upstreamOf,
    policyOf,
    authenticate,
    cache,
    checkQuota,
    streamIdleTimeoutMs: idleTimeoutMs,
    streamHeartbeatMs: heartbeatMs,
  } = options;
  const { bodyLimitBytes: maxLineBytes } = options;
  const types = withGoogleTypes(descriptors.types);
  const problems: string[] = [];
  const served: ServedRoute[] = [];

  for (const service of descriptors.methods) {
    try {
      served.push(...routesOf(service).map(serveRoute));
    } catch (error) {
      problems.push(`${service.method.path.slice(1)}: ${(error as Error).message}`);
    }
  }
  if (problems.length > 0) throw new ConfigError(problems);

  function serveRoute(route: Route): ServedRoute {
    const { method } = route.service;
    const isStream = method.requestStream || method.responseStream;
    const openForm = createForms(route, types, { heartbeatMs, maxLineBytes });
    const upstream = upstreamOf(method);
    const methodTimeoutMs = upstream.timeoutMs(method);
    const { priority, authProvider, quota, cache: cachePolicy } = policyOf(method);
    // A stream may last for hours: what it costs is another matter (MAX_STREAMS).
    const caller = isStream ? upstream : upstream.admit(upstream);
    const serveCached =
      cachePolicy && createCachedServe({ route, types, cache, policy: cachePolicy, methodTimeoutMs, next: caller });

    return {
      route,
      refusal: isStream ? undefined : () => upstream.refusal(priority),
      guard: inTurn(authProvider === undefined ? undefined : authenticate(authProvider), quota && checkQuota(quota)),
      serve(exchange) {
        const { headers, requestId, observation, reply, identity } = exchange;
        if (method.responseStream && comesAfterEnd(headers)) return void reply.code(204).send();
        const deadlineMs = deadlineOf({
          grpcTimeout: headers['grpc-timeout'] as string | undefined,
          methodTimeoutMs,
          stream: isStream,
          nowMs: performance.now(),
        });
        const sent = exchange.metadata.ofRequest(headers, requestId);
        const metadata = identity === undefined ? sent : [...sent, ...identity.metadata];
        const start = {
          method,
          metadata,
          deadlineMs,
          priority,
          context: observation.context,
          avoid: [],
        } as const;
        if (isStream) exchange.streams.refuseIfFull();
        if (serveCached?.(exchange, start)) return;
        relay({ caller, start, form: openForm(exchange), exchange, idleTimeoutMs });
      },
    };
  }

  return {
    routes: createRouteTable(served),
    served: served.map(({ route }) => route),
  };
}

/** Both guards, where there are two. */
function inTurn(first: Guard | undefined, second: Guard | undefined): Guard | undefined {
  if (first === undefined || second === undefined) return first ?? second;
  return (visit) => first(visit)?.then(() => second(visit)) ?? second(visit);
}
