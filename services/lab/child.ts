import { spawn } from 'node:child_process';
import { get } from 'node:http';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { type LogLine, parseLogLine } from './log-line.ts';

/** How a process ended: one of the two is null. */
export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** The ports that a program says it is bound to. */
export interface Serving {
  readonly port: number;
  readonly adminPort: number;
}

/** A program of this project, running as a process of its own. */
export interface Child {
  readonly name: string;
  readonly pid: number;
  /** Resolves once the process is gone and all that it wrote was read; never rejects. */
  readonly exited: Promise<Exit>;
  /** Resolves once it has logged `serving` and its `/readyz` answers 200; rejects when it ends or `timeoutMs` pass. */
  ready(timeoutMs: number): Promise<Serving>;
  signal(signal: NodeJS.Signals): void;
  /** Sends SIGTERM, which wakes it if it is frozen, and SIGKILL after `graceMs`. */
  stop(graceMs: number): Promise<Exit>;
}

export interface ChildOptions {
  /** What it is called in messages: `greeter a`. */
  readonly name: string;
  /** The file that Node runs. */
  readonly entry: string;
  readonly args?: readonly string[];
  /** The whole environment; nothing is inherited. `/readyz` is asked for at its `HOST`, by default 127.0.0.1. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly onLine?: (line: string) => void;
}

const keptLines = 20;
const readyPollMs = 10;

/**
 * Starts a program. Its process leads a group of its own, so that a Ctrl-C at the terminal reaches the lab only, which
 * then stops its children in order.
 */
export function startChild({ name, entry, args = [], env, onLine }: ChildOptions): Child {
  const child = spawn(process.execPath, [entry, ...args], {
    env: { ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  const { pid } = child;
  if (pid === undefined) throw new Error(`cannot start ${name}: ${process.execPath} did not run`);

  let serving: Serving | undefined;
  let ended = false;
  const lastLines: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      lastLines.push(line);
      if (lastLines.length > keptLines) lastLines.shift();
      serving ??= parseServing(line);
      onLine?.(line);
    });
  }
  const exited = new Promise<Exit>((resolve) => {
    child.once('close', (code, signal) => {
      ended = true;
      resolve({ code, signal });
    });
  });

  function signal(signal: NodeJS.Signals): void {
    if (!ended) child.kill(signal);
  }

  return {
    name,
    pid,
    exited,
    signal,
    async ready(timeoutMs) {
      const deadlineMs = performance.now() + timeoutMs;
      while (performance.now() < deadlineMs) {
        if (ended) throw new Error(`${describeExit(await exited)} before it served:\n${lastLines.join('\n')}`);
        if (serving && (await isReady(env.HOST, serving.adminPort))) return serving;
        await delay(readyPollMs);
      }
      throw new Error(`was not ready after ${timeoutMs} ms:\n${lastLines.join('\n')}`);
    },
    async stop(graceMs) {
      signal('SIGTERM');
      signal('SIGCONT');
      const timer = setTimeout(() => signal('SIGKILL'), graceMs);
      const exit = await exited;
      clearTimeout(timer);
      return exit;
    },
  };
}

/** The end of a process in words: `exited with code 1`, `was killed`, `was ended by SIGTERM`. */
export function describeExit({ code, signal }: Exit): string {
  if (signal === 'SIGKILL') return 'was killed';
  return signal ? `was ended by ${signal}` : `exited with code ${code}`;
}

function parseServing(line: string): Serving | undefined {
  const { msg, port, adminPort } = parseLogLine(line) ?? ({} as Partial<LogLine>);
  return msg === 'serving' && typeof port === 'number' && typeof adminPort === 'number'
    ? { port, adminPort }
    : undefined;
}

function isReady(host: string | undefined, adminPort: number): Promise<boolean> {
  return new Promise((resolve) => {
    const request = get({ host: host ?? '127.0.0.1', port: adminPort, path: '/readyz', agent: false, timeout: 1_000 });
    request.once('timeout', () => request.destroy());
    request.once('error', () => resolve(false));
    request.once('response', (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
  });
}
