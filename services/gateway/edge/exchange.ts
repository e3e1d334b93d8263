import type { IncomingHttpHeaders, IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import type { Socket } from 'node:net';
import type { FastifyReply } from 'fastify';
import type { WebSocket } from 'ws';
import type { CallStatus, Metadata } from '#runtime/call/call.ts';
import type { Observation } from '../stages/observe.ts';
import type { RequestParts } from '../transcoding/bind.ts';
import type { HttpRoute, Route } from '../transcoding/routes.ts';
import type { ErrorWriter } from './errors.ts';
import type { MetadataRules } from './metadata.ts';
import type { OpenStreams } from './open-streams.ts';

/** What is known of a request before its body. */
export interface Visit {
  readonly headers: IncomingHttpHeaders;
  /** The address of the client. */
  readonly ip: string;
  readonly reply: FastifyReply;
  readonly requestId: string;
  readonly observation: Observation;
  /** Who the client is; undefined where nobody asked. */
  identity: Identity | undefined;
}

/** The client by its token, once that was found good. */
export interface Identity {
  readonly claims: Readonly<Record<string, unknown>>;
  /** The claims that are passed to the upstream. */
  readonly metadata: Metadata;
}

/** Looks at a request before its body is read. Throws or rejects with RpcError to refuse it. */
export type Guard = (visit: Visit) => Promise<void> | undefined;

/** One HTTP request and its reply on their way through the pipeline. */
export interface Exchange extends RequestParts, Visit {
  readonly errors: ErrorWriter;
  readonly metadata: MetadataRules;
  readonly streams: OpenStreams;
  /** The body of a stream of requests, which is read as it comes; undefined for one without a body. */
  readonly upload: IncomingMessage | undefined;
  /** Set where the client asks for a WebSocket. */
  readonly upgrade: Upgrade | undefined;
}

/** A connection that is to become a WebSocket. */
export interface Upgrade {
  readonly socket: Socket;
  /** Completes the handshake. Throws HttpError if the client's part of it is wrong. */
  accept(): WebSocket;
}

/** A route with all that happens to its requests. */
export interface ServedRoute<R extends HttpRoute = Route> {
  readonly route: R;
  /** What a request is told, once its head is read, while the gateway is overloaded; undefined to go on. */
  readonly refusal?: (() => CallStatus | undefined) | undefined;
  /** What a request must pass before its body is read. */
  readonly guard?: Guard | undefined;
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

/** One form of a stream of requests. */
export interface RequestSource {
  /** Begins to hand the messages over. */
  start(sink: RequestSink): void;
  /** Goes on after a message that the sink answered with false. */
  resume(): void;
  /** Hands over nothing any more: what still comes is thrown away. */
  stop(): void;
}

/** Takes the messages of a stream, then its end or what is wrong with it. */
export interface RequestSink {
  /** False asks to wait with the next message for `resume`; this one is taken all the same. */
  onMessage(message: Uint8Array, last: boolean): boolean;
  onEnd(): void;
  onError(error: unknown): void;
}

/** Sends a status as the whole reply, with `google.rpc.Status` as its body. */
export function sendStatus(exchange: Exchange, status: CallStatus, httpStatus: number): void {
  const { reply, errors } = exchange;
  const json = errors.statusJson(status);
  void reply.code(httpStatus).headers(errors.headers(json)).type('application/json').send(JSON.stringify(json));
}

/** Sends the head of a reply whose body is a stream. */
export function beginStream(exchange: Exchange, metadata: Metadata, contentType: string): void {
  const { reply } = exchange;
  reply.hijack();
  reply.raw.writeHead(200, {
    ...(reply.getHeaders() as OutgoingHttpHeaders),
    ...exchange.metadata.ofReply(metadata),
    'content-type': contentType,
    'cache-control': 'no-store',
    'x-accel-buffering': 'no', // nginx would hold it back
  });
}
