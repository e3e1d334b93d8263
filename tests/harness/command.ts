import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';

/** What a command did. */
export interface CommandResult {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** What it reads; the end of its input follows. */
  readonly input?: string;
  readonly cwd?: string;
  /** After so long it is killed. Defaults to 20 s. */
  readonly timeoutMs?: number;
}

/** The path of a file of this project. */
export function projectFile(path: string): string {
  return fileURLToPath(new URL(`../../${path}`, import.meta.url));
}

/** Runs a command to its end. It gets the environment's PATH and HOME and what `env` adds. */
export async function run(file: string, args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const { env = {}, input = '', cwd = projectFile('.'), timeoutMs = 20_000 } = options;
  const { PATH, HOME } = process.env;
  const child = spawn(file, args, { cwd, env: { PATH, HOME, ...env }, timeout: timeoutMs, killSignal: 'SIGKILL' });
  child.stdin.on('error', () => {}); // it may end without having read
  child.stdin.end(input);
  const exited = new Promise<Pick<CommandResult, 'code' | 'signal'>>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve({ code, signal }));
  });
  const [stdout, stderr, exit] = await Promise.all([text(child.stdout), text(child.stderr), exited]);
  return { ...exit, stdout, stderr };
}

/** Runs a program of this project: `services/hello/main.ts`. */
export function runProgramFile(
  path: string,
  args: readonly string[],
  options?: CommandOptions,
): Promise<CommandResult> {
  return run(process.execPath, [projectFile(path), ...args], options);
}

/** Whether a tool answers when it is asked for its version. */
export async function isInstalled(tool: string, versionArgs: readonly string[]): Promise<boolean> {
  return run(tool, versionArgs).then(
    () => true,
    () => false,
  );
}

/** Skips the test, and says so, where a tool is not installed; with `CI` set it has to be there. */
export async function skipWithout(t: TestContext, tool: string, versionArgs: readonly string[]): Promise<boolean> {
  if (await isInstalled(tool, versionArgs)) return false;
  if (process.env.CI) throw new Error(`${tool} is not installed`);
  t.skip(`${tool} is not installed`);
  return true;
}
