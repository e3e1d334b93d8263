import type { CallStatus, Connection, ConnectionState, CallStart } from '../call/call.ts';
import type { EndpointSet } from './endpoints.ts';

/** How long a target may have no ready endpoint, though one may still come up, before calls go to the next. */
const failoverAfterMs = 500;
/** How long a target with a higher priority must stay READY before calls go back to it. */
const failbackAfterMs = 10_000;

export interface PrioritizedTarget {
  readonly target: string;
  readonly endpoints: EndpointSet;
  /** Starts to resolve and connect; called once, when the target is first needed. */
  connect(): void;
}

export interface PriorityOptions {
  /** The primary first, then its backups in order. */
  readonly targets: readonly PrioritizedTarget[];
  /** Defaults to 10 s. */
  readonly failbackAfterMs?: number | undefined;
  readonly onSwitch: (priority: number) => void;
}

/** Sends calls to the first target that is READY; the others connect when they are first needed. */
export interface Priority {
  /** Index of the target that takes the calls. */
  readonly active: number;
  readonly state: ConnectionState;
  pick(call: CallStart): Connection | CallStatus | undefined;
  connect(): void;
  /** To be called when the endpoints of a target have changed. */
  update(): void;
  stop(): void;
}

interface Level {
  readonly target: PrioritizedTarget;
  connected: boolean;
  /** Since when it has had no ready endpoint while one may come up. */
  connectingSinceMs: number | undefined;
  /** Since when it has been READY while a lower one is active. */
  readySinceMs: number | undefined;
}

export function createPriority(options: PriorityOptions): Priority {
  const holdMs = options.failbackAfterMs ?? failbackAfterMs;
  const levels: readonly Level[] = options.targets.map((target) => ({
    target,
    connected: false,
    connectingSinceMs: undefined,
    readySinceMs: undefined,
  }));
  let active = 0;
  let timer: NodeJS.Timeout | undefined;
  let updating = false;
  let stopped = false;

  const stateOf = (level: Level | undefined) => level?.target.endpoints.state ?? 'SHUTDOWN';

  function connect(level: Level): void {
    if (level.connected) return;
    level.connected = true;
    level.target.connect();
  }

  /** Whether calls had better go further down the list. */
  function hasFailed(level: Level, nowMs: number): boolean {
    const state = stateOf(level);
    if (state === 'READY') return false;
    return state !== 'CONNECTING' || nowMs - (level.connectingSinceMs ?? nowMs) >= failoverAfterMs;
  }

  function update(): void {
    // Connecting a target changes its state.
    if (updating || stopped) return;
    updating = true;
    const nowMs = performance.now();
    for (const level of levels) {
      const state = stateOf(level);
      level.connectingSinceMs =
        state === 'CONNECTING' && level.connected ? (level.connectingSinceMs ?? nowMs) : undefined;
      level.readySinceMs = state === 'READY' ? (level.readySinceMs ?? nowMs) : undefined;
    }
    const next = choose(nowMs);
    if (next !== active) {
      active = next;
      options.onSwitch(active);
    }
    schedule(nowMs);
    updating = false;
  }

  function choose(nowMs: number): number {
    const serving = stateOf(levels[active]) === 'READY';
    for (const [index, level] of levels.entries()) {
      if (index === active && serving) return index;
      if (level.readySinceMs !== undefined && (!serving || nowMs - level.readySinceMs >= holdMs)) return index;
    }
    for (const [index, level] of levels.entries()) {
      connect(level);
      if (!hasFailed(level, nowMs)) return index;
    }
    return active;
  }

  /** Looks again when a target has been connecting, or ready, for long enough. */
  function schedule(nowMs: number): void {
    clearTimeout(timer);
    let nextMs = Number.POSITIVE_INFINITY;
    for (const [index, level] of levels.entries()) {
      if (index <= active && level.connectingSinceMs !== undefined && index + 1 < levels.length) {
        const dueMs = level.connectingSinceMs + failoverAfterMs;
        if (dueMs > nowMs) nextMs = Math.min(nextMs, dueMs);
      }
      if (index < active && level.readySinceMs !== undefined) nextMs = Math.min(nextMs, level.readySinceMs + holdMs);
    }
    if (nextMs === Number.POSITIVE_INFINITY) return;
    timer = setTimeout(update, Math.max(1, nextMs - nowMs));
    timer.unref();
  }

  return {
    get active() {
      return active;
    },
    get state() {
      return stateOf(levels[active]);
    },
    pick: (call) => levels[active]?.target.endpoints.pick(call),
    connect() {
      if (levels[0] !== undefined) connect(levels[0]);
      update();
    },
    update,
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}
