import process from 'node:process';

/** How busy the event loop of this process is. */
export interface EventLoop {
  /** Each turn had much to do for a while, and none had time to wait: requests come faster than they are worked off. */
  readonly overloaded: boolean;
  /** How many turns have ended. */
  readonly turns: number;
  /** How long the running turn has worked. */
  turnMs(): number;
  /** How long the last whole turn worked. */
  readonly lastTurnMs: number;
  /** How long what is read now may have waited for that: it came at the earliest when the turn before began to work. */
  lagMs(): number;
  start(): void;
  stop(): void;
}

/** The clocks of a thread, in milliseconds. */
export interface LoopClock {
  now(): number;
  /** What it has waited for something to do. */
  idle(): number;
  /**
   * What it has computed. Unlike the time that has passed it does not grow while others have the CPU, which is no work that
   * could be shed. It takes some microseconds to read.
   */
  cpu(): number;
}

/** A turn that works for longer than this has kept some request waiting so long: as long as a call may wait to be let in. */
const longTurnMs = 100;
/**
 * In an overload each turn takes new calls for so long (`admit.ts`), so that the next calls do not wait much longer than
 * that. A turn that is shorter had room for all.
 */
export const turnBudgetMs = 25;
/** For how long all turns must be long: a garbage collection or one large body is a single one, and a cold process starts so. */
const sustainedMs = 500;
/** The same for as long after an overload as it may come back. */
const againMs = 100;
const memoryMs = 10_000;
/** A turn that waited so long for something to do had nothing left to do. */
const waitMs = 1;

/**
 * Watches each turn of the event loop, without making it turn. Where its turns stay long there is a standing queue, as
 * CoDel (RFC 8289) finds one: by a time in which the shortest delay was above 100 ms, and sooner where there was one lately.
 * It is over with a turn that is cut short by nobody, or has time to wait.
 */
export function createEventLoop(clock: LoopClock = threadClock): EventLoop {
  let immediate: NodeJS.Immediate | undefined;
  let turns = 0;
  let lastTurnMs = 0;
  let turnAtMs = clock.now();
  let idleAtMs = clock.idle();
  let lastTurn = { atMs: turnAtMs, idleAtMs };
  /** Known after a long turn, and in an overload. */
  let cpuAtMs: number | undefined;
  let calmAtMs = turnAtMs;
  let overloadedAtMs = Number.NEGATIVE_INFINITY;

  function workedMs(nowMs: number, idleMs: number): number {
    return cpuAtMs === undefined ? nowMs - turnAtMs - (idleMs - idleAtMs) : clock.cpu() - cpuAtMs;
  }

  function endTurn(): void {
    const nowMs = clock.now();
    const idleMs = clock.idle();
    const seemsLong = nowMs - turnAtMs - (idleMs - idleAtMs) >= longTurnMs;
    lastTurnMs = workedMs(nowMs, idleMs);
    const wasOverloaded = overloadedAtMs === turnAtMs;
    if (lastTurnMs < (wasOverloaded ? turnBudgetMs : longTurnMs) || idleMs - idleAtMs > waitMs) calmAtMs = nowMs;
    if (nowMs - calmAtMs > (nowMs - overloadedAtMs > memoryMs ? sustainedMs : againMs)) overloadedAtMs = nowMs;
    lastTurn = { atMs: turnAtMs, idleAtMs };
    turnAtMs = nowMs;
    idleAtMs = idleMs;
    cpuAtMs = seemsLong || overloadedAtMs === turnAtMs ? clock.cpu() : undefined;
    turns++;
    // Once each turn; one that holds nothing does not keep the loop from waiting.
    immediate = setImmediate(endTurn).unref();
  }

  return {
    get overloaded() {
      return overloadedAtMs === turnAtMs;
    },
    get turns() {
      return turns;
    },
    get lastTurnMs() {
      return lastTurnMs;
    },
    turnMs: () => workedMs(clock.now(), clock.idle()),
    lagMs: () => clock.now() - lastTurn.atMs - (clock.idle() - lastTurn.idleAtMs),
    start() {
      turnAtMs = clock.now();
      idleAtMs = clock.idle();
      lastTurn = { atMs: turnAtMs, idleAtMs };
      calmAtMs = turnAtMs;
      immediate = setImmediate(endTurn).unref();
    },
    stop() {
      clearImmediate(immediate);
    },
  };
}

const threadClock: LoopClock = {
  now: () => performance.now(),
  idle: () => performance.eventLoopUtilization().idle,
  cpu() {
    const { user, system } = process.threadCpuUsage();
    return (user + system) / 1_000;
  },
};
