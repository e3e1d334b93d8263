/** How busy the event loop of this process is. */
export interface EventLoop {
  /** Each turn has been a long one for a while, and none had time to wait: requests come faster than they are worked off. */
  readonly overloaded: boolean;
  /** How long the running turn has been busy. */
  turnMs(): number;
  /** How long the last whole turn was busy. */
  readonly lastTurnMs: number;
  start(): void;
  stop(): void;
}

/** A turn that is busy for longer than this has kept some request waiting so long. */
const longTurnMs = 5;
/** For how long all turns must be long: a garbage collection or one large body is a single one. */
const sustainedMs = 100;
/** A turn that waited so long for something to do had nothing left to do. */
const idleMs = 1;

/**
 * Watches each turn of the event loop, without making it turn. Where its turns stay long there is a standing queue, as
 * CoDel (RFC 8289) has it: 100 ms in which the shortest delay was above 5 ms.
 */
export function createEventLoop(
  read: () => { readonly idle: number; readonly active: number } = () => performance.eventLoopUtilization(),
): EventLoop {
  let immediate: NodeJS.Immediate | undefined;
  let turn = read();
  let lastTurnMs = 0;
  /** On the clock of busy and idle time together. */
  let calmAtMs = turn.idle + turn.active;

  function endTurn(): void {
    const { idle, active } = read();
    lastTurnMs = active - turn.active;
    if (lastTurnMs < longTurnMs || idle - turn.idle > idleMs) calmAtMs = idle + active;
    turn = { idle, active };
    // Once each turn; one that holds nothing does not keep the loop from waiting.
    immediate = setImmediate(endTurn).unref();
  }

  return {
    get overloaded() {
      return turn.idle + turn.active - calmAtMs > sustainedMs;
    },
    get lastTurnMs() {
      return lastTurnMs;
    },
    turnMs: () => read().active - turn.active,
    start() {
      turn = read();
      calmAtMs = turn.idle + turn.active;
      immediate = setImmediate(endTurn).unref();
    },
    stop() {
      clearImmediate(immediate);
    },
  };
}
