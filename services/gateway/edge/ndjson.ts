import { isUtf8 } from 'node:buffer';
import type { Metadata } from '#runtime/call/call.ts';
import { Code, RpcError } from '#runtime/call/status.ts';
import { httpStatusOf } from './errors.ts';
import {
  beginStream,
  type Encoder,
  type Exchange,
  type RequestSink,
  type RequestSource,
  sendStatus,
} from './exchange.ts';

export const ndjsonType = 'application/x-ndjson';

/**
 * A stream of replies as `application/x-ndjson`, one JSON object a line:
 *
 *     {"result":{"message":"Hello world"}}
 *     {"result":{"message":"Hello world"}}
 *     {"status":{"code":0}}
 *
 * The last line is always a `status`, a `google.rpc.Status` with its code; a body without it was cut. Messages are wrapped,
 * as grpc-gateway does, because a message may have a field `status` of its own. An error before the first message is an
 * HTTP error instead.
 */
export function createNdjsonEncoder(exchange: Exchange, writeJson: (message: Uint8Array) => string): Encoder {
  const { reply, errors } = exchange;
  const response = reply.raw;
  let headers: Metadata = [];

  return {
    onHeaders(metadata) {
      headers = metadata;
    },
    onMessage(message) {
      const json = writeJson(message);
      if (!response.headersSent) beginStream(exchange, headers, ndjsonType);
      return response.write(`{"result":${json}}\n`);
    },
    onEnd(status) {
      if (!response.headersSent) {
        if (status.code !== Code.OK) {
          void reply.headers(exchange.metadata.ofReply([...headers, ...status.trailers]));
          return sendStatus(exchange, status, httpStatusOf(status.code));
        }
        beginStream(exchange, headers, ndjsonType);
      }
      response.end(`{"status":${JSON.stringify(errors.statusJson(status))}}\n`);
    },
  };
}

/** How long, once the reply is sent, a client may go on with a request that nobody reads any more. */
const lingerMs = 1_000;
const newline = 0x0a;

/**
 * The body of a request as a stream of messages, one JSON text a line, each handed over as its line ends. Lines without
 * text are skipped, the last one may end with the body. A line of more than `maxLineBytes` is an error. While the sink
 * waits nothing more is read, so that TCP holds the client back.
 */
export function createNdjsonSource(
  { upload: body, reply }: Pick<Exchange, 'upload' | 'reply'>,
  options: { readonly decode: (text: string) => Uint8Array; readonly maxLineBytes: number },
): RequestSource {
  const { decode, maxLineBytes } = options;
  let sink: RequestSink;
  /** The beginning of a line whose end has not come; grown by doubling, as it may come in pieces of one byte. */
  let line = Buffer.alloc(0);
  let lineBytes = 0;
  /** What came after the message at which the sink asked to wait. */
  let held: Buffer | undefined;
  let stopped = false;

  function take(chunk: Buffer): void {
    let rest = chunk;
    while (!stopped) {
      const end = rest.indexOf(newline);
      const part = end === -1 ? rest : rest.subarray(0, end);
      if (lineBytes + part.length > maxLineBytes) return refuse(`a line must be <= ${maxLineBytes} bytes`);
      if (end === -1) return keep(part);
      rest = rest.subarray(end + 1);
      if (handOver(part)) continue;
      if (stopped) return;
      held = rest;
      body?.pause();
      return;
    }
  }

  function keep(part: Buffer): void {
    const bytes = lineBytes + part.length;
    if (bytes > line.length) {
      const grown = Buffer.allocUnsafe(Math.min(maxLineBytes, Math.max(bytes, 2 * line.length)));
      line.copy(grown, 0, 0, lineBytes);
      line = grown;
    }
    part.copy(line, lineBytes);
    lineBytes = bytes;
  }

  /** Whether the next message may follow. */
  function handOver(part: Buffer): boolean {
    let bytes = part;
    if (lineBytes > 0) {
      keep(part);
      bytes = line.subarray(0, lineBytes);
      line = Buffer.alloc(0);
      lineBytes = 0;
    }
    if (!isUtf8(bytes)) {
      refuse('a line must be UTF-8');
      return false;
    }
    const text = bytes.toString();
    if (text.trim() === '') return true;
    try {
      return sink.onMessage(decode(text), false);
    } catch (error) {
      sink.onError(error);
      return false;
    }
  }

  function refuse(message: string): void {
    sink.onError(new RpcError(Code.INVALID_ARGUMENT, message));
  }

  return {
    start(newSink) {
      sink = newSink;
      if (body === undefined) return sink.onEnd();
      body.on('data', take);
      // Of a body that was cut there is no end, but the response closes.
      body.once('end', () => {
        if (lineBytes > 0) handOver(Buffer.alloc(0));
        if (!stopped) sink.onEnd();
      });
    },
    resume() {
      if (held === undefined) return;
      const rest = held;
      held = undefined;
      take(rest);
      if (held === undefined) body?.resume();
    },
    stop() {
      if (stopped) return;
      stopped = true;
      held = undefined;
      line = Buffer.alloc(0);
      body?.resume();
      if (body === undefined || body.complete) return;
      reply.raw.once('finish', () => setTimeout(() => body.complete || body.socket.destroy(), lingerMs).unref());
    },
  };
}
