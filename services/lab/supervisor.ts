import { type Child, describeExit, type Exit, type Serving } from './child.ts';

/** `down` is between a crash and the restart, or before the first start. */
export type ProgramState = 'down' | 'starting' | 'serving' | 'frozen' | 'stopping';

/** A program that is kept running: after a crash it is started again, with backoff. */
export interface Supervised {
  readonly name: string;
  readonly state: ProgramState;
  /** Of the process that runs now; undefined while none does. */
  readonly pid: number | undefined;
  /** Of the process that serves now; undefined while none does. */
  readonly serving: Serving | undefined;
  /** Resolves once it serves. Rejects when the first start fails; only a program that has served is restarted. */
  start(): Promise<void>;
  /** Ends the process with SIGKILL, as a crash would: it is restarted. */
  kill(): Promise<void>;
  /** Stops the process from running, with all its connections open, until `thaw`. */
  freeze(): void;
  thaw(): void;
  /** Ends the program for good: with SIGTERM, and SIGKILL after `graceMs`; or with SIGKILL at once, given none. */
  stop(graceMs?: number): Promise<void>;
}

export interface SupervisedOptions {
  readonly name: string;
  readonly startChild: () => Child;
  /** Runs after each change of state. */
  readonly onChange: () => void;
  /** What happened to it unasked, in words. */
  readonly onEvent: (text: string) => void;
}

const readyTimeoutMs = 20_000;
const firstBackoffMs = 200;
const maxBackoffMs = 5_000;
/** A program that has served for so long starts over with the first backoff. */
const steadyMs = 10_000;

export function createSupervised({ name, startChild, onChange, onEvent }: SupervisedOptions): Supervised {
  let state: ProgramState = 'down';
  let child: Child | undefined;
  let serving: Serving | undefined;
  let servingSinceMs = Number.NaN;
  let downSinceMs = Number.NaN;
  let backoffMs = firstBackoffMs;
  let restartTimer: NodeJS.Timeout | undefined;

  function change(next: ProgramState): void {
    state = next;
    onChange();
  }

  async function run(): Promise<void> {
    const started = startChild();
    child = started;
    change('starting');
    const ports = await started.ready(readyTimeoutMs);
    if (child !== started || state !== 'starting') return;
    serving = ports;
    servingSinceMs = performance.now();
    change('serving');
    void started.exited.then((exit) => {
      if (child === started && state !== 'stopping') onCrash(exit);
    });
  }

  function onCrash(exit: Exit): void {
    const nowMs = performance.now();
    if (nowMs - servingSinceMs >= steadyMs) backoffMs = firstBackoffMs;
    downSinceMs = nowMs;
    restartLater(describeExit(exit));
  }

  function restartLater(why: string): void {
    child = undefined;
    serving = undefined;
    onEvent(`${why}, restarting in ${seconds(backoffMs)}`);
    restartTimer = setTimeout(() => void restart(), backoffMs);
    backoffMs = Math.min(backoffMs * 2, maxBackoffMs);
    change('down');
  }

  async function restart(): Promise<void> {
    try {
      await run();
      if (state === 'serving') onEvent(`restarted after ${seconds(performance.now() - downSinceMs)}`);
    } catch (error) {
      child?.signal('SIGKILL');
      if (state !== 'stopping') restartLater(firstLine(error as Error));
    }
  }

  async function kill(): Promise<void> {
    child?.signal('SIGKILL');
    await child?.exited;
  }

  return {
    name,
    get state() {
      return state;
    },
    get pid() {
      return child?.pid;
    },
    get serving() {
      return serving;
    },
    async start() {
      try {
        await run();
      } catch (error) {
        throw new Error(`${name} ${(error as Error).message}`, { cause: error });
      }
    },
    kill,
    freeze() {
      if (state !== 'serving') return;
      child?.signal('SIGSTOP');
      change('frozen');
    },
    thaw() {
      if (state !== 'frozen') return;
      child?.signal('SIGCONT');
      change('serving');
    },
    async stop(graceMs) {
      clearTimeout(restartTimer);
      change('stopping');
      if (graceMs === undefined) {
        await kill();
      } else {
        const exit = await child?.stop(graceMs);
        if (exit && exit.code !== 0) onEvent(describeExit(exit));
      }
      child = undefined;
      serving = undefined;
    },
  };
}

function firstLine({ message }: Error): string {
  return (message.split('\n', 1)[0] ?? '').replace(/:$/, '');
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
