import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';

/** A program that others wrote, as a process of ours. */
export interface Tool {
  readonly pid: number;
  /** Resolves when it is gone; never rejects. */
  readonly exited: Promise<void>;
  /** Resolves once that URL is answered with 2xx; rejects when the tool ends before, or `timeoutMs` pass. */
  ready(url: string, timeoutMs: number): Promise<void>;
  /** Sends SIGTERM, and SIGKILL after `graceMs`. */
  stop(graceMs: number): Promise<void>;
}

const pollMs = 200;

/** Starts a program of the PATH; undefined if there is none of that name. Its standard error is ours. */
export async function startTool(
  name: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<Tool | undefined> {
  const child = spawn(name, args, { env, stdio: ['ignore', 'ignore', 'inherit'] });
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  try {
    await once(child, 'spawn');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  const isRunning = () => child.exitCode === null && child.signalCode === null;
  return {
    pid: child.pid as number,
    exited,
    async ready(url, timeoutMs) {
      const deadlineMs = performance.now() + timeoutMs;
      while (performance.now() < deadlineMs) {
        if (!isRunning()) throw new Error(`${name} ended with ${child.exitCode ?? child.signalCode}`);
        const answers = await fetch(url).then(
          ({ ok }) => ok,
          () => false,
        );
        if (answers) return;
        await delay(pollMs);
      }
      throw new Error(`${name} did not answer ${url} within ${timeoutMs} ms`);
    },
    async stop(graceMs) {
      if (isRunning()) child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), graceMs);
      await exited;
      clearTimeout(timer);
    },
  };
}
