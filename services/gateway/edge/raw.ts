import type { Metadata } from '#runtime/call/call.ts';
import { Code } from '#runtime/call/status.ts';
import type { RawBody } from '../transcoding/http-body.ts';
import { httpStatusOf } from './errors.ts';
import { beginStream, type Encoder, type Exchange, sendStatus } from './exchange.ts';

/**
 * A stream of `google.api.HttpBody`: its bytes one after the other, under the content type of the first message. They leave
 * no place for a status: when the call fails, the connection is cut before the body has ended. An error before the first
 * message is an HTTP error instead.
 */
export function createRawStreamEncoder(exchange: Exchange, read: (message: Uint8Array) => RawBody): Encoder {
  const { reply } = exchange;
  const response = reply.raw;
  let headers: Metadata = [];

  return {
    onHeaders(metadata) {
      headers = metadata;
    },
    onMessage(message) {
      const { contentType, data } = read(message);
      if (!response.headersSent) beginStream(exchange, headers, contentType);
      return response.write(data);
    },
    onEnd(status) {
      if (response.headersSent) return void (status.code === Code.OK ? response.end() : response.destroy());
      if (status.code !== Code.OK) {
        void reply.headers(exchange.metadata.ofReply([...headers, ...status.trailers]));
        return sendStatus(exchange, status, httpStatusOf(status.code));
      }
      beginStream(exchange, headers, 'application/octet-stream');
      response.end();
    },
  };
}
