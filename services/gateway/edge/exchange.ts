import type { IncomingHttpHeaders } from 'node:http';
import type { FastifyReply } from 'fastify';
import type { CallStatus, Metadata } from '#runtime/call/call.ts';
import type { Observation } from '../stages/observe.ts';
import type { RequestParts } from '../transcoding/bind.ts';
import type { HttpRoute, Route } from '../transcoding/routes.ts';
import type { ErrorWriter } from './errors.ts';
import type { OpenStreams } from './open-streams.ts';

/** One HTTP request and its reply on their way through the pipeline. */
export interface Exchange extends RequestParts {
  readonly headers: IncomingHttpHeaders;
  readonly reply: FastifyReply;
  readonly requestId: string;
  readonly observation: Observation;
  readonly errors: ErrorWriter;
  readonly streams: OpenStreams;
}

/** A route with all that happens to its requests. */
export interface ServedRoute<R extends HttpRoute = Route> {
  readonly route: R;
  /** Throws RpcError for a request that goes nowhere; otherwise the reply is sent in time. */
  serve(exchange: Exchange): void;
}

/** One form of a reply. It gets headers at most once, then messages, then the end exactly once. */
export interface Encoder {
  onHeaders(metadata: Metadata): void;
  /** False asks for no further message until the response drains. */
  onMessage(message: Uint8Array): boolean;
  onEnd(status: CallStatus): void;
}

/** Sends a status as the whole reply, with `google.rpc.Status` as its body. */
export function sendStatus(exchange: Exchange, status: CallStatus, httpStatus: number): void {
  const { reply, errors } = exchange;
  const json = errors.statusJson(status);
  void reply.code(httpStatus).headers(errors.headers(json)).type('application/json').send(JSON.stringify(json));
}
