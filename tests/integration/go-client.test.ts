import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { projectFile, run, skipWithout } from '../harness/command.ts';
import { startLab } from '../harness/lab-fixture.ts';

/** The first build compiles Go's library and grpc-go: half a minute on two cores; later ones take a second. */
const buildTimeoutMs = 110_000;

test('a plain Go helloworld client is greeted', async (t) => {
  if (await skipWithout(t, 'go', ['version'])) return;
  const directory = await mkdtemp(join(tmpdir(), 'tandem-go-'));
  t.after(() => rm(directory, { recursive: true }));
  const client = join(directory, 'hello');
  // Neither optimised nor with symbols, which compiles faster.
  const args = ['build', '-gcflags=all=-N -l', '-ldflags=-s -w', '-o', client, '.'];
  const settings = Object.entries(process.env).filter(([name]) => name.startsWith('GO')) as [string, string][];
  const built = await run('go', args, {
    cwd: projectFile('tests/integration/go-hello'),
    env: { ...Object.fromEntries(settings), CGO_ENABLED: '0' },
    timeoutMs: buildTimeoutMs,
  });
  assert.equal(built.code, 0, built.stderr);

  const { lab } = await startLab(t, { replicas: 1, gateways: 0 });
  const { stdout, stderr } = await run(client, [`127.0.0.1:${lab.replicas[0]?.serving?.port}`, 'Go']);
  assert.equal(stdout, 'Greeting: Hello Go\n', stderr);
});
