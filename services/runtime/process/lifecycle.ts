import { setTimeout as sleep } from 'node:timers/promises';
import type { Admin } from './admin.ts';
import { type Config, ConfigError, parseConfig, type Settings, usage } from './config.ts';
import type { Logger } from './log.ts';
import type { Tracing } from './tracing.ts';

/** How long `finish()` may still take after `force()`. */
const forceTimeoutMs = 5_000;

const signals = ['SIGTERM', 'SIGINT'] as const;

/** What a service gives to be run. `drain`, `finish` and `force` may come while `start` is still pending. */
export interface Program {
  /** Listens, and resolves once it serves. */
  start(): Promise<void>;
  /** Tells clients to go elsewhere, spread over `delayMs`, and serves on. */
  drain(delayMs: number): void;
  /** Closes the listener; resolves once what is in flight has ended. */
  finish(): Promise<void>;
  /** Cuts what is left, so that `finish()` resolves. */
  force(): void;
  /** What was done, for the last log line. */
  counters(): object;
}

/**
 * What a `main.ts` is: configuration read, then `run` with it. `--help` prints the settings and exits with 0; a
 * `ConfigError`, whether from the settings or from `run`, prints its message and exits with 1.
 */
export async function runMain<const S extends Settings>(
  process: Pick<NodeJS.Process, 'env' | 'argv' | 'stdout' | 'stderr' | 'on' | 'exit'>,
  options: { readonly program: string; readonly settings: S },
  run: (config: Config<S>) => Promise<void>,
): Promise<void> {
  // Nothing to drain yet. Without a handler, though, Linux would keep the signal from process 1 of a container.
  for (const signal of signals) process.on(signal, () => process.exit(0));
  const argv = process.argv.slice(2);
  if (argv.includes('--help')) {
    process.stdout.write(usage(options.program, options.settings));
    process.exit(0);
  }
  try {
    await run(parseConfig(options.settings, { env: process.env, argv }));
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${options.program}: ${error.message}\n`);
    process.exit(1);
  }
}

/**
 * Runs a program from its start to the exit of the process, and holds the whole stop sequence:
 *
 * 1. SIGTERM or SIGINT: `/readyz` turns 503, `program.drain()`, and it serves on for `drainDelayMs`;
 * 2. `program.finish()`: the listener closes and what is in flight ends;
 * 3. after `drainGraceMs`, `program.force()`;
 * 4. the counters in one log line, the last spans sent, the admin port closed, exit code 0.
 *
 * A second signal exits at once with 1. An exception that nobody caught is logged and goes the same way without the
 * delay, to exit code 1. A start that fails is logged with the variable to change, exit code 1.
 */
export async function runProgram(
  process: Pick<NodeJS.Process, 'on' | 'removeAllListeners' | 'exit'>,
  options: {
    readonly program: Program;
    readonly admin: Admin;
    readonly tracing: Tracing;
    readonly log: Logger;
    readonly drainDelayMs: number;
    readonly drainGraceMs: number;
  },
): Promise<void> {
  const { program, admin, tracing, log, drainDelayMs, drainGraceMs } = options;
  const signalled = Promise.withResolvers<void>();
  const faulted = Promise.withResolvers<void>();
  let signalCount = 0;
  let exitCode = 0;

  const onSignal = (signal: NodeJS.Signals) => {
    signalCount++;
    if (signalCount > 1) {
      log.warn({ signal }, 'second signal: exiting at once');
      process.exit(1);
    }
    log.info({ signal }, 'stopping');
    signalled.resolve();
  };
  const fail = (error: unknown, message: string) => {
    log.fatal({ err: error }, message);
    exitCode = 1;
    faulted.resolve();
  };
  for (const signal of signals) process.removeAllListeners(signal).on(signal, onSignal);
  // Unhandled rejections arrive here too.
  process.on('uncaughtException', (error) => fail(error, 'uncaught exception: stopping'));

  const stopRequested = Promise.race([signalled.promise, faulted.promise]);
  const outcome = await start();
  if (outcome === 'serving') {
    admin.setReady(true);
    await stopRequested;
  }
  admin.setReady(false, 'draining');
  if (outcome !== 'failed') {
    const delayMs = outcome === 'serving' && exitCode === 0 ? drainDelayMs : 0;
    await step(() => program.drain(delayMs));
    await Promise.race([sleep(delayMs), faulted.promise]);
    await step(finish);
    await step(async () => log.info(program.counters(), 'stopped'));
  }
  await tracing.stop();
  await admin.stop();
  process.exit(exitCode);

  async function start(): Promise<'serving' | 'interrupted' | 'failed'> {
    let variable: 'ADMIN_PORT' | 'PORT' = 'ADMIN_PORT';
    const startAll = async () => {
      await admin.start();
      variable = 'PORT';
      await program.start();
      return 'serving' as const;
    };
    try {
      return await Promise.race([startAll(), stopRequested.then(() => 'interrupted' as const)]);
    } catch (error) {
      exitCode = 1;
      log.fatal(...describeStartError(error, variable));
      return 'failed';
    }
  }

  /** A step that fails must not keep the next ones from running. */
  async function step(run: () => void | Promise<void>): Promise<void> {
    try {
      await run();
    } catch (error) {
      fail(error, 'could not stop in order');
    }
  }

  async function finish(): Promise<void> {
    const givenUp = Promise.withResolvers<never>();
    let timer = setTimeout(() => {
      log.warn({ drainGraceMs }, 'drain grace is over: cutting what is left');
      timer = setTimeout(() => givenUp.reject(new Error('calls did not end after they were cut')), forceTimeoutMs);
      program.force();
    }, drainGraceMs);
    try {
      await Promise.race([program.finish(), givenUp.promise]);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** What to log: one sentence for the operator with the variable to change, or, where none helps, the error whole. */
function describeStartError(error: unknown, variable: 'PORT' | 'ADMIN_PORT'): [object, string] {
  const message = error instanceof Error ? error.message : String(error);
  const [, code] = /listen (E[A-Z]+)/.exec(message) ?? [];
  const [, port] = /:(\d+)(?=[\],]|$)/.exec(message) ?? [];
  if (code === 'EADDRINUSE') return [{}, `cannot start: port ${port} is taken; set ${variable} to a free one`];
  if (code === 'EACCES') return [{}, `cannot start: port ${port} needs privileges; set ${variable} to one above 1023`];
  if (code === 'EADDRNOTAVAIL') return [{}, `cannot start: HOST must be an address of this machine: ${message}`];
  return [{ err: error }, 'cannot start'];
}
