import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { createReaper } from './reaper.ts';

function startSleeper(): ChildProcess {
  return spawn('sleep', ['60'], { stdio: 'ignore' });
}

function makeDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'tandem-test-'));
  writeFileSync(join(directory, 'file'), '');
  return directory;
}

test('lets go of what it watched when it is stopped, and removes its directory', async () => {
  const sleeper = startSleeper();
  const directory = makeDirectory();
  const reaper = createReaper();
  reaper.start(directory);
  reaper.watch(sleeper.pid ?? 0);
  await reaper.stop();
  assert.equal(existsSync(directory), false);
  assert.equal(sleeper.exitCode, null);
  sleeper.kill();
  assert.deepEqual(await once(sleeper, 'exit'), [null, 'SIGTERM']);
});

test('kills what it watches, frozen or not, when its owner is killed', async () => {
  const [watched, frozen, forgotten] = [startSleeper(), startSleeper(), startSleeper()];
  frozen.kill('SIGSTOP');
  const directory = makeDirectory();
  const script = `
    const { createReaper } = await import(${JSON.stringify(fileURLToPath(new URL('reaper.ts', import.meta.url)))});
    const reaper = createReaper();
    reaper.start(${JSON.stringify(directory)});
    for (const pid of [${watched.pid}, ${frozen.pid}, ${forgotten.pid}]) reaper.watch(pid);
    reaper.forget(${forgotten.pid});
    setImmediate(() => process.kill(process.pid, 'SIGKILL'));`;
  spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: 'ignore' });
  const exits = await Promise.all([once(watched, 'exit'), once(frozen, 'exit')]);
  assert.deepEqual(exits, [
    [null, 'SIGKILL'],
    [null, 'SIGKILL'],
  ]);
  assert.equal(forgotten.exitCode, null);
  forgotten.kill();
  await once(forgotten, 'exit');
});
