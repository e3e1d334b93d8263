import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { projectFile, run } from './command.ts';

/** The first build compiles Go's library and grpc-go: half a minute on two cores; later ones take a second. */
const buildTimeoutMs = 110_000;

/** Builds a Go program of this project, which is removed after the test. The path of the executable. */
export async function buildGo(t: TestContext, source: string): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'tandem-go-'));
  t.after(() => rm(directory, { recursive: true }));
  const program = join(directory, 'program');
  // Neither optimised nor with symbols, which compiles faster.
  const args = ['build', '-gcflags=all=-N -l', '-ldflags=-s -w', '-o', program, '.'];
  const settings = Object.entries(process.env).filter(([name]) => name.startsWith('GO')) as [string, string][];
  const built = await run('go', args, {
    cwd: projectFile(source),
    env: { ...Object.fromEntries(settings), CGO_ENABLED: '0' },
    timeoutMs: buildTimeoutMs,
  });
  assert.equal(built.code, 0, built.stderr);
  return program;
}
