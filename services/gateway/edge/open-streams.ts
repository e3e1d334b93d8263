import type { CallStatus } from '#runtime/call/call.ts';
import { comeBackLater, statusOf } from './errors.ts';

/** When a stream that was told to leave may come back: the next gateway serves already. */
const comeBackAfterMs = 1_000;

/** The streams that are open, which a drain tells to come back elsewhere, spread so that they do not come all at once. */
export interface OpenStreams {
  readonly size: number;
  /** `stop` ends the stream with a status. Returns the function to call at its end. */
  add(stop: (status: CallStatus) => void): () => void;
  /** Ends each open stream, and each that still begins, at a moment of its own within `delayMs`. */
  drain(delayMs: number): void;
}

export function createOpenStreams(): OpenStreams {
  const stops = new Set<(status: CallStatus) => void>();
  const timers = new Map<(status: CallStatus) => void, NodeJS.Timeout>();
  const status = statusOf(comeBackLater('the gateway is shutting down', comeBackAfterMs));
  let drainedAtMs: number | undefined;

  function stopInTime(stop: (status: CallStatus) => void, drainedAt: number): void {
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
    add(stop) {
      stops.add(stop);
      if (drainedAtMs !== undefined) stopInTime(stop, drainedAtMs);
      return () => {
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
