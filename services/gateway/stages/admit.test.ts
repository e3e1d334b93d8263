import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { Call, CallObserver, CallStart, CallStatus } from '#runtime/call/call.ts';
import { Code, codeName } from '#runtime/call/status.ts';
import { createErrorWriter } from '../edge/errors.ts';
import { google } from '../google.ts';
import { createAdmission, type Priority, type ShedReason, shedReasonOf } from './admit.ts';

const method = {
  path: '/test.Service/Do',
  requestStream: false,
  responseStream: false,
  idempotency: 'UNKNOWN',
} as const;

interface Asked {
  readonly call: Call;
  readonly priority: Priority;
  status: CallStatus | undefined;
}

/** An admission of a limit that is fixed unless `min` is less, before an upstream whose calls the test ends, by its own clock. */
function createDoor(t: TestContext, max: number, min = max) {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let now = 1_000;
  t.mock.method(performance, 'now', () => now);
  const loop = { overloaded: false, turns: 0, turnMs: 0, lagMs: 0, idleCalls: 0 };
  const sheds: [ShedReason, Priority][] = [];
  const inside: { observer: CallObserver; start: CallStart; heard: unknown[] }[] = [];
  const admission = createAdmission({
    bounds: { min, max },
    eventLoop: {
      get overloaded() {
        return loop.overloaded;
      },
      get turns() {
        return loop.turns;
      },
      turnMs: () => loop.turnMs,
      lagMs: () => loop.lagMs,
      lastTurnMs: 0,
      start() {},
      stop() {},
    },
    idleCalls: () => loop.idleCalls,
    onShed: (reason, priority) => sheds.push([reason, priority]),
  });
  const caller = admission.admit({
    start(start, observer) {
      const heard: unknown[] = [];
      inside.push({ observer, start, heard });
      return {
        request: (messages) => void heard.push(['request', messages]),
        write: (message, end) => heard.push(['write', message[0], end]) > 0,
        end: () => void heard.push(['end']),
        cancel: (code) => void heard.push(['cancel', codeName(code)]),
      };
    },
  });

  return {
    admission,
    loop,
    sheds,
    inside,
    /** Why a request is refused before anything is done for it; undefined if it may go on. */
    refusal(priority: Priority) {
      const status = admission.refusal(priority);
      return status && shedReasonOf(status);
    },
    ask(priority: Priority = 'high', timeoutMs = 2_000): Asked {
      const start = { method, metadata: [], deadlineMs: now + timeoutMs, priority, context: undefined, avoid: [] };
      let started = false;
      const asked: Asked = {
        priority,
        status: undefined,
        call: caller.start(start, {
          onHeaders() {},
          onMessage() {},
          onWritable() {},
          onStatus(status) {
            assert.ok(started, 'a status inside start()');
            assert.equal(asked.status, undefined, 'a second status');
            asked.status = status;
          },
        }),
      };
      started = true;
      const { call } = asked;
      call.request(1);
      call.write(Uint8Array.of(inside.length), true);
      return asked;
    },
    /** Ends the call that was let in at that index. */
    end(index: number, code: number = Code.OK) {
      inside[index]?.observer.onStatus({ code, details: '', trailers: [], from: 'peer', seenByPeer: 'maybe' });
    },
    async pass(ms: number) {
      now += ms;
      t.mock.timers.tick(ms);
      await Promise.resolve();
    },
  };
}

const told = ({ status }: Asked) => status && (shedReasonOf(status) ?? codeName(status.code));

test('lets in up to the limit, then the ones that wait as others end, with what they were told meanwhile', async (t) => {
  const { ask, inside, end, admission, pass } = createDoor(t, 2);
  const [first] = [ask(), ask(), ask(), ask()];
  assert.deepEqual([inside.length, admission.snapshot().inFlight, admission.snapshot().queued.high], [2, 2, 2]);
  end(0);
  assert.equal(told(first), 'OK');
  assert.equal(inside.length, 3);
  assert.deepEqual(inside[2]?.heard, [
    ['request', 1],
    ['write', 2, true],
  ]);
  end(1);
  end(2);
  end(3);
  await pass(1_000);
  assert.deepEqual([admission.snapshot().inFlight, admission.snapshot().queued.high], [0, 0]);
});

test('sheds what finds no room to wait, and what waited 100 ms', async (t) => {
  const { ask, inside, sheds, pass } = createDoor(t, 2);
  const asked = [ask(), ask(), ask(), ask(), ask()];
  await pass(0);
  assert.deepEqual(asked.map(told), [undefined, undefined, undefined, undefined, 'queue-full']);
  await pass(99);
  assert.deepEqual(asked.slice(2, 4).map(told), [undefined, undefined]);
  await pass(1);
  assert.deepEqual(asked.slice(2, 4).map(told), ['queue-timeout', 'queue-timeout']);
  assert.equal(inside.length, 2);
  assert.deepEqual(sheds, [
    ['queue-full', 'high'],
    ['queue-timeout', 'high'],
    ['queue-timeout', 'high'],
  ]);
});

test('what is shed is UNAVAILABLE, was seen by nobody, and says when to come back', async (t) => {
  const { ask, pass } = createDoor(t, 1);
  ask();
  ask();
  const asked = ask();
  await pass(0);
  assert.ok(asked.status);
  assert.equal(asked.status.seenByPeer, 'no');
  const writer = createErrorWriter(google);
  const json = writer.statusJson(asked.status);
  assert.equal(json.code, Code.UNAVAILABLE);
  assert.equal(json.message, 'the service is overloaded and did not take this call');
  assert.ok([1, 2, 3].includes(Number(writer.headers(json)['retry-after'])), JSON.stringify(json));
});

test('lets in those of high priority first, and gives them the places of the others', async (t) => {
  const { ask, inside, end, pass, admission } = createDoor(t, 2);
  const [, , low1, low2] = [ask(), ask(), ask('low'), ask('low')];
  const high = ask('high');
  await pass(0);
  assert.deepEqual([told(low1), told(low2), told(high)], ['displaced', undefined, undefined]);
  end(0);
  assert.equal(inside[2]?.start.priority, 'high');
  end(1);
  assert.equal(inside[3]?.start.priority, 'low');
  assert.equal(admission.snapshot().shed.displaced.low, 1);
});

test('a call of low priority takes no place of another', async (t) => {
  const { ask, pass } = createDoor(t, 1);
  const [, waits] = [ask(), ask('high')];
  const low = ask('low');
  await pass(0);
  assert.deepEqual([told(waits), told(low)], [undefined, 'queue-full']);
});

test('a call that waits ends with its deadline, and one that is cancelled leaves the queue', async (t) => {
  const { ask, admission, pass, end, inside } = createDoor(t, 3);
  const [, , , hasty, left, late] = [ask(), ask(), ask(), ask('high', 30), ask(), ask('low', 0)];
  left.call.cancel(Code.CANCELLED, 'the client went away');
  assert.equal(left.status, undefined);
  await pass(0);
  assert.equal(told(left), 'CANCELLED');
  await pass(1);
  assert.equal(told(late), 'DEADLINE_EXCEEDED');
  await pass(29);
  assert.deepEqual([told(hasty), hasty.status?.seenByPeer], ['DEADLINE_EXCEEDED', 'no']);
  assert.deepEqual(admission.snapshot().queued, { high: 0, low: 0 });
  end(0);
  assert.equal(inside.length, 3);
});

test('a cancellation goes on to the upstream, whose status frees the place', async (t) => {
  const { ask, inside, end, admission, pass } = createDoor(t, 1);
  const asked = ask();
  asked.call.cancel(Code.CANCELLED, 'the client went away');
  assert.deepEqual(inside[0]?.heard.at(-1), ['cancel', 'CANCELLED']);
  assert.equal(admission.snapshot().inFlight, 1);
  end(0, Code.CANCELLED);
  assert.deepEqual([told(asked), admission.snapshot().inFlight], ['CANCELLED', 0]);
  await pass(0);
});

test('calls that wait for a replica take no room', (t) => {
  const { ask, loop, inside } = createDoor(t, 2);
  ask();
  ask();
  loop.idleCalls = 2;
  ask();
  ask();
  assert.equal(inside.length, 4);
  ask();
  loop.idleCalls = 3;
  ask();
  assert.equal(inside.length, 5);
});

test('in an overload of the event loop a turn takes calls for 25 ms, of low priority only while none of high is shed', async (t) => {
  const { refusal, sheds, loop, pass } = createDoor(t, 100);
  loop.turnMs = 1_000;
  assert.equal(refusal('low'), undefined, 'no overload');
  loop.overloaded = true;
  for (let call = 0; call < 8; call++) assert.equal(refusal('high'), undefined, 'one of the first eight');
  loop.turnMs = 12;
  assert.deepEqual([refusal('low'), refusal('high')], [undefined, undefined]);
  loop.turnMs = 13;
  assert.deepEqual([refusal('low'), refusal('high')], ['event-loop', undefined]);
  loop.turnMs = 25;
  assert.equal(refusal('high'), 'event-loop');
  loop.turns++;
  loop.turnMs = 0;
  assert.equal(refusal('low'), 'event-loop', 'one of high priority was shed just now');
  await pass(101);
  assert.equal(refusal('low'), undefined);
  assert.deepEqual(sheds, [
    ['event-loop', 'low'],
    ['event-loop', 'high'],
    ['event-loop', 'low'],
  ]);
});

test('in an overload of the event loop each turn takes eight calls, four of low priority, however long it takes', async (t) => {
  const { refusal, loop, pass } = createDoor(t, 100);
  loop.overloaded = true;
  loop.turnMs = 1_000;
  for (let turn = 0; turn < 3; turn++) {
    loop.turns++;
    const low = Array.from({ length: 5 }, () => refusal('low'));
    const high = Array.from({ length: 5 }, () => refusal('high'));
    assert.deepEqual(low, [undefined, undefined, undefined, undefined, 'event-loop']);
    assert.deepEqual(high, [undefined, undefined, undefined, undefined, 'event-loop']);
    await pass(101);
  }
});

test('where more are in flight than the limit, every other call that ends lets in one of high priority', async (t) => {
  const { ask, end, loop, inside, pass } = createDoor(t, 2);
  loop.idleCalls = 4;
  for (let call = 0; call < 6; call++) ask();
  loop.idleCalls = 0;
  ask('low');
  ask('high');
  assert.equal(inside.length, 6);
  end(0);
  assert.equal(inside.length, 7);
  assert.equal(inside[6]?.start.priority, 'high');
  end(1);
  end(2);
  end(3);
  assert.equal(inside.length, 7);
  await pass(100);
});

test('the limit does not shrink for what the gateway itself takes to read replies', async (t) => {
  // Without load a call takes 10 ms, and then 310 ms, which shrinks the limit unless they were spent here.
  for (const [lagMs, shrinks] of [
    [300, false],
    [0, true],
  ] as const) {
    const { ask, end, inside, pass, loop, admission } = createDoor(t, 100, 4);
    const round = async (calls: number, ms: number) => {
      const first = inside.length;
      for (let call = 0; call < calls; call++) ask();
      await pass(ms);
      for (let call = first; call < first + calls; call++) end(call);
    };
    for (let rounds = 0; rounds < 20; rounds++) await round(4, 10);
    const before = admission.snapshot().limit;
    loop.lagMs = lagMs;
    for (let rounds = 0; rounds < 4; rounds++) await round(Math.min(24, admission.snapshot().limit), 310);
    assert.equal(admission.snapshot().limit < before, shrinks, `from ${before} to ${admission.snapshot().limit}`);
    assert.deepEqual(admission.snapshot().baselinesMs, { 'test.Service/Do': 10 });
    t.mock.reset();
  }
});

test('sheds nothing for a measurement, however long a call takes', async (t) => {
  const { ask, inside, end, sheds, pass, admission } = createDoor(t, 1_000, 4);
  const dueMs: number[] = [];
  let ended = 0;
  let measured = 0;
  for (let i = 0; i < 30; i++) ask('high', 10_000);
  for (let nowMs = 0; nowMs < 10_000; nowMs += 10) {
    while (dueMs.length < inside.length) dueMs.push(nowMs + 200);
    await pass(10);
    if (admission.snapshot().measuring) measured++;
    for (; (dueMs[ended] ?? Number.POSITIVE_INFINITY) <= nowMs; ended++) {
      end(ended);
      ask('high', 10_000);
    }
  }
  assert.ok(measured > 0, 'it measured');
  assert.deepEqual(sheds, []);
});
