import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createEventLoop } from './event-loop.ts';

/** An event loop whose time the test tells. */
function fakeLoop() {
  const time = { nowMs: 0, idleMs: 0, cpuMs: 0 };
  const eventLoop = createEventLoop({ now: () => time.nowMs, idle: () => time.idleMs, cpu: () => time.cpuMs });
  eventLoop.start();
  return {
    eventLoop,
    /** A turn that waits, works, and has no CPU for so long. */
    async turn(workMs: number, waitMs = 0, starvedMs = 0) {
      time.idleMs += waitMs;
      time.cpuMs += workMs;
      time.nowMs += waitMs + workMs + starvedMs;
      await new Promise((resolve) => setImmediate(resolve));
    },
    work(ms: number) {
      time.cpuMs += ms;
      time.nowMs += ms;
    },
  };
}

test('is overloaded once every turn has been long for a while, and no longer than that', async () => {
  const { eventLoop, turn } = fakeLoop();
  for (let ms = 0; ms < 500; ms += 100) await turn(100);
  assert.equal(eventLoop.overloaded, false);
  await turn(100);
  assert.equal(eventLoop.overloaded, true);
  await turn(1);
  assert.equal(eventLoop.overloaded, false);
  eventLoop.stop();
});

test('stays overloaded while turns last as long as they take calls for, without time to wait', async () => {
  for (const [workMs, idleMs, stays] of [
    [25, 0, true],
    [24, 0, false],
    [25, 2, false],
  ] as const) {
    const { eventLoop, turn } = fakeLoop();
    for (let ms = 0; ms <= 500; ms += 100) await turn(100);
    await turn(workMs, idleMs);
    assert.equal(eventLoop.overloaded, stays, `${workMs} ms of work, ${idleMs} ms of waiting`);
    eventLoop.stop();
  }
});

test('is overloaded again sooner than the first time, while that is not long ago', async () => {
  const { eventLoop, turn } = fakeLoop();
  for (let ms = 0; ms <= 500; ms += 100) await turn(100);
  await turn(1, 9_000);
  for (let ms = 0; ms < 100; ms += 100) await turn(100);
  assert.equal(eventLoop.overloaded, false);
  await turn(100);
  assert.equal(eventLoop.overloaded, true);
  await turn(1, 11_000);
  for (let ms = 0; ms < 500; ms += 100) await turn(100);
  assert.equal(eventLoop.overloaded, false);
  eventLoop.stop();
});

test('takes neither a single long turn for an overload nor long turns with time between them', async () => {
  const { eventLoop, turn } = fakeLoop();
  await turn(1);
  await turn(2_000, 5);
  assert.equal(eventLoop.overloaded, false);
  for (let ms = 0; ms < 1_000; ms += 150) await turn(150, 2);
  assert.equal(eventLoop.overloaded, false);
  await turn(1, 600_000);
  assert.equal(eventLoop.overloaded, false);
  eventLoop.stop();
});

test('is not overloaded by others who have the CPU', async () => {
  const { eventLoop, turn } = fakeLoop();
  for (let ms = 0; ms < 1_000; ms += 50) await turn(3, 0, 47);
  assert.equal(eventLoop.overloaded, false);
  eventLoop.stop();
});

test('tells how long the running turn and the last one worked', async () => {
  const { eventLoop, turn, work } = fakeLoop();
  await turn(7);
  work(3);
  assert.deepEqual([eventLoop.lastTurnMs, eventLoop.turnMs()], [7, 3]);
  eventLoop.stop();
});

test('tells how long what is read now may have waited, whoever had the CPU', async () => {
  const { eventLoop, turn, work } = fakeLoop();
  await turn(70, 500, 20);
  work(5);
  assert.equal(eventLoop.lagMs(), 95);
  await turn(0);
  assert.equal(eventLoop.lagMs(), 5);
  eventLoop.stop();
});

test('sees this process block its own event loop', async () => {
  const eventLoop = createEventLoop();
  eventLoop.start();
  const cpuUs = () => process.threadCpuUsage().user + process.threadCpuUsage().system;
  for (let turn = 0; turn < 8; turn++) {
    const untilUs = cpuUs() + 105_000;
    while (cpuUs() < untilUs);
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(eventLoop.overloaded, true);
  assert.ok(eventLoop.lastTurnMs >= 100, `${eventLoop.lastTurnMs}`);
  eventLoop.stop();
});
