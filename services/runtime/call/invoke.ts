import type { Call, Caller, Metadata, Method } from './call.ts';
import { Code, RpcError } from './status.ts';

export interface InvokeOptions {
  readonly method: Method;
  readonly metadata?: Metadata;
  /** A point in time on the clock of `performance.now()`. Defaults to none. */
  readonly deadlineMs?: number;
  /** Ends the call with CANCELLED. */
  readonly signal?: AbortSignal;
}

export interface Reply {
  readonly message: Uint8Array;
  readonly headers: Metadata;
  readonly trailers: Metadata;
  /** The replica that answered. */
  readonly endpointId: string;
}

/** Calls a method that answers with one message. Rejects with an `RpcError`. */
export async function invokeUnary(caller: Caller, options: InvokeOptions, request: Uint8Array): Promise<Reply> {
  const stream = invokeStream(caller, options);
  void stream.write(request, true);
  let message: Uint8Array | undefined;
  for await (const received of stream) message = received;
  if (message === undefined) throw new RpcError(Code.INTERNAL, `${options.method.path} answered without a message`);
  return { message, headers: stream.headers, trailers: stream.trailers, endpointId: stream.endpointId };
}

/** A call as an async iterable of its replies. Leaving the loop early cancels it; a failure throws an `RpcError`. */
export interface RpcStream extends AsyncIterable<Uint8Array> {
  /** Empty until the first reply has come. */
  readonly headers: Metadata;
  /** Empty until the end. */
  readonly trailers: Metadata;
  readonly endpointId: string;
  /** Resolves when the next message may be written. */
  write(message: Uint8Array, end?: boolean): Promise<void>;
  end(): void;
  cancel(): void;
}

/** Starts a call of any kind. One message is asked for at a time, so that a slow reader holds the replica back. */
export function invokeStream(caller: Caller, options: InvokeOptions): RpcStream {
  const received: Uint8Array[] = [];
  let headers: Metadata = [];
  let trailers: Metadata = [];
  let endpointId = '';
  let ended = false;
  let failure: RpcError | undefined;
  let wakeReader: (() => void) | undefined;
  let wakeWriters: (() => void)[] = [];

  const cancel = () => call.cancel(Code.CANCELLED, 'the caller cancelled the call');
  const call: Call = caller.start(
    {
      method: options.method,
      metadata: options.metadata ?? [],
      deadlineMs: options.deadlineMs ?? Number.POSITIVE_INFINITY,
      priority: 'high',
      context: undefined,
      avoid: [],
    },
    {
      onHeaders(metadata, id) {
        headers = metadata;
        endpointId = id;
      },
      onMessage(message) {
        received.push(message);
        wakeReader?.();
      },
      onWritable: releaseWriters,
      onStatus(status) {
        ended = true;
        trailers = status.trailers;
        if (status.code !== Code.OK) failure = new RpcError(status.code, status.details, { metadata: trailers });
        options.signal?.removeEventListener('abort', cancel);
        wakeReader?.();
        releaseWriters();
      },
    },
  );
  options.signal?.addEventListener('abort', cancel, { once: true });
  if (options.signal?.aborted) cancel();

  function releaseWriters(): void {
    const writers = wakeWriters;
    wakeWriters = [];
    for (const wake of writers) wake();
  }

  async function* read(): AsyncGenerator<Uint8Array> {
    try {
      call.request(1);
      for (;;) {
        const message = received.shift();
        if (message !== undefined) {
          yield message;
          call.request(1);
        } else if (ended) {
          if (failure !== undefined) throw failure;
          return;
        } else {
          await new Promise<void>((resolve) => {
            wakeReader = resolve;
          });
        }
      }
    } finally {
      if (!ended) cancel();
    }
  }

  return {
    get headers() {
      return headers;
    },
    get trailers() {
      return trailers;
    },
    get endpointId() {
      return endpointId;
    },
    async write(message, end = false) {
      if (call.write(message, end) || ended) return;
      await new Promise<void>((resolve) => wakeWriters.push(resolve));
    },
    end: () => call.end(),
    cancel,
    [Symbol.asyncIterator]: read,
  };
}
