import type { Writable } from 'node:stream';
import type { Logger } from '#runtime/process/log.ts';
import { isAtLeast, parseLogLine } from './log-line.ts';
import type { Output } from './output.ts';

export interface PlainOutputOptions {
  readonly stdout: Pick<Writable, 'write'>;
  readonly log: Logger;
}

/** For a pipe or a file: the URLs, then the logs of all programs as they wrote them, and the lab's own among them. */
export function createPlainOutput({ stdout, log }: PlainOutputOptions): Output {
  let held: (() => void)[] | undefined = [];

  /** What comes before the URLs waits for them. */
  function show(write: () => void): void {
    if (held) held.push(write);
    else write();
  }

  function release(): void {
    for (const write of held ?? []) write();
    held = undefined;
  }

  return {
    line(_program, line) {
      if (isAtLeast(parseLogLine(line), log.level)) show(() => stdout.write(`${line}\n`));
    },
    event(program, text) {
      show(() => log.warn({ program }, `${program} ${text}`));
    },
    start(_lab, { gateway, admin }) {
      stdout.write(`${gateway}          admin ${admin}\n`);
      release();
    },
    restore: release,
    stop: async () => release(),
  };
}
