import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createEventLoop } from './event-loop.ts';

/** An event loop whose time the test tells: one turn of busy time, with idle time before it. */
function fakeLoop() {
  const time = { idle: 0, active: 0 };
  const eventLoop = createEventLoop(() => ({ ...time }));
  eventLoop.start();
  return {
    eventLoop,
    async turn(busyMs: number, idleMs = 0) {
      time.idle += idleMs;
      time.active += busyMs;
      await new Promise((resolve) => setImmediate(resolve));
    },
    work(ms: number) {
      time.active += ms;
    },
  };
}

test('is overloaded once every turn has been long for a while, and no longer than that', async () => {
  const { eventLoop, turn } = fakeLoop();
  for (let ms = 0; ms < 100; ms += 10) await turn(10);
  assert.equal(eventLoop.overloaded, false);
  await turn(10);
  assert.equal(eventLoop.overloaded, true);
  await turn(1);
  assert.equal(eventLoop.overloaded, false);
  eventLoop.stop();
});

test('takes neither a single long turn for an overload nor long turns with time between them', async () => {
  const { eventLoop, turn } = fakeLoop();
  await turn(1);
  await turn(2_000, 5);
  assert.equal(eventLoop.overloaded, false);
  for (let ms = 0; ms < 1_000; ms += 20) await turn(20, 2);
  assert.equal(eventLoop.overloaded, false);
  await turn(1, 600_000);
  assert.equal(eventLoop.overloaded, false);
  eventLoop.stop();
});

test('tells how long the running turn and the last one were busy', async () => {
  const { eventLoop, turn, work } = fakeLoop();
  await turn(7);
  work(3);
  assert.deepEqual([eventLoop.lastTurnMs, eventLoop.turnMs()], [7, 3]);
  eventLoop.stop();
});

test('sees this process block its own event loop', async () => {
  const eventLoop = createEventLoop();
  eventLoop.start();
  for (let turn = 0; turn < 15; turn++) {
    const untilMs = performance.now() + 10;
    while (performance.now() < untilMs);
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(eventLoop.overloaded, true);
  assert.ok(eventLoop.lastTurnMs >= 9, `${eventLoop.lastTurnMs}`);
  eventLoop.stop();
});
