import type { Method } from '#runtime/call/call.ts';

/** How many calls an upstream may have at a time, learned from how long they take. */
export interface ConcurrencyLimit {
  /** What holds now: less than `learned` while the unloaded latency is measured again. */
  readonly current: number;
  readonly learned: number;
  /** A call begins as one of so many in flight. What it returns goes to `ended`. */
  started(inFlight: number): number;
  ended(window: number, call: EndedCall): void;
  /** What a call of each method takes without load, as far as that is known. */
  baselinesMs(): Record<string, number>;
}

export interface EndedCall {
  readonly method: Method;
  readonly durationMs: number;
  /** How long its end may have waited for this process to read it: no fault of the upstream. */
  readonly lagMs: number;
  /** `no-answer`: it would have taken longer, had nobody given it up. */
  readonly outcome: 'ok' | 'no-answer';
}

/** Where the limit stays. If both are the same it is fixed. */
export interface ConcurrencyBounds {
  readonly min: number;
  readonly max: number;
}

/** Of an upstream that has none. */
export const defaultBounds: ConcurrencyBounds = { min: 4, max: 1_000 };

const initialLimit = 32;
/** A latency of so many times the unloaded one, plus the slack, is where calls begin to wait for each other. */
const tolerance = 1.5;
/** What a busy scheduler, a garbage collection or turns of the own event loop may add: no overload. */
export const slackMs = 50;
/** Up to this share of the tolerated latency there is room for twice as many calls. */
const calmRatio = 0.8;
/** A limit that shrinks by less is about where it will stay. */
const settledShare = 0.8;
/** With at most this share of the limit in flight calls do not wait for each other: what they take is the unloaded latency. */
const lightShare = 1 / 4;
/** With no more than this share in flight the limit holds nobody back, and needs not grow. */
const bindingShare = 1 / 2;
/** How far one window moves the unloaded latency down, unless it was measured for that. */
const baselineWeight = 0.2;
/** How long windows of little load take to move it up, for an upstream that has become slower. */
const baselineRiseMs = 30_000;
const minWindowMs = 20;
const minSamples = 10;
/** Of a method in a window; past it a new one takes the place of any. */
const maxSamples = 200;
/** After how long under load the unloaded latency is measured again, first and from then on twice as long each time. */
const firstProbeMs = 1_000;
const maxProbeIntervalMs = 32_000;
const maxProbeMs = 5_000;
/** The window of a call that belongs to none. */
const uncounted = -1;

/**
 * A limit that follows the gradient from recent to unloaded latency, as Netflix's concurrency-limits and Envoy's adaptive
 * concurrency do: calls that take longer than without load wait for each other at the upstream, and then fewer are let in.
 *
 * Time goes by in windows of calls that all began under the same limit. A window compares each call with others of its
 * method and takes the median, so that neither a mix of fast and slow methods nor one frozen replica of three moves the
 * limit. It doubles while there is no queue and half of it is in use, grows by its root while there is a small one, and
 * shrinks at most by half. A window that never had a quarter of the limit in flight leaves it as it is, and tells the
 * unloaded latency. Where there is a queue and no such window, the limit is cut to a quarter now and then for as long as it
 * takes to measure: at times that are the same on all gateways, since each would otherwise measure the queue of the others.
 */
export function createConcurrencyLimit(
  { min, max }: ConcurrencyBounds,
  /** Milliseconds since 1970, monotonic. */
  nowMs: () => number = () => performance.timeOrigin + performance.now(),
): ConcurrencyLimit {
  const baselines = new Map<Method, number>();
  let learned = Math.min(max, Math.max(min, initialLimit));
  let window = openWindow(0);
  let recentMs = 0;
  /** When to measure next; undefined without load. */
  let probeAtMs: number | undefined;
  let probeIntervalMs = firstProbeMs;
  /** Whether the unloaded latency was ever seen with little in flight. */
  let isMeasured = false;

  function openWindow(id: number, isProbe = false): Window {
    return { id, isProbe, openedMs: nowMs(), peak: 0, count: 0, byMethod: new Map() };
  }

  function current(): number {
    return window.isProbe ? Math.max(min, Math.floor(learned * lightShare)) : learned;
  }

  /** What a call of the method may take before it counts as one that waited; undefined while nothing is known of it. */
  function toleratedMs(method: Method): number | undefined {
    const baselineMs = baselines.get(method);
    return baselineMs === undefined ? undefined : baselineMs * tolerance + slackMs;
  }

  function closeIfDue(now: number): void {
    const openMs = now - window.openedMs;
    const { isProbe, id } = window;
    if (window.count >= minSamples && openMs >= Math.max(minWindowMs, isProbe ? 0 : 2 * recentMs)) close(now);
    else if (isProbe && openMs >= maxProbeMs) window = openWindow(id + 1);
  }

  function close(now: number): void {
    const { isProbe, id } = window;
    const isLight = window.peak <= Math.ceil(learned * lightShare);
    const ratio = medianRatio(window);
    // What is in flight after a measurement takes as long as before it.
    if (!isProbe)
      recentMs = median([...window.byMethod.values()].flatMap(({ okMs, atLeastMs }) => [...okMs, ...atLeastMs]));
    const isBinding = window.peak > learned * bindingShare;
    const rise = isLight ? Math.min(1, (now - window.openedMs) / baselineRiseMs) : 0;
    learnBaselines(window, isProbe ? { fall: 1, rise: 1 } : { fall: baselineWeight, rise });
    isMeasured ||= isProbe || isLight;
    window = openWindow(id + 1);
    if (isProbe) return;
    if (isLight) {
      probeAtMs = undefined;
      probeIntervalMs = firstProbeMs;
      return;
    }
    if (ratio === undefined) return;
    const shrunk = learned * Math.min(1, Math.max(0.5, 1 / ratio));
    const next = !isBinding ? shrunk : ratio <= calmRatio ? 2 * learned : shrunk + Math.sqrt(learned);
    const isSettled = next >= settledShare * learned;
    learned = Math.min(max, Math.max(min, Math.floor(next)));
    probeAtMs ??= now + firstProbeMs;
    if (now < probeAtMs || learned === max || (isMeasured && ratio <= calmRatio)) return;
    // On its way down it is still too high for a quarter of it to be little.
    if (learned > min && !isSettled) return;
    probeIntervalMs = Math.min(2 * probeIntervalMs, maxProbeIntervalMs);
    // A multiple of the interval, and not so often that it would cost what it is to save.
    probeAtMs = Math.ceil((now + Math.max(probeIntervalMs / 2, 20 * recentMs)) / probeIntervalMs) * probeIntervalMs;
    window = openWindow(window.id, true);
  }

  function learnBaselines({ byMethod }: Window, weight: { readonly fall: number; readonly rise: number }): void {
    const known = [...byMethod].flatMap(([method, { okMs }]) =>
      okMs.map((ms) => ms / (baselines.get(method) ?? Number.POSITIVE_INFINITY)),
    );
    // A method that comes new to a queue waits in it like the others.
    const inflation = Math.max(1, median(known.filter((ratio) => ratio > 0)));
    for (const [method, { okMs }] of byMethod) {
      if (okMs.length === 0) continue;
      const latencyMs = median(okMs);
      const baselineMs = baselines.get(method) ?? latencyMs / inflation;
      const by = latencyMs < baselineMs ? weight.fall : weight.rise;
      baselines.set(method, baselineMs + by * (latencyMs - baselineMs));
    }
  }

  /** Of how long calls took to how long they may take. */
  function medianRatio({ byMethod }: Window): number | undefined {
    const ratios: number[] = [];
    for (const [method, { okMs, atLeastMs }] of byMethod) {
      const tolerated = toleratedMs(method);
      if (tolerated !== undefined) for (const ms of [...okMs, ...atLeastMs]) ratios.push(ms / tolerated);
    }
    return ratios.length < minSamples / 2 ? undefined : median(ratios);
  }

  return {
    get current() {
      return current();
    },
    get learned() {
      return learned;
    },
    started(inFlight) {
      // Calls may all hang: the one that comes next looks at what was seen before.
      closeIfDue(nowMs());
      // It came while what was in flight before the measurement has not ended.
      if (window.isProbe && inFlight > current()) return uncounted;
      if (window.peak === 0) window.openedMs = nowMs();
      window.peak = Math.max(window.peak, inFlight);
      return window.id;
    },
    ended(id, { method, durationMs, lagMs, outcome }) {
      if (id === window.id) {
        let samples = window.byMethod.get(method);
        if (samples === undefined) window.byMethod.set(method, (samples = { okMs: [], atLeastMs: [] }));
        const isOk = outcome === 'ok';
        const isLate = lagMs > slackMs;
        const ms = isLate ? Math.max(0, durationMs - lagMs) : durationMs;
        if (isOk && !isLate) {
          add(samples.okMs, ms);
          window.count++;
        } else if (isOk || ms > (toleratedMs(method) ?? Number.POSITIVE_INFINITY)) {
          add(samples.atLeastMs, ms);
          window.count++;
        }
      }
      closeIfDue(nowMs());
    },
    baselinesMs: () =>
      Object.fromEntries([...baselines].map(([{ path }, ms]) => [path.slice(1), Math.round(ms * 100) / 100])),
  };
}

interface Window {
  readonly id: number;
  readonly isProbe: boolean;
  openedMs: number;
  /** The most calls in flight when one of its calls began. */
  peak: number;
  count: number;
  /** What calls took; and what they took at least, of those that were given up, or read late. */
  readonly byMethod: Map<Method, { readonly okMs: number[]; readonly atLeastMs: number[] }>;
}

function add(samples: number[], sample: number): void {
  if (samples.length < maxSamples) samples.push(sample);
  else samples[Math.floor(Math.random() * maxSamples)] = sample;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
}
