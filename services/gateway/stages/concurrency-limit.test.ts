import assert from 'node:assert/strict';
import test from 'node:test';
import * as fc from 'fast-check';
import type { Method } from '#runtime/call/call.ts';
import { type ConcurrencyBounds, createConcurrencyLimit } from './concurrency-limit.ts';

const methodOf = (name: string): Method => ({
  path: `/test.Service/${name}`,
  requestStream: false,
  responseStream: false,
  idempotency: 'UNKNOWN',
});
const fast = methodOf('Fast');
const slow = methodOf('Slow');

interface Sent {
  readonly method: Method;
  readonly workMs: number;
  readonly window: number;
  readonly startedMs: number;
  doneMs: number;
}

/** What the call of that index is. */
type Work = (index: number) => { readonly method: Method; readonly workMs: number };

/**
 * An upstream that works on `capacity` calls at a time, the others wait in order, and a limit in front of it that sheds at
 * once. Time is simulated.
 */
function simulate(bounds: Partial<ConcurrencyBounds> = {}) {
  let now = 1_700_000_000_000;
  const limit = createConcurrencyLimit({ min: 4, max: 1_000, ...bounds }, () => now);
  const upstream = { capacity: 20, workMs: 20 };
  const waiting: Sent[] = [];
  let working: Sent[] = [];
  let ok = 0;
  let shed = 0;
  let highest = 0;
  let lowest = Number.POSITIVE_INFINITY;

  function work(): void {
    while (waiting.length > 0 && working.length < upstream.capacity) {
      const call = waiting.shift() as Sent;
      call.doneMs = now + call.workMs;
      working.push(call);
    }
  }

  /** Offers so many calls a second for so long, without changing the limit from outside. */
  function run(callsPerS: number, forMs: number, next: Work) {
    const before = { ok, shed };
    const untilMs = now + forMs;
    let due = 0;
    for (let index = 0; now < untilMs; now++) {
      for (const call of working.filter(({ doneMs }) => doneMs <= now)) {
        limit.ended(call.window, { method: call.method, durationMs: now - call.startedMs, lagMs: 0, outcome: 'ok' });
        ok++;
      }
      working = working.filter(({ doneMs }) => doneMs > now);
      work();
      for (due += callsPerS / 1_000; due >= 1; due--) {
        const inFlight = working.length + waiting.length;
        if (inFlight >= limit.current) {
          shed++;
          continue;
        }
        waiting.push({ ...next(index++), window: limit.started(inFlight + 1), startedMs: now, doneMs: 0 });
        work();
      }
      highest = Math.max(highest, limit.current);
      lowest = Math.min(lowest, limit.current);
    }
    return { ok: ok - before.ok, shed: shed - before.shed, goodputPerS: ((ok - before.ok) / forMs) * 1_000 };
  }

  return {
    limit,
    upstream,
    run: (callsPerS: number, forMs: number, next: Work = () => ({ method: fast, workMs: upstream.workMs })) =>
      run(callsPerS, forMs, next),
    get range() {
      return { highest, lowest };
    },
    get inFlight() {
      return working.length + waiting.length;
    },
  };
}

/** How long a call waits at the upstream when as many are in flight as may be. */
function queueMs({ limit, upstream }: ReturnType<typeof simulate>): number {
  return Math.round((limit.learned / upstream.capacity - 1) * upstream.workMs);
}

test('sheds nothing of what the upstream can do, and leaves the limit where it is while there is little load', () => {
  const { run, limit } = simulate();
  assert.equal(run(100, 60_000).shed, 0);
  assert.equal(limit.current, 32);
});

test('lets in three times the load as far as the upstream gets it done, and no more than a short queue beside', () => {
  const sim = simulate();
  sim.run(800, 5_000); // 80 % of what it can do
  const { goodputPerS } = sim.run(3_000, 30_000);
  assert.ok(goodputPerS >= 980, `${goodputPerS}/s of 1000/s`);
  assert.ok(queueMs(sim) <= 250, `calls wait ${queueMs(sim)} ms`);
});

test('finds the limit of an upstream that it only ever knew overloaded', () => {
  for (const capacity of [4, 20, 300]) {
    const sim = simulate();
    Object.assign(sim.upstream, { capacity, workMs: 100 });
    const peakPerS = capacity * 10;
    sim.run(3 * peakPerS, 60_000);
    const { goodputPerS } = sim.run(3 * peakPerS, 60_000);
    assert.ok(goodputPerS >= 0.95 * peakPerS, `capacity ${capacity}: ${goodputPerS}/s of ${peakPerS}/s`);
    assert.ok(queueMs(sim) <= 350, `capacity ${capacity}: calls wait ${queueMs(sim)} ms`);
  }
});

test('follows a capacity that falls and comes back', () => {
  const sim = simulate();
  sim.upstream.capacity = 200;
  sim.run(9_000, 10_000);
  sim.upstream.capacity = 20;
  sim.run(9_000, 5_000);
  assert.ok(queueMs(sim) <= 250, `calls wait ${queueMs(sim)} ms`);
  sim.upstream.capacity = 200;
  sim.run(9_000, 5_000);
  assert.ok(sim.run(9_000, 10_000).goodputPerS >= 9_000 * 0.95);
});

test('takes an upstream that became slower for what it is, not for overloaded', () => {
  const sim = simulate();
  sim.upstream.capacity = 500;
  sim.run(1_000, 10_000);
  sim.upstream.workMs = 200; // 200 in flight of 500
  sim.run(1_000, 60_000);
  assert.equal(sim.run(1_000, 60_000).shed, 0);
});

test('is not moved by a changing mix of fast and slow methods', () => {
  const sim = simulate();
  sim.upstream.capacity = 1_000;
  const mix = (everyNth: number) => (index: number) =>
    index % everyNth === 0 ? { method: slow, workMs: 300 } : { method: fast, workMs: 5 };
  sim.run(400, 10_000, mix(10));
  assert.equal(sim.run(400, 10_000, mix(2)).shed, 0);
  assert.equal(sim.run(400, 10_000, mix(1)).shed, 0);
  assert.deepEqual(sim.limit.baselinesMs(), { 'test.Service/Fast': 5, 'test.Service/Slow': 300 });
});

test('makes room for the calls that hang in one replica of three', () => {
  const sim = simulate();
  sim.upstream.capacity = 10_000;
  sim.run(200, 5_000, () => ({ method: fast, workMs: 2 }));
  // One attempt of three takes 1 s and is made good at another replica.
  const { shed } = sim.run(200, 1_000, (index) => ({ method: fast, workMs: index % 3 === 0 ? 1_004 : 2 }));
  assert.equal(shed + sim.run(200, 5_000, () => ({ method: fast, workMs: 2 })).shed, 0);
});

test('measures the unloaded latency again under load, at the same time as other gateways', () => {
  const times = [0, 377].map((startMs) => {
    const sim = simulate();
    sim.run(1, startMs);
    const dips: number[] = [];
    for (let ms = startMs; ms < 200_000; ms += 50) {
      sim.run(3_000, 50);
      const isDip = sim.limit.current < sim.limit.learned;
      if (isDip && ms - (dips.at(-1) ?? 0) > 1_000) dips.push(ms);
    }
    return dips.filter((ms) => ms > 100_000);
  });
  assert.ok((times[0]?.length ?? 0) >= 2, `measured at ${times[0]?.join()}`);
  const seconds = times.map((dips) => dips.map((ms) => Math.round(ms / 1_000)));
  assert.deepEqual(seconds[0], seconds[1]);
});

test('takes a method that it first sees under load for one that waits like the others', () => {
  const sim = simulate();
  sim.run(800, 5_000);
  sim.run(3_000, 5_000);
  const half = (index: number) => (index % 2 === 0 ? { method: fast, workMs: 20 } : { method: slow, workMs: 20 });
  sim.run(3_000, 1_000, half);
  const { 'test.Service/Slow': slowMs = 0 } = sim.limit.baselinesMs();
  assert.ok(slowMs > 15 && slowMs < 75, `${slowMs} ms`);
});

test('counts calls that nobody waited for as slow, unless they were given up early', () => {
  let now = 0;
  const limit = createConcurrencyLimit({ min: 4, max: 1_000 }, () => now);
  const window = (durationMs: number, outcome: 'ok' | 'no-answer') => {
    const ids = Array.from({ length: 20 }, (_, index) => limit.started(index + 1));
    now += 10_000; // whatever came before is long over
    for (const id of ids) limit.ended(id, { method: fast, durationMs, lagMs: 0, outcome });
  };
  window(10, 'ok');
  const before = limit.learned;
  window(1, 'no-answer');
  assert.equal(limit.learned, before);
  window(2_000, 'no-answer');
  assert.ok(limit.learned < before, `${limit.learned} of ${before}`);
  assert.deepEqual(limit.baselinesMs(), { 'test.Service/Fast': 10 });
});

test('stays where min and max are the same', () => {
  const sim = simulate({ min: 1_000, max: 1_000 });
  sim.run(3_000, 20_000);
  assert.deepEqual(sim.range, { highest: 1_000, lowest: 1_000 });
});

test('stays within its bounds whatever calls take', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 50 }),
      fc.integer({ min: 0, max: 200 }),
      fc.array(
        fc.tuple(fc.integer({ min: 1, max: 300 }), fc.double({ min: 0, max: 5_000, noNaN: true }), fc.boolean()),
        {
          maxLength: 300,
        },
      ),
      (min, more, calls) => {
        let now = 0;
        const limit = createConcurrencyLimit({ min, max: min + more }, () => now);
        for (const [inFlight, durationMs, isOk] of calls) {
          const id = limit.started(inFlight);
          now += durationMs;
          limit.ended(id, { method: fast, durationMs, lagMs: 0, outcome: isOk ? 'ok' : 'no-answer' });
          assert.ok(Number.isInteger(limit.current), `${limit.current}`);
          assert.ok(limit.current >= min && limit.current <= limit.learned && limit.learned <= min + more);
        }
      },
    ),
  );
});
