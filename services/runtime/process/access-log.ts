import type { Level, Logger } from './log.ts';

/** Who is to blame for how a request ended. */
export type Fault = 'none' | 'client' | 'server';

/** Decides which requests are logged, and how loudly. */
export interface AccessLog {
  /**
   * The level of a request's line: `warn` where the server is at fault, `info` where its client is or it was slow, and of
   * those that went well for the sampled ones; `debug` for the others. Undefined if the log is set to leave that out.
   * `id` is what all services know the request by, so that all log the same ones.
   */
  levelOf(request: {
    readonly fault: Fault;
    readonly slow: boolean;
    readonly id: string | undefined;
  }): Level | undefined;
}

/** `sampleRatio` is the share, from 0 to 1, of the requests that went well. */
export function createAccessLog(log: Logger, sampleRatio: number): AccessLog {
  return {
    levelOf({ fault, slow, id }) {
      const level =
        fault === 'server' ? 'warn' : fault === 'client' || slow || isSampled(id, sampleRatio) ? 'info' : 'debug';
      return log.isLevelEnabled(level) ? level : undefined;
    },
  };
}

function isSampled(id: string | undefined, ratio: number): boolean {
  const draw = id === undefined ? Math.random() : hash(id) / 2 ** 32;
  return draw < ratio;
}

/** FNV-1a, mixed at the end since ids that count up would differ in few bits: evenly from 0 to 2³². */
function hash(id: string): number {
  let hashed = 0x811c9dc5;
  for (let i = 0; i < id.length; i++) hashed = Math.imul(hashed ^ id.charCodeAt(i), 0x01000193);
  hashed = Math.imul(hashed ^ (hashed >>> 16), 0x85ebca6b);
  hashed = Math.imul(hashed ^ (hashed >>> 13), 0xc2b2ae35);
  return (hashed ^ (hashed >>> 16)) >>> 0;
}
