import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import process from 'node:process';
import { createInterface } from 'node:readline';

/** What a process has used since it began. */
export interface Usage {
  /** User and system time, µs. */
  readonly cpuUs: number;
  readonly rssBytes: number;
}

const running = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** However this process ends, that one ends with it. */
export function endWithThis(child: ChildProcess): void {
  running.add(child);
  child.once('exit', () => running.delete(child));
}

/** A process under measurement. */
export interface Subject {
  readonly name: string;
  readonly port: number;
  /** The ports that it told at its start, by their names in that line. */
  readonly ports: Readonly<Record<string, number>>;
  usage(): Promise<Usage>;
  /** By SIGTERM, and after 10 s by SIGKILL. */
  stop(): Promise<void>;
}

export interface SubjectOptions {
  readonly name: string;
  /** A Node program, or an executable that asks for nothing and speaks for itself. */
  readonly program: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Of Node, before the program. */
  readonly nodeOptions?: readonly string[];
}

const startTimeoutMs = 30_000;
const stopTimeoutMs = 10_000;
const probe = join(import.meta.dirname, 'probe.ts');

/**
 * Starts a program and waits until it tells its port: the first line of its output that is JSON with a `port`. Only what
 * is named here is in its environment.
 *
 * @throws Error with its output if it ends, or has not told within 30 s.
 */
export async function startSubject(options: SubjectOptions): Promise<Subject> {
  const { name, program, env = {}, nodeOptions = [] } = options;
  const isNode = /\.[jt]s$/.test(program);
  const [command, commandArguments] = isNode
    ? [process.execPath, ['--import', probe, ...nodeOptions, program]]
    : [program, []];
  const { PATH = '' } = process.env;
  const child = spawn(command, commandArguments, {
    env: { PATH, NODE_ENV: 'production', NODE_NO_WARNINGS: '1', ...env },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    serialization: 'json',
  });
  endWithThis(child);
  const ports = await portsOf(child, name);
  return {
    name,
    port: ports['port'] ?? 0,
    ports,
    async usage() {
      child.send('usage');
      const [usage] = (await once(child, 'message')) as [Usage];
      return usage;
    },
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, 'exit');
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), stopTimeoutMs);
      await ended;
      clearTimeout(timer);
    },
  };
}

function portsOf(child: ChildProcess, name: string): Promise<Record<string, number>> {
  const output: string[] = [];
  const { promise, resolve, reject } = Promise.withResolvers<Record<string, number>>();
  const fail = (reason: string) => {
    child.kill('SIGKILL');
    reject(new Error(`${name} ${reason}\n${output.join('\n')}`));
  };
  const timer = setTimeout(() => fail('told no port within 30 s'), startTimeoutMs);
  let serving = false;
  for (const stream of [child.stdout, child.stderr]) {
    if (stream === null) continue;
    createInterface({ input: stream }).on('line', (line) => {
      if (serving) return;
      output.push(line);
      const told = parsePorts(line);
      if (told === undefined) return;
      serving = true;
      resolve(told);
    });
  }
  child.once('exit', (code, signal) => fail(`ended with ${code ?? signal}`));
  child.once('error', (error) => fail(error.message));
  return promise.finally(() => clearTimeout(timer));
}

function parsePorts(line: string): Record<string, number> | undefined {
  if (!line.startsWith('{')) return undefined;
  const fields = JSON.parse(line) as Record<string, unknown>;
  if (typeof fields['port'] !== 'number') return undefined;
  return Object.fromEntries(
    Object.entries(fields).filter((entry): entry is [string, number] => typeof entry[1] === 'number'),
  );
}
