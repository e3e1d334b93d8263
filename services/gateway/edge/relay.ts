import type { Writable } from 'node:stream';
import type { Caller, CallStart, CallStatus } from '#runtime/call/call.ts';
import { Code, RpcError } from '#runtime/call/status.ts';
import { statusOf } from './errors.ts';
import type { Exchange } from './exchange.ts';
import type { Form } from './form.ts';

/** Messages of a stream that may be on their way at once: enough to keep a connection busy, few enough to hold. */
const streamWindow = 16;

/**
 * Makes a call and hands its replies to an encoder on credit: each message taken allows the next one to come, unless the
 * response cannot take more, and then they wait for it to drain. So a slow reader holds the replica back. Requests go the
 * other way alike: while the call cannot take more, their source waits, and a slow replica holds the client back. A client
 * that goes away cancels the call; a stream that has stood still for `idleTimeoutMs` ends with DEADLINE_EXCEEDED.
 */
export function relay(options: {
  readonly caller: Caller;
  readonly start: CallStart;
  readonly form: Form;
  readonly exchange: Exchange;
  readonly idleTimeoutMs: number;
}): void {
  const { caller, start, form, exchange, idleTimeoutMs } = options;
  const { request, encoder, streamForm } = form;
  const { observation, reply, upgrade } = exchange;
  const source = request instanceof Uint8Array ? undefined : request;
  const outlet: Writable = upgrade?.socket ?? reply.raw;
  let heldBack = 0;
  let ended = false;
  let stopped: CallStatus | undefined;

  const call = caller.start(start, {
    onHeaders(metadata, endpointId) {
      observation.endpointId = endpointId;
      encoder.onHeaders(metadata);
    },
    onMessage(message) {
      if (ended || stopped !== undefined) return;
      idleTimer?.refresh();
      let writable = false;
      try {
        writable = encoder.onMessage(message);
      } catch (error) {
        stop(statusOf(error));
      }
      if (writable) call.request(1);
      else heldBack++;
    },
    onWritable() {
      if (!ended && stopped === undefined) source?.resume();
    },
    onStatus(status) {
      end(stopped ?? status);
    },
  });

  /** Ends the reply with this status, whatever becomes of the call. */
  function stop(status: CallStatus): void {
    if (stopped !== undefined) return;
    stopped = status;
    source?.stop();
    call.cancel(Code.CANCELLED, status.details);
  }

  function end(status: CallStatus): void {
    if (ended) return;
    ended = true;
    clearTimeout(idleTimer);
    forget?.();
    source?.stop();
    observation.status = status;
    if (!outlet.destroyed) encoder.onEnd(status);
  }

  let idleTimer: NodeJS.Timeout | undefined;
  let forget: (() => void) | undefined;
  if (streamForm !== undefined) {
    observation.streamForm = streamForm;
    const idle = new RpcError(Code.DEADLINE_EXCEEDED, `the stream was idle for ${idleTimeoutMs} ms`);
    idleTimer = setTimeout(() => stop(statusOf(idle)), idleTimeoutMs);
    forget = exchange.streams.add(streamForm, stop);
    outlet.on('drain', () => {
      idleTimer?.refresh();
      call.request(heldBack);
      heldBack = 0;
    });
  }
  outlet.on('close', () => {
    if (!ended) stop(statusOf(new RpcError(Code.CANCELLED, 'the client went away')));
  });
  call.request(start.method.responseStream ? streamWindow : 1);
  if (request instanceof Uint8Array) return void call.write(request, true);
  request.start({
    onMessage(message, last) {
      idleTimer?.refresh();
      return call.write(message, last);
    },
    onEnd() {
      idleTimer?.refresh();
      call.end();
    },
    onError(error) {
      stop(statusOf(error));
    },
  });
}
