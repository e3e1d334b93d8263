import type { Metadata } from '#runtime/call/call.ts';
import { Code, localStatus } from '#runtime/call/status.ts';
import type { RawBody } from '../transcoding/http-body.ts';
import { httpStatusOf } from './errors.ts';
import { type Encoder, type Exchange, sendStatus } from './exchange.ts';

/** One reply as one body, of JSON or as it is. Headers and trailers of the call both become headers. */
export function createUnaryEncoder(exchange: Exchange, write: (message: Uint8Array) => string | RawBody): Encoder {
  const { reply } = exchange;
  let headers: Metadata = [];
  let body: string | RawBody | undefined;
  return {
    onHeaders(metadata) {
      headers = metadata;
    },
    onMessage(message) {
      body = write(message);
      return false;
    },
    onEnd(status) {
      const all = status.trailers.length === 0 ? headers : [...headers, ...status.trailers];
      void reply.headers(exchange.metadata.ofReply(all));
      if (status.code !== Code.OK) return sendStatus(exchange, status, httpStatusOf(status.code));
      if (typeof body === 'string') return void reply.code(200).type('application/json').send(body);
      if (body !== undefined) return void reply.header('content-type', body.contentType).send(Buffer.from(body.data));
      sendStatus(exchange, localStatus(Code.INTERNAL, 'OK without a message', 'maybe'), 500);
    },
  };
}
