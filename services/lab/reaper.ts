import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** Clears up after the lab once it is gone, however it went: a SIGKILL or a crash runs no code of its own. */
export interface Reaper {
  /** `directory` is removed in the end, even after `stop`. */
  start(directory: string): void;
  watch(pid: number): void;
  forget(pid: number): void;
  /** Lets go of the processes. */
  stop(): Promise<void>;
}

/**
 * A shell that keeps the last line it was sent, the process ids, and kills them when its standard input ends. It works
 * wherever there is a POSIX shell, and needs nothing of the programs. It is deaf to the signals of a terminal.
 */
const script = `trap '' INT TERM HUP; while read -r line; do pids=$line; done
[ -z "$pids" ] || kill -9 $pids; rm -rf -- "$1"`;

export function createReaper(): Reaper {
  const pids = new Set<number>();
  let shell: ReturnType<typeof spawnShell> | undefined;

  function tell(): void {
    shell?.stdin.write(`${[...pids].join(' ')}\n`);
  }

  return {
    start(directory) {
      shell = spawnShell(directory);
      shell.stdin.on('error', () => {}); // the shell was killed: its children are the lab's to stop, as always
    },
    watch(pid) {
      pids.add(pid);
      tell();
    },
    forget(pid) {
      pids.delete(pid);
      tell();
    },
    async stop() {
      if (!shell) return;
      pids.clear();
      tell();
      const ending = shell;
      shell = undefined;
      ending.stdin.end();
      if (ending.exitCode === null && ending.signalCode === null) await once(ending, 'exit');
    },
  };
}

function spawnShell(directory: string) {
  return spawn('/bin/sh', ['-c', script, 'reaper', directory], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
}
