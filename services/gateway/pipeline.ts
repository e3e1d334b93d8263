import type { Caller, Method } from '#runtime/call/call.ts';
import { ConfigError } from '#runtime/process/config.ts';
import type { Descriptors, ServiceMethod } from './descriptors.ts';
import { deadlineOf } from './edge/deadline.ts';
import type { ServedRoute } from './edge/exchange.ts';
import { requestMetadata } from './edge/metadata.ts';
import { createNdjsonEncoder } from './edge/ndjson.ts';
import { relay } from './edge/relay.ts';
import { createUnaryEncoder } from './edge/unary.ts';
import { createRequestBinder } from './transcoding/bind.ts';
import { createReplyWriter } from './transcoding/json.ts';
import { createRouteTable, type Route, type RouteTable, routesOf } from './transcoding/routes.ts';

/** The service behind the gateway, as its calls see it. */
export interface Upstream extends Caller {
  readonly name: string;
  /** The `timeout` of its service config, where one holds for the method. */
  timeoutMs(method: Method): number | undefined;
}

export interface Pipeline {
  readonly routes: RouteTable<ServedRoute>;
  readonly served: readonly Route[];
  /** Methods whose requests are streams, which HTTP has no form for here. */
  readonly unserved: readonly ServiceMethod[];
}

/**
 * The way of a request, composed for each route at the start:
 *
 *     HTTP ─▶ route ─▶ observe ─▶ decode ─▶ attempts ─▶ pick ─▶ connection ─▶ replica
 *             (google.api.http)   JSON→bytes └─────── the upstream's channel ──────┘
 *
 * Left to right; no stage reaches back. Below `decode` bodies are bytes, and whatever stands there is a `Caller`: a stage
 * between the two is a function `(next: Caller) => Caller`. The replies come back through the encoder of their form.
 *
 * @throws ConfigError that lists every route that cannot be served.
 */
export function createPipeline(options: {
  readonly descriptors: Descriptors;
  /** The one that serves the method. */
  readonly upstreamOf: (method: Method) => Upstream;
  readonly streamIdleTimeoutMs: number;
  /** Whether the client's trace context goes to the upstream as it is: where this process makes no spans. */
  readonly passTraceContext: boolean;
}): Pipeline {
  const { descriptors, upstreamOf, streamIdleTimeoutMs: idleTimeoutMs, passTraceContext } = options;
  const problems: string[] = [];
  const served: ServedRoute[] = [];
  const isServed = ({ method }: ServiceMethod) => !method.requestStream;

  for (const service of descriptors.methods.filter(isServed)) {
    try {
      served.push(...routesOf(service).map(serveRoute));
    } catch (error) {
      problems.push(`${service.method.path.slice(1)}: ${(error as Error).message}`);
    }
  }
  if (problems.length > 0) throw new ConfigError(problems);

  function serveRoute(route: Route): ServedRoute {
    const { method } = route.service;
    const decode = createRequestBinder(route, descriptors.types);
    const encode = createReplyWriter(route, descriptors.types);
    const upstream = upstreamOf(method);
    const methodTimeoutMs = upstream.timeoutMs(method);
    const createEncoder = method.responseStream ? createNdjsonEncoder : createUnaryEncoder;
    const caller: Caller = upstream;

    return {
      route,
      serve(exchange) {
        const { headers, requestId, observation } = exchange;
        const deadlineMs = deadlineOf({
          grpcTimeout: headers['grpc-timeout'] as string | undefined,
          methodTimeoutMs,
          stream: method.responseStream,
          nowMs: performance.now(),
        });
        const metadata = requestMetadata(headers, { requestId, passTraceContext });
        const start = {
          method,
          metadata,
          deadlineMs,
          priority: 'high',
          context: observation.context,
          avoid: [],
        } as const;
        relay({
          caller,
          start,
          request: decode(exchange),
          encoder: createEncoder(exchange, encode),
          exchange,
          idleTimeoutMs,
        });
      },
    };
  }

  return {
    routes: createRouteTable(served),
    served: served.map(({ route }) => route),
    unserved: descriptors.methods.filter((service) => !isServed(service)),
  };
}
