import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Child, startChild } from './child.ts';

const entry = fileURLToPath(new URL('testdata/program.ts', import.meta.url));

function start(t: TestContext, behaviour?: string, onLine?: (line: string) => void): Child {
  const child = startChild({ name: 'p', entry, env: { BEHAVIOUR: behaviour }, ...(onLine && { onLine }) });
  t.after(() => {
    child.signal('SIGKILL');
    return child.exited;
  });
  return child;
}

test('is ready once it has said its ports and /readyz answers 200', async (t) => {
  const lines: string[] = [];
  const child = start(t, undefined, (line) => lines.push(line));
  const { port, adminPort } = await child.ready(5_000);
  assert.equal(port, adminPort);
  assert.equal(lines.length, 1);
  assert.deepEqual(await child.stop(5_000), { code: 0, signal: null });
});

test('tells why a program that ended was never ready', async (t) => {
  const child = start(t, 'broken');
  await assert.rejects(child.ready(5_000), {
    message: 'exited with code 1 before it served:\ncannot read the descriptors',
  });
});

test('gives up on a program that says it serves and is not ready', async (t) => {
  const child = start(t, 'unready');
  await assert.rejects(child.ready(300), /was not ready after 300 ms/);
});

test('kills a program that does not stop within the grace', async (t) => {
  const child = start(t, 'stubborn');
  await child.ready(5_000);
  assert.deepEqual(await child.stop(50), { code: null, signal: 'SIGKILL' });
});

test('stops a frozen program in order', async (t) => {
  const child = start(t);
  await child.ready(5_000);
  child.signal('SIGSTOP');
  assert.deepEqual(await child.stop(5_000), { code: 0, signal: null });
});
