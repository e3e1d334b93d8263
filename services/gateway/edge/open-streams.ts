import { Gauge, type Registry } from 'prom-client';
import type { CallStatus } from '#runtime/call/call.ts';
import { Code } from '#runtime/call/status.ts';
import { comeBackLater, HttpError, retryInfo, statusOf } from './errors.ts';

/** When a stream that was told to leave may come back: the next gateway serves already, but they must not come all at once. */
const comeBackAfterMs = { min: 500, max: 2_500 } as const;

/** How a stream goes over HTTP. */
export type StreamForm = 'ndjson' | 'sse' | 'websocket' | 'raw';

/** The streams that are open, which a drain tells to come back elsewhere, spread so that they do not come all at once. */
export interface OpenStreams {
  readonly size: number;
  /** Throws HttpError 503 if there are as many as may be. */
  refuseIfFull(): void;
  /** `stop` ends the stream with a status. Returns the function to call at its end. */
  add(form: StreamForm, stop: (status: CallStatus) => void): () => void;
  /** Ends each open stream, and each that still begins, at a moment of its own within `delayMs`. */
  drain(delayMs: number): void;
}

export function createOpenStreams(options: { readonly maxStreams: number; readonly registry: Registry }): OpenStreams {
  const { maxStreams, registry } = options;
  const stops = new Set<(status: CallStatus) => void>();
  const timers = new Map<(status: CallStatus) => void, NodeJS.Timeout>();
  const open = new Gauge({
    name: 'http_server_open_streams',
    help: 'Streams that are open, by their form',
    labelNames: ['form'],
    registers: [registry],
  });
  let drainedAtMs: number | undefined;

  function stopInTime(stop: (status: CallStatus) => void, drainedAt: number): void {
    const { min, max } = comeBackAfterMs;
    const status = statusOf(
      comeBackLater('the gateway is shutting down', Math.round(min + Math.random() * (max - min))),
    );
    const delayMs = Math.random() * Math.max(0, drainedAt - performance.now());
    timers.set(
      stop,
      setTimeout(() => stop(status), delayMs),
    );
  }

  return {
    get size() {
      return stops.size;
    },
    refuseIfFull() {
      if (stops.size < maxStreams) return;
      const message = `${maxStreams} streams are open, the most that this gateway takes`;
      throw new HttpError(503, Code.RESOURCE_EXHAUSTED, message, {}, [retryInfo(1_000)]);
    },
    add(form, stop) {
      stops.add(stop);
      open.inc({ form });
      if (drainedAtMs !== undefined) stopInTime(stop, drainedAtMs);
      return () => {
        open.dec({ form });
        stops.delete(stop);
        clearTimeout(timers.get(stop));
        timers.delete(stop);
      };
    },
    drain(delayMs) {
      drainedAtMs = performance.now() + delayMs;
      for (const stop of stops) stopInTime(stop, drainedAtMs);
    },
  };
}
