import type { Call, Caller, CallObserver, CallStart, CallStatus, Metadata } from '#runtime/call/call.ts';
import { Code, localStatus } from '#runtime/call/status.ts';
import { errorInfo, errorWith, retryInfo, statusOf } from '../edge/errors.ts';
import { type ConcurrencyBounds, createConcurrencyLimit, slackMs } from './concurrency-limit.ts';
import { type EventLoop, turnBudgetMs } from './event-loop.ts';

/** The longest that a call waits to be let in. */
const maxWaitMs = 100;
/**
 * In an overload of the event loop each turn takes so many calls whatever time it takes, half of them of low priority:
 * where a turn is long without that many, the process is starting or is given no CPU, and to shed its few calls would help
 * nobody.
 */
const turnCalls = 8;
/** For how long after a call of high priority was shed by the event loop none of low priority is let in. */
const highFirstMs = 100;

export const shedReasons = ['queue-full', 'queue-timeout', 'displaced', 'event-loop'] as const;

/**
 * Why a call was shed: there was no room for it to wait, it waited too long, it left its place to one of high priority, or
 * the gateway itself has more to do than it can.
 */
export type ShedReason = (typeof shedReasons)[number];

export type Priority = CallStart['priority'];

/** The status of a call that was shed. */
export interface ShedStatus extends CallStatus {
  readonly shed: ShedReason;
}

/** Why the call of that status was shed; undefined if it was not. */
export function shedReasonOf(status: CallStatus & Partial<ShedStatus>): ShedReason | undefined {
  return status.shed;
}

/** Lets in as many calls to an upstream as it can work on. */
export interface Admission {
  /**
   * What to tell a request before anything is done for it, where the gateway itself has no time for its call; undefined to
   * go on.
   */
  refusal(priority: Priority): ShedStatus | undefined;
  /** The stage. Whatever goes through it counts, whichever route it came by. */
  readonly admit: (next: Caller) => Caller;
  snapshot(): AdmissionSnapshot;
}

export interface AdmissionSnapshot {
  /** What is learned; 4…1000 unless configured. */
  readonly limit: number;
  readonly min: number;
  readonly max: number;
  /** The limit is cut for a moment, to measure what calls take without load. */
  readonly measuring: boolean;
  /** Calls that were let in and have not ended, without those that wait for a replica to become ready. */
  readonly inFlight: number;
  /** Calls that wait to be let in. */
  readonly queued: Readonly<Record<Priority, number>>;
  /** Calls that were shed since the start. */
  readonly shed: Readonly<Record<ShedReason, Readonly<Record<Priority, number>>>>;
  /** What a call of each method takes without load. */
  readonly baselinesMs: Readonly<Record<string, number>>;
}

/**
 * Lets in calls up to a limit that is learned. As many wait, at most 100 ms and no longer than their deadline, those of
 * high priority first; the others are shed: UNAVAILABLE, never sent, with a RetryInfo. While the event loop of the gateway
 * is overloaded requests are refused when only their head is read, so that those which are let in are quick. A call holds
 * its place with all its attempts. One that waits for a replica to become ready, or between two attempts, loads nobody, and
 * has none.
 */
export function createAdmission(options: {
  readonly bounds: ConcurrencyBounds;
  readonly eventLoop: EventLoop;
  /** Calls that were let in and now load nobody: they wait for a replica to become ready, or for their next attempt. */
  readonly idleCalls: () => number;
  readonly onShed?: (reason: ShedReason, priority: Priority) => void;
}): Admission {
  const { bounds, eventLoop, idleCalls, onShed } = options;
  const limit = createConcurrencyLimit(bounds);
  const queues = { high: new Set<AdmittedCall>(), low: new Set<AdmittedCall>() };
  const shedCounts = Object.fromEntries(shedReasons.map((reason) => [reason, { high: 0, low: 0 }])) as Record<
    ShedReason,
    Record<Priority, number>
  >;
  let inFlight = 0;
  let highShedMs = Number.NEGATIVE_INFINITY;
  const turn = { number: 0, calls: 0, isFull: { high: false, low: false } };
  let isHighsTurn = false;

  const door: Door = {
    enter(call) {
      const { priority } = call.callStart;
      if (hasRoom() && queues.high.size + queues.low.size === 0) return letIn(call);
      if (!makePlace(priority)) return call.shed('queue-full');
      queues[priority].add(call);
      call.wait();
      // Room is made by more than calls that end: the limit grows, and calls come to wait for a replica.
      letInWaiting();
    },
    leave(call) {
      queues[call.callStart.priority].delete(call);
    },
    isMeasuring: () => limit.current < limit.learned,
    ended(call, status) {
      inFlight--;
      const { code } = status;
      const gaveUp = code === Code.DEADLINE_EXCEEDED || code === Code.CANCELLED;
      // Any other status may come at once, from an upstream that is idle or one that is overwhelmed: it says nothing.
      if (code === Code.OK || gaveUp) {
        const durationMs = performance.now() - call.sentMs;
        limit.ended(call.window, {
          method: call.callStart.method,
          durationMs,
          lagMs: durationMs > slackMs ? eventLoop.lagMs() : 0,
          outcome: code === Code.OK ? 'ok' : 'no-answer',
        });
      }
      if (queues.high.size + queues.low.size === 0) return;
      letInHigh();
      letInWaiting();
    },
    shed,
  };

  function shed(reason: ShedReason, priority: Priority): ShedStatus {
    shedCounts[reason][priority]++;
    onShed?.(reason, priority);
    return shedStatus(reason);
  }

  function loading(): number {
    return inFlight - idleCalls();
  }

  function hasRoom(): boolean {
    return loading() < limit.current;
  }

  /** Whether the running turn of the event loop takes another call. One that was full stays so. */
  function hasTime(priority: Priority): boolean {
    if (turn.number !== eventLoop.turns) {
      turn.number = eventLoop.turns;
      turn.calls = 0;
      turn.isFull = { high: false, low: false };
    }
    if (turn.isFull[priority]) return false;
    const now = performance.now();
    if (priority === 'low' && now - highShedMs <= highFirstMs) return false;
    const share = priority === 'high' ? 1 : 1 / 2;
    if (turn.calls < turnCalls * share || eventLoop.turnMs() < turnBudgetMs * share) {
      turn.calls++;
      return true;
    }
    turn.isFull[priority] = true;
    if (priority === 'high') highShedMs = now;
    return false;
  }

  /** Whether there is a place in the queue: that of the oldest call of low priority if need be. */
  function makePlace(priority: Priority): boolean {
    if (queues.high.size + queues.low.size < limit.learned) return true;
    const [oldest] = queues.low;
    if (priority === 'low' || oldest === undefined) return false;
    oldest.shed('displaced');
    return true;
  }

  /** A limit that shrinks has more in flight than it lets in: until they have ended, calls of high priority get half of it. */
  function letInHigh(): void {
    const [call] = queues.high;
    if (hasRoom() || call === undefined) return;
    isHighsTurn = !isHighsTurn;
    if (isHighsTurn) letIn(call);
  }

  function letInWaiting(): void {
    while (hasRoom()) {
      const [call] = queues.high.size > 0 ? queues.high : queues.low;
      if (call === undefined) return;
      letIn(call);
    }
  }

  function letIn(call: AdmittedCall): void {
    inFlight++;
    call.begin(limit.started(loading()));
  }

  return {
    refusal: (priority) => (eventLoop.overloaded && !hasTime(priority) ? shed('event-loop', priority) : undefined),
    admit: (next) => ({
      start(start, observer) {
        const call = new AdmittedCall(door, next, start, observer);
        door.enter(call);
        return call;
      },
    }),
    snapshot: () => ({
      limit: limit.learned,
      ...bounds,
      measuring: door.isMeasuring(),
      inFlight: loading(),
      queued: { high: queues.high.size, low: queues.low.size },
      shed: shedCounts,
      baselinesMs: limit.baselinesMs(),
    }),
  };
}

interface Door {
  enter(call: AdmittedCall): void;
  leave(call: AdmittedCall): void;
  /** Those who wait do so for the measurement, which is none of their doing. */
  isMeasuring(): boolean;
  ended(call: AdmittedCall, status: CallStatus): void;
  shed(reason: ShedReason, priority: Priority): ShedStatus;
}

/** A call that is let in, waits for it, or is shed. It passes on what it is told, and then what was said meanwhile. */
class AdmittedCall implements Call, CallObserver {
  readonly callStart: CallStart;
  /** When it was let in. */
  sentMs = 0;
  /** Of the limit, when it was let in. */
  window = 0;
  private readonly door: Door;
  private readonly next: Caller;
  private readonly observer: CallObserver;
  private call: Call | undefined;
  private ended = false;
  private timer: NodeJS.Timeout | undefined;
  private credits = 0;
  private written: Uint8Array | undefined;
  private requestEnded = false;

  constructor(door: Door, next: Caller, start: CallStart, observer: CallObserver) {
    this.door = door;
    this.next = next;
    this.callStart = start;
    this.observer = observer;
  }

  begin(window: number): void {
    clearTimeout(this.timer);
    this.door.leave(this);
    this.window = window;
    this.sentMs = performance.now();
    const call = this.next.start(this.callStart, this);
    this.call = call;
    if (this.credits > 0) call.request(this.credits);
    if (this.written !== undefined) call.write(this.written, this.requestEnded);
    else if (this.requestEnded) call.end();
  }

  wait(): void {
    const { deadlineMs } = this.callStart;
    this.timer = setTimeout(
      () => {
        if (performance.now() < deadlineMs) return this.door.isMeasuring() ? this.wait() : this.shed('queue-timeout');
        this.door.leave(this);
        this.finishSoon(
          localStatus(Code.DEADLINE_EXCEEDED, 'the deadline of the call passed before it was let in', 'no'),
        );
      },
      Math.min(maxWaitMs, deadlineMs - performance.now()),
    );
  }

  shed(reason: ShedReason): void {
    const { priority } = this.callStart;
    this.door.leave(this);
    this.finishSoon(this.door.shed(reason, priority));
  }

  request(messages: number): void {
    if (this.call === undefined) this.credits += messages;
    else this.call.request(messages);
  }

  write(message: Uint8Array, end: boolean): boolean {
    if (this.call !== undefined) return this.call.write(message, end);
    this.written = message;
    this.requestEnded = end;
    return true;
  }

  end(): void {
    if (this.call !== undefined) return this.call.end();
    this.requestEnded = true;
  }

  cancel(code: number, details: string): void {
    if (this.call !== undefined) return this.call.cancel(code, details);
    this.door.leave(this);
    this.finishSoon(localStatus(code, details, 'no'));
  }

  onHeaders(metadata: Metadata, endpointId: string): void {
    this.observer.onHeaders(metadata, endpointId);
  }

  onMessage(message: Uint8Array): void {
    this.observer.onMessage(message);
  }

  onWritable(): void {
    this.observer.onWritable();
  }

  onStatus(status: CallStatus): void {
    this.door.ended(this, status);
    this.observer.onStatus(status);
  }

  /** For a call that was never let in: not inside a method that the caller called. */
  private finishSoon(status: CallStatus): void {
    if (this.ended) return;
    this.ended = true;
    clearTimeout(this.timer);
    queueMicrotask(() => this.observer.onStatus(status));
  }
}

/** Spread, so that those who were shed at the same time do not come back at the same time. */
const retryAfterS = [1, 2, 3];

/** Made once: an overload is no time for work. */
const shedStatuses = new Map(
  shedReasons.map((reason) => [
    reason,
    retryAfterS.map((seconds): ShedStatus => {
      const message = 'the service is overloaded and did not take this call';
      const details = [errorInfo('OVERLOADED'), retryInfo(seconds * 1_000)];
      return { ...statusOf(errorWith(Code.UNAVAILABLE, message, details)), shed: reason };
    }),
  ]),
);

function shedStatus(reason: ShedReason): ShedStatus {
  const statuses = shedStatuses.get(reason) as ShedStatus[];
  return statuses[Math.floor(Math.random() * statuses.length)] as ShedStatus;
}
