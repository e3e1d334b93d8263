import type { Registry } from '@bufbuild/protobuf';
import { createStreamBinder } from '../transcoding/bind-stream.ts';
import { createRequestBinder } from '../transcoding/bind.ts';
import { createRawReplyReader } from '../transcoding/http-body.ts';
import { createReplyWriter } from '../transcoding/json.ts';
import type { Route } from '../transcoding/routes.ts';
import type { Encoder, Exchange, RequestSource } from './exchange.ts';
import { createNdjsonEncoder, createNdjsonSource } from './ndjson.ts';
import type { StreamForm } from './open-streams.ts';
import { createRawStreamEncoder } from './raw.ts';
import { acceptsEvents, createSseEncoder } from './sse.ts';
import { createUnaryEncoder } from './unary.ts';
import { openWebSocket } from './websocket.ts';

/** How the messages of a call come and go over HTTP. */
export interface Form {
  /** The one request, or where they come from. */
  readonly request: Uint8Array | RequestSource;
  readonly encoder: Encoder;
  /** Undefined for a call with one request and one reply. */
  readonly streamForm: StreamForm | undefined;
}

export interface FormOptions {
  /** How often a silent stream shows that it is alive. */
  readonly heartbeatMs: number;
  /** The longest message of a stream of requests. */
  readonly maxLineBytes: number;
}

/**
 * Compiles the forms of a route: a function that gives each request the one that its client asks for. That throws RpcError
 * for a request that cannot be read, and until then a WebSocket is not accepted.
 *
 * @throws Error for a route that does not fit its messages.
 */
export function createForms(route: Route, types: Registry, options: FormOptions): (exchange: Exchange) => Form {
  const { heartbeatMs, maxLineBytes } = options;
  const { requestStream, responseStream } = route.service.method;
  const bind = createRequestBinder(route, types);
  const bindStream = createStreamBinder(route, types);
  const writeJson = createReplyWriter(route, types);
  const readRaw = createRawReplyReader(route);

  return (exchange) => {
    const { upgrade, headers, errors } = exchange;
    if (upgrade !== undefined) {
      const requests = requestStream ? 'many' : route.body === '' ? 'none' : 'one';
      const decode = bindStream(exchange);
      const { encoder, source } = openWebSocket(upgrade, { errors, requests, decode, writeJson, heartbeatMs });
      return { request: source, encoder, streamForm: 'websocket' };
    }
    const request = requestStream
      ? createNdjsonSource(exchange, { decode: bindStream(exchange), maxLineBytes })
      : bind(exchange);
    if (!responseStream) {
      const encoder = createUnaryEncoder(exchange, readRaw ?? writeJson);
      return { request, encoder, streamForm: requestStream ? 'ndjson' : undefined };
    }
    if (acceptsEvents(headers.accept)) {
      return { request, encoder: createSseEncoder(exchange, writeJson, heartbeatMs), streamForm: 'sse' };
    }
    if (readRaw) return { request, encoder: createRawStreamEncoder(exchange, readRaw), streamForm: 'raw' };
    return { request, encoder: createNdjsonEncoder(exchange, writeJson), streamForm: 'ndjson' };
  };
}
