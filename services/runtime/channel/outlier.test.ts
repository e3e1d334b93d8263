import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { CallStatus } from '../call/call.ts';
import { Code } from '../call/status.ts';
import { createOutlierDetector, type OutlierDetector, outliers } from './outlier.ts';
import type { OutlierDetectionConfig } from './service-config.ts';

const failurePercentageEjection = { threshold: 50, enforcementPercentage: 100, minimumHosts: 2, requestVolume: 10 };
const successRateEjection = { stdevFactor: 1_000, enforcementPercentage: 100, minimumHosts: 3, requestVolume: 10 };

const config: OutlierDetectionConfig = {
  intervalMs: 10_000,
  baseEjectionTimeMs: 30_000,
  maxEjectionTimeMs: 300_000,
  maxEjectionPercent: 50,
  successRateEjection: undefined,
  failurePercentageEjection,
};

const ok = { code: Code.OK };
const lostConnection = { code: Code.UNAVAILABLE, from: 'local' } as const;
const timedOut = { code: Code.DEADLINE_EXCEEDED, from: 'local' } as const;

/** A detector over `a`, `b`, `c` with a clock that the test moves: its rules are about seconds and minutes. */
function setUp(t: TestContext, detection?: OutlierDetectionConfig) {
  t.mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  let nowMs = 0;
  t.mock.method(performance, 'now', () => nowMs);
  const log: string[] = [];
  const state = { serving: ['a', 'b', 'c'], answers: false };
  const detector = createOutlierDetector({
    config: detection,
    serving: () => state.serving,
    trial: async (id) => {
      log.push(`trial ${id}`);
      return state.answers;
    },
    onEjected: (id, reason) => log.push(`${id} out: ${reason}`),
    onReturned: (id) => log.push(`${id} back`),
  });
  t.after(() => detector.stop());
  return {
    detector,
    log,
    state,
    tick: async (ms: number) => {
      nowMs += ms;
      t.mock.timers.tick(ms);
      // The trial's promise.
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
}

function ends(
  detector: OutlierDetector,
  endpointId: string,
  status: Partial<CallStatus> & { readonly code: number },
  { times = 1, lost = false, hadWholeTimeout = true, durationMs = 1 } = {},
): void {
  for (let call = 0; call < times; call++) {
    detector.attemptEnded({
      type: 'attempt-ended',
      method: { path: '/test.Service/Method', requestStream: false, responseStream: false, idempotency: 'UNKNOWN' },
      endpointId,
      attempt: 0,
      status: { details: '', trailers: [], from: 'peer', seenByPeer: 'maybe', ...status },
      durationMs,
      sentBytes: 0,
      receivedBytes: 0,
      lost,
      hadWholeTimeout,
    });
  }
}

for (const failure of [lostConnection, timedOut]) {
  test(`takes an endpoint out after three failures in a row: ${failure.code}`, (t) => {
    const { detector, log } = setUp(t);
    ends(detector, 'a', failure, { times: 2 });
    assert.deepEqual(log, []);
    ends(detector, 'a', failure);
    assert.deepEqual(log, ['a out: consecutive-failures']);
    assert.equal(detector.ejection('a'), 'consecutive-failures');
  });
}

test('begins to count anew with each answer, an error too', (t) => {
  const { detector, log } = setUp(t);
  for (const answer of [ok, { code: Code.INTERNAL }, { code: Code.INVALID_ARGUMENT }]) {
    ends(detector, 'a', lostConnection, { times: 2 });
    ends(detector, 'a', answer);
  }
  assert.deepEqual(log, []);
});

for (const [what, status, options] of [
  ['deadlines that the caller made too short', timedOut, { hadWholeTimeout: false }],
  ['hedges that lost', { code: Code.CANCELLED, from: 'local' }, { lost: true }],
  ['calls that the caller cancelled', { code: Code.CANCELLED, from: 'local' }, {}],
  ['calls that were never sent', { code: Code.UNAVAILABLE, from: 'local', seenByPeer: 'no' }, {}],
  ['errors that a replica sent', { code: Code.UNAVAILABLE }, {}],
] as const) {
  test(`takes no endpoint out for ${what}`, (t) => {
    const { detector, log } = setUp(t);
    ends(detector, 'a', status, { times: 100, ...options });
    assert.deepEqual(log, []);
  });
}

test('never takes the last endpoint out', (t) => {
  const { detector, log, state } = setUp(t);
  for (const id of state.serving) ends(detector, id, lostConnection, { times: 10 });
  assert.deepEqual(log, ['a out: consecutive-failures', 'b out: consecutive-failures']);
});

test('brings an endpoint back with its first answer, and waits longer for each trial', async (t) => {
  const { detector, log, state, tick } = setUp(t);
  t.mock.method(Math, 'random', () => 0.5);
  ends(detector, 'a', timedOut, { times: 3 });
  await tick(999);
  assert.equal(log.length, 1);
  await tick(1);
  assert.deepEqual(log.slice(1), ['trial a']);
  await tick(1_999);
  assert.equal(log.length, 2);
  state.answers = true;
  await tick(1);
  assert.deepEqual(log.slice(2), ['trial a', 'a back']);
  assert.equal(detector.ejection('a'), undefined);
});

test('forgets an endpoint whose connection was lost', async (t) => {
  const { detector, log, tick } = setUp(t);
  ends(detector, 'a', timedOut, { times: 3 });
  detector.forget('a');
  assert.deepEqual(log.slice(1), ['a back']);
  await tick(60_000);
  assert.equal(log.length, 2, 'no trial');
});

test('compares the endpoints each interval, and lets one back after its time', async (t) => {
  const { detector, log, tick } = setUp(t, config);
  const interval = async () => {
    ends(detector, 'a', { code: Code.INTERNAL }, { times: 20 });
    for (const id of ['b', 'c']) ends(detector, id, ok, { times: 20 });
    await tick(10_000);
  };
  await interval();
  assert.deepEqual(log, ['a out: failure-percentage']);
  await tick(20_000);
  assert.equal(log.length, 1);
  await tick(10_000);
  assert.deepEqual(log.slice(1), ['a back']);
});

test('does not hold against an endpoint that is back what it was out for', async (t) => {
  const { detector, log, state, tick } = setUp(t, config);
  for (const id of ['b', 'c']) ends(detector, id, ok, { times: 100 });
  // The last of them expire while it is out already.
  ends(detector, 'a', timedOut, { times: 67 });
  state.answers = true;
  await tick(1_200);
  assert.deepEqual(log, ['a out: consecutive-failures', 'trial a', 'a back']);
  await tick(10);
  ends(detector, 'a', timedOut, { times: 3, durationMs: 1_000 });
  assert.equal(log.length, 3, 'calls that it got before it was out');
  ends(detector, 'a', ok, { times: 5 });
  await tick(10_000);
  assert.equal(detector.ejection('a'), undefined);
  for (const id of ['b', 'c']) ends(detector, id, ok, { times: 100 });
  ends(detector, 'a', { code: Code.INTERNAL }, { times: 67 });
  await tick(10_000);
  assert.equal(detector.ejection('a'), 'failure-percentage', 'what it does from then on counts');
});

test('takes no more than max_ejection_percent out, but always one', async (t) => {
  const { detector, log, state, tick } = setUp(t, { ...config, maxEjectionPercent: 1 });
  state.serving = ['a', 'b', 'c', 'd', 'e', 'f'];
  for (const id of ['a', 'b']) ends(detector, id, { code: Code.INTERNAL }, { times: 20 });
  for (const id of ['c', 'd', 'e', 'f']) ends(detector, id, ok, { times: 20 });
  await tick(10_000);
  assert.deepEqual(log, ['a out: failure-percentage']);
});

const sample = (id: string, failures: number, calls = 100) => ({ id, calls, failures });

for (const [what, detection, samples, expected] of [
  ['the one that fails', { failurePercentageEjection }, [sample('a', 90), sample('b', 1), sample('c', 0)], ['a']],
  ['nobody when all fail', { failurePercentageEjection }, [sample('a', 90), sample('b', 88), sample('c', 92)], []],
  ['nobody below the threshold', { failurePercentageEjection }, [sample('a', 50), sample('b', 0)], []],
  ['nobody with too few calls', { failurePercentageEjection }, [sample('a', 9, 9), sample('b', 0)], []],
  ['nobody among too few peers', { failurePercentageEjection }, [sample('a', 90), sample('b', 0, 5)], []],
  ['the one far below the mean', { successRateEjection }, [sample('a', 20), sample('b', 1), sample('c', 2)], ['a']],
  ['nobody when all are alike', { successRateEjection }, [sample('a', 3), sample('b', 2), sample('c', 2)], []],
  [
    'nobody that policy does not enforce',
    { failurePercentageEjection: { ...failurePercentageEjection, enforcementPercentage: 0 } },
    [sample('a', 90), sample('b', 0)],
    [],
  ],
] as const) {
  test(`finds ${what}`, () => {
    const found = outliers(
      { successRateEjection: undefined, failurePercentageEjection: undefined, ...detection },
      samples,
    );
    assert.deepEqual(
      found.map(({ id }) => id),
      expected,
    );
  });
}
