import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { run } from '../harness/command.ts';

export interface CommandOptions {
  /** What it reads. */
  readonly input?: string;
  /** After so long it is killed. Defaults to 60 s. */
  readonly timeoutMs?: number;
}

/** Both commands talk to the cluster of the current context. */
const env: Readonly<Record<string, string>> = process.env.KUBECONFIG ? { KUBECONFIG: process.env.KUBECONFIG } : {};

/** Runs `kubectl` and returns what it printed. Throws with its message if it fails. */
export function kubectl(args: readonly string[], options?: CommandOptions): Promise<string> {
  return succeed('kubectl', args, options);
}

/** An object, or a list of them, of the cluster. */
export async function getObject<T>(args: readonly string[]): Promise<T> {
  return JSON.parse(await kubectl(['get', ...args, '-o', 'json'])) as T;
}

/** Runs `helm` and returns what it printed. Throws with its message if it fails. */
export function helm(args: readonly string[], options?: CommandOptions): Promise<string> {
  return succeed('helm', args, options);
}

async function succeed(file: string, args: readonly string[], options: CommandOptions = {}): Promise<string> {
  const { code, signal, stdout, stderr } = await run(file, args, { env, timeoutMs: 60_000, ...options });
  if (code !== 0) throw new Error(`${file} ${args.join(' ')}: ${signal ?? `exit code ${code}`}: ${stderr || stdout}`);
  return stdout;
}

/** Whether `kubectl` reaches a cluster; in CI there has to be one. */
export async function hasCluster(): Promise<boolean> {
  const reached = await kubectl(['get', '--raw', '/readyz', '--request-timeout=10s']).then(
    () => true,
    () => false,
  );
  if (!reached && process.env.CI) throw new Error('kubectl reaches no cluster');
  return reached;
}

/** A `kubectl` that goes on, such as `get --watch`, with what it prints line by line. Ends with the test. */
export function follow(t: TestContext, args: readonly string[], onLine: (line: string) => void): void {
  const child = spawn('kubectl', args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'ignore'] });
  const exited = once(child, 'exit');
  createInterface(child.stdout).on('line', onLine);
  t.after(async () => {
    child.kill();
    await exited;
  });
}

/** Forwards a port of a pod or Service, `service/gateway`, to one of this machine, until the test ends. Returns that. */
export async function forwardPort(t: TestContext, namespace: string, to: string, port: number): Promise<number> {
  const local = Promise.withResolvers<number>();
  follow(t, ['-n', namespace, 'port-forward', to, `:${port}`], (line) => {
    const [, found] = /^Forwarding from 127\.0\.0\.1:(\d+)/.exec(line) ?? [];
    if (found !== undefined) local.resolve(Number(found));
  });
  const timer = setTimeout(() => local.reject(new Error(`no port-forward to ${to}`)), 20_000);
  return local.promise.finally(() => clearTimeout(timer));
}
