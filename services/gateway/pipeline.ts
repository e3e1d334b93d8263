import type { Caller, Method } from '#runtime/call/call.ts';
import { ConfigError } from '#runtime/process/config.ts';
import type { Descriptors } from './descriptors.ts';
import { deadlineOf } from './edge/deadline.ts';
import type { Exchange, ServedRoute } from './edge/exchange.ts';
import { requestMetadata } from './edge/metadata.ts';
import { createNdjsonEncoder, createNdjsonSource } from './edge/ndjson.ts';
import { createRawStreamEncoder } from './edge/raw.ts';
import { relay } from './edge/relay.ts';
import { acceptsEvents, comesAfterEnd, createSseEncoder } from './edge/sse.ts';
import { createUnaryEncoder } from './edge/unary.ts';
import { openWebSocket } from './edge/websocket.ts';
import { withGoogleTypes } from './google.ts';
import { createStreamBinder } from './transcoding/bind-stream.ts';
import { createRequestBinder } from './transcoding/bind.ts';
import { createRawReplyReader } from './transcoding/http-body.ts';
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
  /** How often a silent stream shows that it is alive. */
  readonly streamHeartbeatMs: number;
  /** The longest message of a stream of requests. */
  readonly bodyLimitBytes: number;
  /** Whether the client's trace context goes to the upstream as it is: where this process makes no spans. */
  readonly passTraceContext: boolean;
}): Pipeline {
  const { descriptors, upstreamOf, streamIdleTimeoutMs: idleTimeoutMs, streamHeartbeatMs: heartbeatMs } = options;
  const { bodyLimitBytes: maxLineBytes, passTraceContext } = options;
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
    const { requestStream, responseStream } = method;
    const isStream = requestStream || responseStream;
    const decode = createRequestBinder(route, types);
    const decodeStream = createStreamBinder(route, types);
    const writeJson = createReplyWriter(route, types);
    const readRaw = createRawReplyReader(route);
    const upstream = upstreamOf(method);
    const methodTimeoutMs = upstream.timeoutMs(method);
    const caller: Caller = upstream;

    /** The way in and the way out of a request, in the form that the client asks for. */
    function openForm(exchange: Exchange): Pick<Parameters<typeof relay>[0], 'request' | 'encoder' | 'streamForm'> {
      const { upgrade, headers, errors } = exchange;
      if (upgrade !== undefined) {
        const requests = requestStream ? 'many' : route.body === '' ? 'none' : 'one';
        const webSocketOptions = { errors, requests, decode: decodeStream(exchange), writeJson, heartbeatMs } as const;
        const { encoder, source } = openWebSocket(upgrade, webSocketOptions);
        return { request: source, encoder, streamForm: 'websocket' };
      }
      const request = requestStream
        ? createNdjsonSource(exchange, { decode: decodeStream(exchange), maxLineBytes })
        : decode(exchange);
      if (!responseStream) {
        return {
          request,
          encoder: createUnaryEncoder(exchange, readRaw ?? writeJson),
          streamForm: isStream ? 'ndjson' : undefined,
        };
      }
      if (acceptsEvents(headers.accept)) {
        return { request, encoder: createSseEncoder(exchange, writeJson, heartbeatMs), streamForm: 'sse' };
      }
      if (readRaw) return { request, encoder: createRawStreamEncoder(exchange, readRaw), streamForm: 'raw' };
      return { request, encoder: createNdjsonEncoder(exchange, writeJson), streamForm: 'ndjson' };
    }

    return {
      route,
      serve(exchange) {
        const { headers, requestId, observation, reply } = exchange;
        if (responseStream && comesAfterEnd(headers['last-event-id'])) return void reply.code(204).send();
        const deadlineMs = deadlineOf({
          grpcTimeout: headers['grpc-timeout'] as string | undefined,
          methodTimeoutMs,
          stream: isStream,
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
        if (isStream) exchange.streams.refuseIfFull();
        relay({ caller, start, ...openForm(exchange), exchange, idleTimeoutMs });
      },
    };
  }

  return {
    routes: createRouteTable(served),
    served: served.map(({ route }) => route),
  };
}
