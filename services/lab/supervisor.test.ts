import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { startChild } from './child.ts';
import { createSupervised, type ProgramState } from './supervisor.ts';

const entry = fileURLToPath(new URL('testdata/program.ts', import.meta.url));

/** `behaviours` are those of the processes in turn; the last one stays. */
function supervise(t: TestContext, behaviours: (string | undefined)[]) {
  const events: string[] = [];
  const states: ProgramState[] = [];
  const program = createSupervised({
    name: 'p',
    startChild() {
      const behaviour = behaviours.length > 1 ? behaviours.shift() : behaviours[0];
      return startChild({ name: 'p', entry, env: { BEHAVIOUR: behaviour } });
    },
    onChange: () => states.push(program.state),
    onEvent: (text) => events.push(text),
  });
  t.after(() => program.stop());
  return { program, events, states };
}

async function until(check: () => boolean): Promise<void> {
  const deadlineMs = performance.now() + 10_000;
  while (!check()) {
    assert.ok(performance.now() < deadlineMs, 'not within 10 s');
    await delay(10);
  }
}

test('starts a killed program again, as another process', async (t) => {
  const { program, events, states } = supervise(t, [undefined]);
  await program.start();
  const { pid } = program;
  await program.kill();
  await until(() => program.state === 'serving');
  assert.notEqual(program.pid, pid);
  assert.equal(events[0], 'was killed, restarting in 0.2 s');
  assert.match(events[1] ?? '', /^restarted after 0\.\d s$/);
  assert.deepEqual(states, ['starting', 'serving', 'down', 'starting', 'serving']);
});

test('waits longer each time while the program does not come up', async (t) => {
  const { program, events } = supervise(t, [undefined, 'broken', 'broken', undefined]);
  await program.start();
  await program.kill();
  await until(() => events.length === 4);
  assert.deepEqual(events.slice(0, 3), [
    'was killed, restarting in 0.2 s',
    'exited with code 1 before it served, restarting in 0.4 s',
    'exited with code 1 before it served, restarting in 0.8 s',
  ]);
});

test('rejects when the first start fails, and does not try again', async (t) => {
  const { program, events } = supervise(t, ['broken']);
  await assert.rejects(program.start(), /^Error: p exited with code 1 before it served:\ncannot read the descriptors$/);
  assert.deepEqual(events, []);
});

test('does not restart what was stopped, even in its backoff', async (t) => {
  const { program, states } = supervise(t, [undefined]);
  await program.start();
  await program.kill();
  await until(() => program.state === 'down');
  await program.stop(1_000);
  await delay(300);
  assert.equal(states.at(-1), 'stopping');
  assert.equal(program.pid, undefined);
});

test('is frozen until it is thawed', async (t) => {
  const { program } = supervise(t, [undefined]);
  await program.start();
  program.freeze();
  assert.equal(program.state, 'frozen');
  program.thaw();
  assert.equal(program.state, 'serving');
});
