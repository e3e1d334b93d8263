import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CallStart, CallStatus, Connection, Method } from '../call/call.ts';
import { getText } from '../call/metadata.ts';
import { Code, localStatus } from '../call/status.ts';
import { createAttempts } from './attempts.ts';
import { type Budget, createBudget } from './budget.ts';
import type { ChannelEvent } from './events.ts';
import type { HedgingPolicy, MethodConfig, RetryPolicy } from './service-config.ts';
import { startCall } from './testing/call.ts';
import { type ScriptedCall, ScriptedConnection } from './testing/scripted-connection.ts';
import { until } from './testing/until.ts';

const unary = method(false, false);
const retryPolicy: RetryPolicy = {
  maxAttempts: 3,
  initialBackoffMs: 1,
  maxBackoffMs: 4,
  backoffMultiplier: 2,
  retryableCodes: new Set([Code.UNAVAILABLE]),
  perAttemptRecvTimeoutMs: undefined,
};
const unavailable = { code: Code.UNAVAILABLE };
const notSent = { code: Code.UNAVAILABLE, from: 'local', seenByPeer: 'no' } as const;

function method(requestStream: boolean, responseStream: boolean): Method {
  return { path: '/test.Service/Method', requestStream, responseStream, idempotency: 'NO_SIDE_EFFECTS' };
}

/** Attempts go to the connections in turn, whatever they are asked to avoid; none are ready while the list is empty. */
function setUp(
  overrides: Partial<MethodConfig> = {},
  ids: readonly string[] = ['a', 'b', 'c'],
  budget: Budget = createBudget(undefined),
) {
  const connections = ids.map((id) => new ScriptedConnection(id));
  const picks: (readonly string[])[] = [];
  const events: ChannelEvent[] = [];
  const state: { failing: CallStatus | undefined } = { failing: undefined };
  const config: MethodConfig = {
    timeoutMs: undefined,
    waitForReady: false,
    retryPolicy: undefined,
    hedgingPolicy: undefined,
    ...overrides,
  };
  const attempts = createAttempts({
    pick: (start: CallStart): Connection | CallStatus | undefined => {
      picks.push(start.avoid);
      return state.failing ?? connections[(picks.length - 1) % connections.length];
    },
    active: () => ({ upstream: 'primary', target: 'file:///primary.json', priority: 0 }),
    methodConfig: () => config,
    budget,
    onEvent: (event) => events.push(event),
  });
  const started = (): ScriptedCall[] => connections.flatMap(({ calls }) => calls);
  const attempt = async (index: number): Promise<ScriptedCall> => {
    const calls = () => events.filter(({ type }) => type === 'attempt-started').length;
    await until(() => calls() > index);
    const event = events.filter((candidate) => candidate.type === 'attempt-started')[index];
    const connection = connections.find(({ endpoint }) => endpoint.id === event?.endpointId);
    const call = connection?.calls.at(-1);
    assert.ok(call !== undefined);
    return call;
  };
  return { attempts, connections, picks, events, state, started, attempt };
}

test('passes a call and its answer through', async () => {
  const { attempts, attempt, events } = setUp();
  const recorded = startCall(attempts, unary);
  recorded.call.request(1);
  recorded.call.write(Buffer.from('ping'), true);
  const first = await attempt(0);
  first.headers('x');
  first.message('pong');
  first.ends({ code: Code.OK });
  await recorded.status;
  assert.deepEqual([first.written, first.requestEnded, first.requested], [['ping'], true, 1]);
  assert.deepEqual(recorded.log, ['headers', 'message pong', 'status OK']);
  assert.deepEqual(
    events.map(({ type }) => type),
    ['attempt-started', 'attempt-ended', 'call-ended'],
  );
});

test('sends a call that was not seen again at once, elsewhere, whatever the method', async () => {
  const { attempts, attempt, picks } = setUp();
  const recorded = startCall(attempts, unary);
  recorded.call.write(Buffer.from('ping'), true);
  (await attempt(0)).ends(notSent);
  const second = await attempt(1);
  assert.deepEqual(second.written, ['ping']);
  assert.deepEqual(picks, [[], ['a']]);
  assert.equal(getText(second.start.metadata, 'grpc-previous-rpc-attempts'), undefined, 'no replica saw the first');
  second.ends({ code: Code.OK });
  assert.equal((await recorded.status).code, Code.OK);
});

test('does not send a call again without end', async () => {
  const { attempts, attempt, started } = setUp();
  const recorded = startCall(attempts, unary);
  recorded.call.write(Buffer.from('ping'), true);
  for (let index = 0; index <= 10; index++) (await attempt(index)).ends(notSent);
  assert.equal((await recorded.status).code, Code.UNAVAILABLE);
  assert.equal(started().length, 11);
});

test('retries what the policy names, elsewhere, and says which attempt it is', async () => {
  const { attempts, attempt, picks } = setUp({ retryPolicy });
  const recorded = startCall(attempts, unary);
  recorded.call.request(1);
  recorded.call.write(Buffer.from('ping'), true);
  (await attempt(0)).ends(unavailable);
  (await attempt(1)).ends(unavailable);
  const third = await attempt(2);
  assert.deepEqual([third.written, third.requested], [['ping'], 1]);
  assert.equal(getText(third.start.metadata, 'grpc-previous-rpc-attempts'), '2');
  assert.deepEqual(picks, [[], ['a'], ['a', 'b']]);
  third.message('pong');
  third.ends({ code: Code.OK });
  assert.equal((await recorded.status).code, Code.OK);
});

test('gives up after maxAttempts, with the last status', async () => {
  const { attempts, attempt, started, events } = setUp({ retryPolicy });
  const recorded = startCall(attempts, unary);
  recorded.call.write(Buffer.from('ping'), true);
  for (let index = 0; index < 3; index++) (await attempt(index)).ends({ ...unavailable, details: `attempt ${index}` });
  assert.equal((await recorded.status).details, 'attempt 2');
  assert.equal(started().length, 3);
  const last = events.at(-1);
  assert.ok(last?.type === 'call-ended' && last.attempts === 3);
});

for (const [why, status, overrides] of [
  ['the method has no policy', unavailable, {}],
  ['the policy does not name the code', { code: Code.INTERNAL }, { retryPolicy }],
  ['the server says never', { ...unavailable, trailers: [['grpc-retry-pushback-ms', '-1']] }, { retryPolicy }],
] as [string, { code: number }, Partial<MethodConfig>][]) {
  test(`does not retry when ${why}`, async () => {
    const { attempts, attempt, started } = setUp(overrides);
    const recorded = startCall(attempts, unary);
    recorded.call.write(Buffer.from('ping'), true);
    (await attempt(0)).ends(status);
    assert.equal((await recorded.status).code, status.code);
    assert.equal(started().length, 1);
  });
}

test('waits as long as the server asks', async () => {
  const { attempts, attempt } = setUp({ retryPolicy });
  const recorded = startCall(attempts, unary);
  recorded.call.write(Buffer.from('ping'), true);
  const first = await attempt(0);
  const beganMs = performance.now();
  first.ends({ ...unavailable, trailers: [['grpc-retry-pushback-ms', '60']] });
  const second = await attempt(1);
  assert.ok(performance.now() - beganMs >= 55);
  second.ends({ code: Code.OK });
  await recorded.status;
});

test('holds headers back while another attempt may follow, and drops those of a failed one', async () => {
  const { attempts, attempt } = setUp({ retryPolicy });
  const recorded = startCall(attempts, unary);
  recorded.call.request(1);
  recorded.call.write(Buffer.from('ping'), true);
  const first = await attempt(0);
  first.headers('first');
  assert.deepEqual(recorded.log, []);
  first.ends(unavailable);
  const second = await attempt(1);
  second.headers('second');
  second.message('pong');
  second.ends({ code: Code.OK });
  await recorded.status;
  assert.deepEqual(recorded.log, ['headers', 'message pong', 'status OK']);
  assert.equal(getText(recorded.headers, 'x-text'), 'second');
  assert.equal(recorded.endpointId, 'b');
});

test('does not repeat a stream once its first message has come', async () => {
  const { attempts, attempt, started } = setUp({ retryPolicy });
  const recorded = startCall(attempts, method(false, true));
  recorded.call.request(5);
  recorded.call.write(Buffer.from('go'), true);
  const first = await attempt(0);
  first.message('1');
  first.ends(unavailable);
  assert.equal((await recorded.status).code, Code.UNAVAILABLE);
  assert.deepEqual(recorded.log, ['message 1', 'status UNAVAILABLE']);
  assert.equal(started().length, 1);
});

test('gives each attempt its own deadline, and takes its expiry for a failure', async () => {
  const { attempts, attempt } = setUp({ retryPolicy: { ...retryPolicy, perAttemptRecvTimeoutMs: 50 } });
  const deadlineMs = performance.now() + 2_000;
  const recorded = startCall(attempts, unary, { deadlineMs });
  recorded.call.write(Buffer.from('ping'), true);
  const first = await attempt(0);
  assert.ok(first.start.deadlineMs <= performance.now() + 50);
  first.ends({ code: Code.DEADLINE_EXCEEDED, from: 'local' });
  const second = await attempt(1);
  assert.ok(second.start.deadlineMs <= deadlineMs);
  second.ends({ code: Code.OK });
  assert.equal((await recorded.status).code, Code.OK);
});

test('gives a stream the deadline of its call, since it may answer and go on for long', async () => {
  for (const stream of [method(false, true), method(true, false), method(true, true)]) {
    const { attempts, attempt } = setUp({ retryPolicy: { ...retryPolicy, perAttemptRecvTimeoutMs: 50 } });
    const deadlineMs = performance.now() + 2_000;
    const recorded = startCall(attempts, stream, { deadlineMs });
    const first = await attempt(0);
    assert.equal(first.start.deadlineMs, deadlineMs);
    first.ends({ code: Code.OK });
    await recorded.status;
  }
});

test('takes an attempt for expired whoever tells it first, a timer early or late', async () => {
  for (const earlyMs of [3, -5]) {
    const { attempts, attempt } = setUp({ retryPolicy: { ...retryPolicy, perAttemptRecvTimeoutMs: 50 } });
    const recorded = startCall(attempts, unary, { deadlineMs: performance.now() + 2_000 });
    recorded.call.write(Buffer.from('ping'), true);
    const first = await attempt(0);
    // Spun, since the moment is what counts.
    while (performance.now() < first.start.deadlineMs - earlyMs);
    first.ends({ code: Code.DEADLINE_EXCEEDED, from: 'peer' });
    (await attempt(1)).ends({ code: Code.OK });
    assert.equal((await recorded.status).code, Code.OK);
  }
});

test('does not take a deadline that the replica reports, or that of the call, for an expired attempt', async () => {
  for (const [timeoutMs, from] of [
    [5_000, 'peer'],
    [20, 'local'],
  ] as const) {
    const { attempts, attempt, started } = setUp({ retryPolicy: { ...retryPolicy, perAttemptRecvTimeoutMs: 50 } });
    const recorded = startCall(attempts, unary, { deadlineMs: performance.now() + timeoutMs });
    recorded.call.write(Buffer.from('ping'), true);
    (await attempt(0)).ends({ code: Code.DEADLINE_EXCEEDED, from });
    await recorded.status;
    assert.equal(started().length, 1);
  }
});

test('shortens the deadline to the timeout of the method', async () => {
  const { attempts, attempt } = setUp({ timeoutMs: 100 });
  const recorded = startCall(attempts, unary);
  assert.ok((await attempt(0)).start.deadlineMs <= performance.now() + 100);
  recorded.call.cancel(Code.CANCELLED, 'done');
  await recorded.status;
});

test('queues a call until an endpoint is ready, in order', async () => {
  const { attempts, connections, started } = setUp({}, []);
  const first = startCall(attempts, unary);
  const second = startCall(attempts, unary);
  for (const { call } of [first, second]) call.write(Buffer.from('ping'), true);
  assert.equal(started().length, 0);
  connections.push(new ScriptedConnection('late'));
  attempts.repick();
  assert.equal(started().length, 2);
  for (const call of started()) call.ends({ code: Code.OK });
  await Promise.all([first.status, second.status]);
});

test('ends a queued call at its deadline, unseen', async () => {
  const { attempts } = setUp({}, []);
  const recorded = startCall(attempts, unary, { deadlineMs: performance.now() + 30 });
  const status = await recorded.status;
  assert.deepEqual([status.code, status.seenByPeer], [Code.DEADLINE_EXCEEDED, 'no']);
});

test('keeps a call queued whose deadline is further away than a timer reaches', async () => {
  const { attempts, connections, started } = setUp({}, []);
  const recorded = startCall(attempts, unary, { deadlineMs: performance.now() + 2 ** 32 });
  await new Promise((resolve) => setTimeout(resolve, 20));
  connections.push(new ScriptedConnection('late'));
  attempts.repick();
  started()[0]?.ends({ code: Code.OK });
  assert.equal((await recorded.status).code, Code.OK);
});

test('fails at once when no endpoint can serve, unless the method waits for ready', async () => {
  const failing = localStatus(Code.UNAVAILABLE, 'nobody there', 'no');
  const { attempts, state } = setUp();
  state.failing = failing;
  const recorded = startCall(attempts, unary);
  assert.deepEqual(recorded.log, [], 'nothing is called inside start()');
  assert.equal((await recorded.status).details, 'nobody there');

  const patient = setUp({ waitForReady: true });
  patient.state.failing = failing;
  const waiting = startCall(patient.attempts, unary);
  patient.state.failing = undefined;
  patient.attempts.repick();
  (await patient.attempt(0)).ends({ code: Code.OK });
  assert.equal((await waiting.status).code, Code.OK);
});

test('cancels the running attempt, and tells the end once', async () => {
  const { attempts, attempt } = setUp({ retryPolicy });
  const recorded = startCall(attempts, unary);
  recorded.call.write(Buffer.from('ping'), true);
  const first = await attempt(0);
  recorded.call.cancel(Code.CANCELLED, 'left');
  assert.deepEqual(recorded.log, []);
  await recorded.status;
  first.ends(unavailable);
  assert.ok(first.cancelled);
  assert.deepEqual(recorded.log, ['status CANCELLED']);
});

test('stops between attempts when it is cancelled', async () => {
  const { attempts, attempt, started } = setUp({
    retryPolicy: { ...retryPolicy, initialBackoffMs: 1_000, maxBackoffMs: 1_000 },
  });
  const recorded = startCall(attempts, unary);
  recorded.call.write(Buffer.from('ping'), true);
  assert.equal(attempts.pausing, 0);
  (await attempt(0)).ends(unavailable);
  assert.equal(attempts.pausing, 1);
  recorded.call.cancel(Code.CANCELLED, 'left');
  assert.equal((await recorded.status).code, Code.CANCELLED);
  assert.equal(started().length, 1);
  assert.equal(attempts.pausing, 0);
});

test('keeps at most 1 MiB of a request for another attempt', async () => {
  const { attempts, attempt, started } = setUp({ retryPolicy });
  const recorded = startCall(attempts, method(true, false));
  const first = await attempt(0);
  const half = Buffer.alloc(600 * 1024);
  recorded.call.write(half, false);
  recorded.call.write(half, false);
  first.ends(unavailable);
  assert.equal((await recorded.status).code, Code.UNAVAILABLE);
  assert.equal(started().length, 1);
});

test('replays a stream of requests, and lets the writer go on', async () => {
  const { attempts, attempt } = setUp({ retryPolicy });
  const recorded = startCall(attempts, method(true, false));
  const first = await attempt(0);
  first.writable = false;
  assert.equal(recorded.call.write(Buffer.from('1'), false), false);
  first.ends(unavailable);
  const second = await attempt(1);
  await until(() => recorded.log.includes('writable'));
  recorded.call.write(Buffer.from('2'), false);
  recorded.call.end();
  assert.deepEqual([second.written, second.requestEnded], [['1', '2'], true]);
  second.ends({ code: Code.OK });
  await recorded.status;
});

test('stops retrying when the budget is spent, and goes on when successes have filled it', async () => {
  const budget = createBudget({ maxTokens: 4, tokenRatio: 1 });
  let withheld = 0;
  const attemptsOf = async (ends: { code: number }) => {
    const { attempts, attempt, started, events } = setUp({ retryPolicy }, ['a', 'b', 'c'], budget);
    const recorded = startCall(attempts, unary);
    recorded.call.request(1);
    recorded.call.write(Buffer.from('ping'), true);
    for (let index = 0; !recorded.log.some((line) => line.startsWith('status')); index++) {
      (await attempt(index)).ends(ends);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    withheld = events.filter(({ type }) => type === 'budget-exhausted').length;
    return started().length;
  };
  // 4 tokens: the first failure leaves 3, more than half; the second leaves 2.
  assert.equal(await attemptsOf(unavailable), 2);
  assert.equal(await attemptsOf(unavailable), 1);
  assert.equal(withheld, 1);
  assert.equal(budget.tokens, 1);
  for (let call = 0; call < 9; call++) await attemptsOf({ code: Code.OK });
  assert.equal(budget.tokens, 4);
  assert.equal(await attemptsOf(unavailable), 2);
});

const hedgingPolicy: HedgingPolicy = {
  maxAttempts: 3,
  hedgingDelayMs: 20,
  nonFatalCodes: new Set([Code.UNAVAILABLE]),
};

test('hedges: the first answer wins, the others are cancelled and count neither way', async () => {
  const { attempts, attempt, events, picks } = setUp({ hedgingPolicy });
  const recorded = startCall(attempts, unary);
  recorded.call.request(1);
  recorded.call.write(Buffer.from('ping'), true);
  const first = await attempt(0);
  first.headers('first');
  const second = await attempt(1);
  second.headers('second');
  second.message('pong');
  second.ends({ code: Code.OK });
  assert.equal((await recorded.status).code, Code.OK);
  await until(() => events.filter(({ type }) => type === 'attempt-ended').length === 2);
  assert.ok(first.cancelled);
  assert.deepEqual(recorded.log, ['headers', 'message pong', 'status OK']);
  assert.equal(getText(recorded.headers, 'x-text'), 'second');
  assert.deepEqual(picks, [[], ['a']]);
  const ended = events.filter((event) => event.type === 'attempt-ended');
  assert.deepEqual(
    ended.map(({ endpointId, lost }) => [endpointId, lost]),
    [
      ['b', false],
      ['a', true],
    ],
  );
});

test('does not hedge a call that is answered in time', async () => {
  const { attempts, attempt, started } = setUp({ hedgingPolicy });
  const recorded = startCall(attempts, unary);
  recorded.call.write(Buffer.from('ping'), true);
  (await attempt(0)).ends({ code: Code.OK });
  await recorded.status;
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(started().length, 1);
});

test('begins the next hedge at once when one fails, and fails with the last', async () => {
  const { attempts, attempt, started } = setUp({ hedgingPolicy: { ...hedgingPolicy, hedgingDelayMs: 60_000 } });
  const recorded = startCall(attempts, unary);
  recorded.call.write(Buffer.from('ping'), true);
  for (let index = 0; index < 3; index++) (await attempt(index)).ends({ ...unavailable, details: `attempt ${index}` });
  assert.equal((await recorded.status).details, 'attempt 2');
  assert.equal(started().length, 3);
});

test('ends a hedged call with a fatal status, and cancels the others', async () => {
  const { attempts, attempt } = setUp({ hedgingPolicy });
  const recorded = startCall(attempts, unary);
  recorded.call.write(Buffer.from('ping'), true);
  const first = await attempt(0);
  (await attempt(1)).ends({ code: Code.INVALID_ARGUMENT });
  assert.equal((await recorded.status).code, Code.INVALID_ARGUMENT);
  assert.ok(first.cancelled);
});

test('makes no hedge that the budget does not allow', async () => {
  const budget = createBudget({ maxTokens: 2, tokenRatio: 0.1 });
  budget.failed();
  const { attempts, attempt, started, events } = setUp(
    { hedgingPolicy: { ...hedgingPolicy, hedgingDelayMs: 1 } },
    ['a', 'b'],
    budget,
  );
  const recorded = startCall(attempts, unary);
  recorded.call.write(Buffer.from('ping'), true);
  const first = await attempt(0);
  await new Promise((resolve) => setTimeout(resolve, 30));
  first.ends({ code: Code.OK });
  await recorded.status;
  assert.equal(started().length, 1);
  assert.equal(events.filter(({ type }) => type === 'budget-exhausted').length, 1);
});

test('cancels every running attempt with the call', async () => {
  const { attempts, attempt } = setUp({ hedgingPolicy });
  const recorded = startCall(attempts, unary);
  recorded.call.write(Buffer.from('ping'), true);
  const first = await attempt(0);
  const second = await attempt(1);
  recorded.call.cancel(Code.CANCELLED, 'left');
  await recorded.status;
  assert.ok(first.cancelled && second.cancelled);
});

test('knows whether an attempt had the whole timeout of the service config', async () => {
  for (const [callTimeoutMs, expected] of [
    [10_000, true],
    [1, false],
  ] as const) {
    const { attempts, attempt, events } = setUp({ retryPolicy: { ...retryPolicy, perAttemptRecvTimeoutMs: 500 } });
    const recorded = startCall(attempts, unary, { deadlineMs: performance.now() + callTimeoutMs });
    recorded.call.write(Buffer.from('ping'), true);
    (await attempt(0)).ends({ code: Code.OK });
    await recorded.status;
    const ended = events.find((event) => event.type === 'attempt-ended');
    assert.equal(ended?.hadWholeTimeout, expected);
  }
});
