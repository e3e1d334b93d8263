import { setImmediate as nextTurn } from 'node:timers/promises';
import * as grpc from '@grpc/grpc-js';
import type { Metadata } from '../call/call.ts';
import { Code, RpcError } from '../call/status.ts';

/** What a handler knows of its call besides the request. Each is made when it is first asked for. */
export interface ServerCall {
  /** What the client sent. */
  readonly metadata: Metadata;
  /** A point in time on the clock of `performance.now()`; `Infinity` for none. */
  readonly deadlineMs: number;
  /** Aborts, with an `RpcError` for its reason, once nobody waits for the answer: client gone, deadline passed, server stopping. */
  readonly signal: AbortSignal;
}

/**
 * Serves one method: `async (request, call) => reply`, or `async function* (request, call)` that yields the replies of a
 * stream. Where the requests are a stream, `request` is an async iterable of them. A thrown `RpcError` is the status
 * that the client gets; whatever else is thrown stays in the log, and the client gets INTERNAL.
 */
export type Handler = (request: never, call: ServerCall) => Promise<unknown> | AsyncIterable<unknown>;

/** By the name of the method as in the proto file. */
export type Handlers = Readonly<Record<string, Handler>>;

/**
 * Makes handlers what grpc-js takes. A stream's handler runs on only while its client reads, and no further once the
 * call is over. `onError` is told of each error that is no `RpcError`. Throws if a method has no handler.
 */
export function adaptHandlers(
  definition: grpc.ServiceDefinition,
  handlers: Handlers,
  onError: (error: unknown, path: string) => void,
): grpc.UntypedServiceImplementation {
  const adapted: grpc.UntypedServiceImplementation = {};
  for (const [name, { path, requestStream, responseStream }] of Object.entries(definition)) {
    const handler = handlers[name]?.bind(handlers) as ((request: unknown, call: ServerCall) => unknown) | undefined;
    if (handler === undefined) throw new Error(`${path} has no handler`);
    const fail = (error: unknown) => toStatus(error, (unexpected) => onError(unexpected, path));
    const adapt = responseStream ? adaptReplies : adaptReply;
    adapted[name] = adapt(handler as never, requestStream, fail);
  }
  return adapted;
}

/** Unary calls and client streams: one reply. */
function adaptReply(
  handler: (request: unknown, call: ServerCall) => Promise<unknown>,
  requestStream: boolean,
  fail: (error: unknown) => Partial<grpc.StatusObject>,
): grpc.UntypedHandleCall {
  return async (surface: UnarySurface | StreamSurface, callback: grpc.sendUnaryData<unknown>) => {
    const call = new AdaptedCall(surface);
    let status: Partial<grpc.StatusObject> | undefined;
    let reply: unknown;
    try {
      reply = await handler(requestStream ? readRequests(surface as StreamSurface, call) : surface.request, call);
    } catch (error) {
      status = fail(call.cancellation() ?? error);
    }
    call.end();
    callback(status ?? null, reply);
  };
}

/** Server streams and both ways: replies for as long as the handler yields them and the client reads them. */
function adaptReplies(
  handler: (request: unknown, call: ServerCall) => AsyncIterable<unknown>,
  requestStream: boolean,
  fail: (error: unknown) => Partial<grpc.StatusObject>,
): grpc.UntypedHandleCall {
  return async (stream: StreamSurface) => {
    const call = new AdaptedCall(stream);
    let wake = () => {};
    stream.on('drain', () => wake());
    call.onCancel((reason) => {
      stream.destroy(reason);
      wake();
    });
    try {
      for await (const reply of handler(requestStream ? readRequests(stream, call) : stream.request, call)) {
        if (!call.over && !stream.write(reply)) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
        if (call.over) return;
      }
      if (!call.over) stream.end();
    } catch (error) {
      if (!call.over) stream.emit('error', fail(error));
    } finally {
      call.end();
    }
  };
}

/** What is read before the handler asks for it is bounded by grpc-js: 16 messages. */
function readRequests(stream: StreamSurface, call: AdaptedCall): AsyncIterable<unknown> {
  call.onCancel((reason) => stream.destroy(reason));
  return iterateRequests(stream, call);
}

async function* iterateRequests(stream: StreamSurface, call: AdaptedCall): AsyncIterable<unknown> {
  // Not destroyed when the handler stops reading, since it may still have something to reply.
  yield* stream.iterator({ destroyOnReturn: false });
  // The requests of a client that cancels seem to have ended: HTTP/2 tells the end of the stream before its reset.
  await nextTurn();
  const cancellation = call.cancellation();
  if (cancellation !== undefined) throw cancellation;
}

type UnarySurface = grpc.ServerUnaryCall<unknown, unknown>;
type StreamSurface = grpc.ServerDuplexStream<unknown, unknown> & { readonly request?: unknown };

class AdaptedCall implements ServerCall {
  /** The handler has answered, or nobody waits for its answer any more. */
  over = false;
  readonly #surface: UnarySurface | StreamSurface;
  #controller: AbortController | undefined;
  #cancellation: RpcError | undefined;
  #onCancel: ((reason: RpcError) => void)[] | undefined;
  #deadlineTimer: NodeJS.Timeout | undefined;

  constructor(surface: UnarySurface | StreamSurface) {
    this.#surface = surface;
  }

  get metadata(): Metadata {
    return Object.entries(this.#surface.metadata.toJSON()).flatMap(([key, values]) =>
      values.map((value) => [key, value] as const),
    );
  }

  get deadlineMs(): number {
    return performance.now() + this.#remainingMs();
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      const controller = new AbortController();
      this.#controller = controller;
      this.onCancel((reason) => controller.abort(reason));
    }
    return this.#controller.signal;
  }

  /** Why nobody waits for the answer, if so. */
  cancellation(): RpcError | undefined {
    if (this.#surface.cancelled) this.#cancel();
    return this.#cancellation;
  }

  /** `listener` runs once, if the call is over before the handler has answered. */
  onCancel(listener: (reason: RpcError) => void): void {
    if (this.#onCancel !== undefined) {
      this.#onCancel.push(listener);
      return;
    }
    this.#onCancel = [listener];
    // grpc-js emits it after an answer too, and at the deadline only once what was written before is read.
    this.#surface.once('cancelled', () => this.#cancel());
    const remainingMs = Math.max(0, this.#remainingMs());
    if (remainingMs <= maxTimerMs) this.#deadlineTimer = setTimeout(() => this.#cancel(), remainingMs);
    if (this.#surface.cancelled) this.#cancel();
  }

  end(): void {
    this.over = true;
    clearTimeout(this.#deadlineTimer);
  }

  #cancel(): void {
    if (this.over) return;
    this.end();
    this.#cancellation =
      this.#remainingMs() <= earlyTimerMs
        ? new RpcError(Code.DEADLINE_EXCEEDED, 'deadline exceeded')
        : new RpcError(Code.CANCELLED, 'call cancelled');
    for (const listener of this.#onCancel ?? []) listener(this.#cancellation);
  }

  #remainingMs(): number {
    return Number(this.#surface.getDeadline()) - Date.now();
  }
}

/** A timer may run out so much before its time, which Node counts in whole milliseconds. */
const earlyTimerMs = 1;
/** What `setTimeout` takes at most. */
const maxTimerMs = 2 ** 31 - 1;

function toStatus(error: unknown, onUnexpected: (error: unknown) => void): Partial<grpc.StatusObject> {
  try {
    if (error instanceof RpcError && error.code > Code.OK && error.code <= Code.UNAUTHENTICATED) {
      // grpc-js throws when it sends half a surrogate pair.
      return { code: error.code, details: error.details.toWellFormed(), metadata: toGrpcMetadata(error.metadata) };
    }
    onUnexpected(error);
  } catch (metadataError) {
    onUnexpected(metadataError);
  }
  return { code: Code.INTERNAL, details: 'internal error' };
}

/** Throws if a key or a value is none that HTTP/2 takes. */
function toGrpcMetadata(entries: Metadata): grpc.Metadata {
  const metadata = new grpc.Metadata();
  for (const [key, value] of entries) metadata.add(key, typeof value === 'string' ? value : Buffer.from(value));
  return metadata;
}
