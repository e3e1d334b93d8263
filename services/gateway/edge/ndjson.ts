import type { OutgoingHttpHeaders } from 'node:http';
import type { CallStatus, Metadata } from '#runtime/call/call.ts';
import { Code } from '#runtime/call/status.ts';
import { httpStatusOf } from './errors.ts';
import { type Encoder, type Exchange, sendStatus } from './exchange.ts';
import { replyHeaders } from './metadata.ts';

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

  function begin(): void {
    reply.hijack();
    response.writeHead(200, {
      ...(reply.getHeaders() as OutgoingHttpHeaders),
      ...replyHeaders(headers),
      'content-type': 'application/x-ndjson',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no', // nginx would hold lines back
    });
  }

  return {
    onHeaders(metadata) {
      headers = metadata;
    },
    onMessage(message) {
      const json = writeJson(message);
      if (!response.headersSent) begin();
      return response.write(`{"result":${json}}\n`);
    },
    onEnd(status: CallStatus) {
      if (!response.headersSent) {
        if (status.code !== Code.OK) {
          void reply.headers(replyHeaders([...headers, ...status.trailers]));
          return sendStatus(exchange, status, httpStatusOf(status.code));
        }
        begin();
      }
      response.end(`{"status":${JSON.stringify(errors.statusJson(status))}}\n`);
    },
  };
}
