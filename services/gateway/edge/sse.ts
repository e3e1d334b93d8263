import type { IncomingHttpHeaders } from 'node:http';
import type { Metadata } from '#runtime/call/call.ts';
import { Code } from '#runtime/call/status.ts';
import { httpStatusOf, retryDelayMs } from './errors.ts';
import { beginStream, type Encoder, type Exchange, sendStatus } from './exchange.ts';
import { ndjsonType } from './ndjson.ts';

const eventStreamType = 'text/event-stream';
/** The id of the last event: what an `EventSource` that connects again then sends as `Last-Event-ID`. */
const endId = 'end';

/** Whether a client wants Server-Sent Events: it must name them, and rather than NDJSON. */
export function acceptsEvents(accept: string | undefined): boolean {
  return accept !== undefined && qualityOf(accept, eventStreamType) > qualityOf(accept, ndjsonType);
}

/** Whether an `EventSource` comes back after the end of its stream, as each does. 204 tells it to stay away. */
export function comesAfterEnd(headers: IncomingHttpHeaders): boolean {
  return headers['last-event-id'] === endId && acceptsEvents(headers.accept);
}

/**
 * A stream of replies as Server-Sent Events, with a comment each time it was silent for `heartbeatMs`:
 *
 *     data: {"message":"Hello world"}
 *
 *     :
 *
 *     id: end
 *     event: status
 *     data: {"code":0}
 *
 * The last event is always a `status`, a `google.rpc.Status`; a stream without it was cut. An error before the first event
 * is an HTTP error instead. Not so UNAVAILABLE, since an `EventSource` would not come back: it is an event without the id,
 * with a `retry:` where the status has a RetryInfo. https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
export function createSseEncoder(
  exchange: Exchange,
  writeJson: (message: Uint8Array) => string,
  heartbeatMs: number,
): Encoder {
  const { reply, errors } = exchange;
  const response = reply.raw;
  let headers: Metadata = [];

  const heartbeat = setInterval(() => {
    begin();
    if (!response.writableNeedDrain) response.write(':\n\n');
  }, heartbeatMs);
  response.once('close', () => clearInterval(heartbeat));

  function begin(): void {
    if (!response.headersSent) beginStream(exchange, headers, eventStreamType);
  }

  return {
    onHeaders(metadata) {
      headers = metadata;
    },
    onMessage(message) {
      const json = writeJson(message);
      heartbeat.refresh();
      begin();
      return response.write(`data: ${json}\n\n`);
    },
    onEnd(status) {
      clearInterval(heartbeat);
      const comeBack = status.code === Code.UNAVAILABLE;
      if (!response.headersSent && status.code !== Code.OK && !comeBack) {
        void reply.headers(exchange.metadata.ofReply([...headers, ...status.trailers]));
        return sendStatus(exchange, status, httpStatusOf(status.code));
      }
      begin();
      const json = errors.statusJson(status);
      const delayMs = retryDelayMs(json);
      const retry = comeBack && delayMs !== undefined ? `retry: ${delayMs}\n` : '';
      const id = comeBack ? '' : `id: ${endId}\n`;
      response.end(`${retry}${id}event: status\ndata: ${JSON.stringify(json)}\n\n`);
    },
  };
}

/** The `q` of a media type that an `Accept` header names; 0 for one that it does not. */
function qualityOf(accept: string, mediaType: string): number {
  for (const range of accept.split(',')) {
    const [name = '', ...parameters] = range.split(';').map((part) => part.trim().toLowerCase());
    if (name !== mediaType) continue;
    const quality = parameters.find((parameter) => parameter.startsWith('q='));
    return quality === undefined ? 1 : Number(quality.slice(2)) || 0;
  }
  return 0;
}
