import type {
  AttemptReason,
  AttemptSpan,
  AttemptStart,
  Call,
  Caller,
  CallObserver,
  CallStart,
  CallStatus,
  Metadata,
  Method,
  Picker,
} from '../call/call.ts';
import { getText } from '../call/metadata.ts';
import { Code, localStatus } from '../call/status.ts';
import type { Budget } from './budget.ts';
import type { ChannelListener } from './events.ts';
import type { MethodConfig, RetryPolicy } from './service-config.ts';

/** A call that was never sent is picked again this many times at most. */
const maxRepicks = 10;
/** Messages that a call keeps for a further attempt; past it the running attempt is the last. */
const maxBufferedBytes = 1024 * 1024;
/** A replica's timer for the same deadline may run out so much before it: both sides count in whole milliseconds. */
const timerSlackMs = 5;
/** What `setTimeout` takes at most; a longer one would fire at once. */
const maxTimerMs = 2 ** 31 - 1;
/** Calls that wait for a ready endpoint at the same time; past it they fail at once. */
const maxWaitingCalls = 10_000;

export interface AttemptsOptions {
  readonly pick: Picker;
  /** Where calls are sent now. */
  readonly active: () => Pick<AttemptStart, 'upstream' | 'target' | 'priority'>;
  readonly methodConfig: (method: Method) => MethodConfig;
  readonly budget: Budget;
  readonly onEvent: ChannelListener;
}

export interface Attempts extends Caller {
  /** Calls that wait for an endpoint to become ready. */
  readonly waiting: number;
  /** Calls that wait for the time of their next attempt. */
  readonly pausing: number;
  /** To be called when the endpoints have changed: waiting calls pick again. */
  repick(): void;
}

/**
 * Makes one call of one or more attempts, each on a connection that the picker chose. A call that no replica has seen
 * is sent again, whatever its method. One that failed is retried, or hedged, as the policy of its method says and the
 * budget allows (gRFC A6), until its first message has come. Calls wait while no endpoint is ready but one may become so.
 */
export function createAttempts(options: AttemptsOptions): Attempts {
  const waiting = new Set<AttemptedCall>();
  const pausing = new Set<AttemptedCall>();
  const configs = new WeakMap<Method, MethodConfig>();
  const configOf = (method: Method) => {
    let config = configs.get(method);
    if (config === undefined) configs.set(method, (config = options.methodConfig(method)));
    return config;
  };
  return {
    get waiting() {
      return waiting.size;
    },
    get pausing() {
      return pausing.size;
    },
    start(start, observer) {
      const call = new AttemptedCall(options, waiting, pausing, configOf(start.method), start, observer);
      call.begin('first');
      return call;
    },
    repick() {
      // Those that still find nothing are put back in the same order.
      const calls = [...waiting];
      waiting.clear();
      for (const call of calls) call.beginAgain();
    },
  };
}

class AttemptedCall implements Call {
  private readonly options: AttemptsOptions;
  private readonly waiting: Set<AttemptedCall>;
  private readonly pausing: Set<AttemptedCall>;
  private readonly config: MethodConfig;
  private readonly callStart: CallStart;
  private readonly observer: CallObserver;
  private readonly startedMs = performance.now();
  private readonly deadlineMs: number;
  /** Attempts that have not ended; more than one only while hedging. */
  private running: Attempt[] = [];
  /** The attempt that the call is committed to: nothing is repeated any more. */
  private winner: Attempt | undefined;
  /** Attempts that the policy counts: those that a replica may have seen. */
  private attempts = 0;
  private repicks = 0;
  private avoid: readonly string[] = [];
  private credits = 0;
  /** What was written, as long as another attempt may need it. */
  private written: Uint8Array[] = [];
  private writtenBytes = 0;
  private requestEnded = false;
  private wantsWritable = false;
  private mayHedge: boolean;
  private ended = false;
  /** Of the next attempt, or of the deadline while the call waits for an endpoint. */
  private timer: NodeJS.Timeout | undefined;
  private nextReason: AttemptReason = 'first';

  constructor(
    options: AttemptsOptions,
    waiting: Set<AttemptedCall>,
    pausing: Set<AttemptedCall>,
    config: MethodConfig,
    start: CallStart,
    observer: CallObserver,
  ) {
    this.options = options;
    this.waiting = waiting;
    this.pausing = pausing;
    this.config = config;
    this.callStart = start;
    this.observer = observer;
    this.mayHedge = config.hedgingPolicy !== undefined;
    this.deadlineMs = Math.min(start.deadlineMs, this.startedMs + (config.timeoutMs ?? Number.POSITIVE_INFINITY));
  }

  /** Picks a connection and sends the call there, or waits for one. Used again for each attempt. */
  begin(reason: AttemptReason): void {
    if (this.ended) return;
    this.pausing.delete(this);
    this.nextReason = reason;
    const nowMs = performance.now();
    const start = this.nextStart(nowMs);
    if (start.deadlineMs <= nowMs) return this.expired('before it was sent');
    const picked = this.options.pick(start);
    const found = picked !== undefined && !('code' in picked);
    if (!found && this.running.length > 0) return;
    if (picked === undefined || (!found && this.config.waitForReady)) return this.wait();
    if (!found) return this.settle(picked, undefined);
    const attempt = new Attempt(this, picked.endpoint.id, this.attempts, start.deadlineMs, nowMs, this.timeoutMs);
    this.running.push(attempt);
    this.attempts++;
    this.options.onEvent({
      type: 'attempt-started',
      method: start.method,
      endpointId: attempt.endpointId,
      attempt: attempt.index,
      reason,
    });
    attempt.span = start.context?.startAttempt({
      method: start.method,
      endpoint: picked.endpoint,
      reason,
      ...this.options.active(),
    });
    attempt.call = picked.start(withMetadata(start, attempt.span?.metadata), attempt);
    this.replay(attempt);
    this.scheduleHedge(this.config.hedgingPolicy?.hedgingDelayMs);
  }

  /** The attempt that a change of endpoints let go on. */
  beginAgain(): void {
    clearTimeout(this.timer);
    this.begin(this.nextReason);
  }

  request(messages: number): void {
    this.credits += messages;
    for (const { call } of this.running) call?.request(messages);
  }

  write(message: Uint8Array, end: boolean): boolean {
    if (this.ended) return true;
    this.requestEnded ||= end;
    let writable = true;
    for (const attempt of this.running) {
      attempt.sent++;
      attempt.sentBytes += message.length;
      writable = (attempt.call?.write(message, end) ?? false) && writable;
    }
    if (this.winner === undefined) {
      this.written.push(message);
      this.writtenBytes += message.length;
      if (this.writtenBytes > maxBufferedBytes) this.commitToRunning();
    }
    // Without a running attempt the buffer is the only bound.
    if (this.running.length === 0) writable = this.writtenBytes < maxBufferedBytes;
    this.wantsWritable = !writable;
    return writable;
  }

  end(): void {
    this.requestEnded = true;
    for (const { call } of this.running) call?.end();
  }

  cancel(code: number, details: string): void {
    if (this.ended) return;
    this.finishSoon(localStatus(code, details, this.attempts === 0 ? 'no' : 'maybe'));
    for (const { call } of this.running) call?.cancel(code, details);
  }

  headersReceived(attempt: Attempt, metadata: Metadata): void {
    if (this.ended || attempt.lost) return;
    // A replica may send headers and still fail before its first message, which another attempt can make good.
    if (attempt === this.winner || !this.mayRepeat()) this.observer.onHeaders(metadata, attempt.endpointId);
    else attempt.headers = metadata;
  }

  messageReceived(attempt: Attempt, message: Uint8Array): void {
    if (this.ended || attempt.lost) return;
    this.commitTo(attempt);
    attempt.received++;
    attempt.receivedBytes += message.length;
    this.credits--;
    this.observer.onMessage(message);
  }

  becameWritable(attempt: Attempt): void {
    if (this.ended || attempt.lost || !this.wantsWritable) return;
    this.wantsWritable = false;
    this.observer.onWritable();
  }

  attemptEnded(attempt: Attempt, status: CallStatus): void {
    this.options.onEvent({
      type: 'attempt-ended',
      method: this.callStart.method,
      endpointId: attempt.endpointId,
      attempt: attempt.index,
      status,
      durationMs: performance.now() - attempt.startedMs,
      sentBytes: attempt.sentBytes,
      receivedBytes: attempt.receivedBytes,
      lost: attempt.lost,
      hadWholeTimeout: attempt.hadWholeTimeout,
    });
    attempt.span?.end({ status, lost: attempt.lost, sent: attempt.sent, received: attempt.received });
    this.running = this.running.filter((other) => other !== attempt);
    if (this.ended || attempt.lost) return;
    this.settle(status, attempt);
  }

  /** Ends the call with the status of its attempt (or of a pick that found nobody), or makes another attempt. */
  private settle(status: CallStatus, attempt: Attempt | undefined): void {
    if (status.code !== Code.OK && this.winner === undefined && this.repeat(status, attempt)) return;
    if (attempt === undefined) return this.finishSoon(status);
    if (status.code === Code.OK && this.hasPolicy) this.options.budget.succeeded();
    this.commitTo(attempt);
    this.finish(status);
  }

  /** Whether the call goes on after this failure. */
  private repeat(status: CallStatus, attempt: Attempt | undefined): boolean {
    if (attempt !== undefined) this.avoid = [...this.avoid, attempt.endpointId];
    if (attempt !== undefined && status.seenByPeer === 'no' && this.repicks < maxRepicks) {
      this.attempts--;
      // At once on another replica; if there is none, its connection needs a moment to show that it is gone.
      this.schedule('repick', this.repicks++ === 0 ? 0 : 5);
      return true;
    }
    if (this.config.hedgingPolicy !== undefined) return this.hedgeOn(status, attempt);
    const delayMs = this.retryDelayMs(status, attempt);
    if (delayMs === undefined) return false;
    this.schedule('retry', delayMs);
    return true;
  }

  private schedule(reason: AttemptReason, delayMs: number): void {
    clearTimeout(this.timer);
    if (delayMs === 0) return this.begin(reason);
    this.pausing.add(this);
    this.timer = setTimeout(() => this.begin(reason), delayMs);
  }

  /** How long to wait before the next attempt that policy and budget allow; `undefined` if they allow none. */
  private retryDelayMs(status: CallStatus, attempt: Attempt | undefined): number | undefined {
    const { retryPolicy } = this.config;
    if (retryPolicy === undefined) return undefined;
    const timedOut = attempt !== undefined && attempt.deadlineMs < this.deadlineMs && isOwnDeadline(status);
    if (!timedOut && !retryPolicy.retryableCodes.has(status.code)) return undefined;
    this.options.budget.failed();
    // A pick that found nobody was no attempt of a replica, but one of the policy.
    if (attempt === undefined) this.attempts++;
    if (this.attempts >= retryPolicy.maxAttempts || !this.isInBudget()) return undefined;
    const delayMs = pushbackMs(status) ?? backoffMs(retryPolicy, this.attempts);
    return Number.isNaN(delayMs) || performance.now() + delayMs >= this.deadlineMs ? undefined : delayMs;
  }

  /** Whether other attempts go on, or another one begins, after one of them failed. */
  private hedgeOn(status: CallStatus, attempt: Attempt | undefined): boolean {
    if (attempt === undefined || !this.config.hedgingPolicy?.nonFatalCodes.has(status.code)) return false;
    this.options.budget.failed();
    const pushback = pushbackMs(status);
    if (Number.isNaN(pushback)) this.mayHedge = false;
    this.scheduleHedge(pushback ?? 0);
    return this.running.length > 0;
  }

  private scheduleHedge(delayMs: number | undefined): void {
    const { hedgingPolicy } = this.config;
    if (delayMs === undefined || hedgingPolicy === undefined || !this.mayHedge || this.winner !== undefined) return;
    clearTimeout(this.timer);
    const hedge = () => {
      if (this.attempts >= hedgingPolicy.maxAttempts || !this.isInBudget()) return;
      this.avoid = [...new Set([...this.avoid, ...this.running.map(({ endpointId }) => endpointId)])];
      this.begin('hedge');
    };
    // With nobody else running the next begins at once: its result decides whether the call goes on.
    if (delayMs === 0 || this.running.length === 0) hedge();
    else this.timer = setTimeout(hedge, delayMs);
  }

  private isInBudget(): boolean {
    const { budget, onEvent } = this.options;
    if (!budget.allows) onEvent({ type: 'budget-exhausted', method: this.callStart.method });
    return budget.allows;
  }

  private get hasPolicy(): boolean {
    return this.config.retryPolicy !== undefined || this.config.hedgingPolicy !== undefined;
  }

  private mayRepeat(): boolean {
    const { retryPolicy, hedgingPolicy } = this.config;
    if (this.winner !== undefined) return false;
    return hedgingPolicy !== undefined || (retryPolicy !== undefined && this.attempts < retryPolicy.maxAttempts);
  }

  /** Of its retry policy. A stream has none: it is a deadline, which would end one that answers and goes on. */
  private get attemptTimeoutMs(): number | undefined {
    const { requestStream, responseStream } = this.callStart.method;
    return requestStream || responseStream ? undefined : this.config.retryPolicy?.perAttemptRecvTimeoutMs;
  }

  /** How long the service config lets an attempt take; `undefined` without a limit. */
  private get timeoutMs(): number | undefined {
    return this.attemptTimeoutMs ?? this.config.timeoutMs;
  }

  /** What the next attempt is started with: the caller's own object unless something differs. */
  private nextStart(nowMs: number): CallStart {
    const { callStart, attempts } = this;
    const deadlineMs = Math.min(this.deadlineMs, nowMs + (this.attemptTimeoutMs ?? Number.POSITIVE_INFINITY));
    if (deadlineMs === callStart.deadlineMs && attempts === 0 && this.avoid.length === 0) return callStart;
    const metadata: Metadata =
      attempts === 0 ? callStart.metadata : [...callStart.metadata, ['grpc-previous-rpc-attempts', String(attempts)]];
    return { ...callStart, deadlineMs, metadata, avoid: this.avoid };
  }

  private replay(attempt: Attempt): void {
    const { call } = attempt;
    if (call === undefined) return;
    if (this.credits > 0) call.request(this.credits);
    const { written } = this;
    let writable = true;
    for (const [index, message] of written.entries()) {
      attempt.sent++;
      attempt.sentBytes += message.length;
      writable = call.write(message, this.requestEnded && index === written.length - 1);
    }
    if (this.requestEnded && written.length === 0) call.end();
    if (this.writtenBytes > maxBufferedBytes) this.commitToRunning();
    if (writable && this.wantsWritable) queueMicrotask(() => this.becameWritable(attempt));
  }

  private commitToRunning(): void {
    const [attempt] = this.running;
    if (attempt !== undefined) this.commitTo(attempt);
  }

  /** From here on the call is what this attempt makes of it; the others have lost. */
  private commitTo(attempt: Attempt): void {
    if (this.winner !== undefined) return;
    this.winner = attempt;
    this.written = [];
    clearTimeout(this.timer);
    for (const other of this.running) {
      if (other === attempt) continue;
      other.lost = true;
      other.call?.cancel(Code.CANCELLED, 'another attempt answered first');
    }
    if (attempt.headers !== undefined) this.observer.onHeaders(attempt.headers, attempt.endpointId);
  }

  private wait(): void {
    if (this.waiting.size >= maxWaitingCalls) {
      const details = `${maxWaitingCalls} calls already wait for an endpoint`;
      return this.finishSoon(localStatus(Code.UNAVAILABLE, details, 'no'));
    }
    this.waiting.add(this);
    clearTimeout(this.timer);
    if (this.deadlineMs === Number.POSITIVE_INFINITY) return;
    this.timer = setTimeout(
      () => {
        this.expired('while it waited for an endpoint to become ready');
      },
      Math.min(this.deadlineMs - performance.now(), maxTimerMs),
    );
  }

  private expired(when: string): void {
    const seen = this.attempts === 0 ? 'no' : 'maybe';
    this.finishSoon(localStatus(Code.DEADLINE_EXCEEDED, `the deadline of the call passed ${when}`, seen));
  }

  /** For an end that no attempt tells: never inside a method that the caller called. */
  private finishSoon(status: CallStatus): void {
    this.ended = true;
    clearTimeout(this.timer);
    this.waiting.delete(this);
    this.pausing.delete(this);
    queueMicrotask(() => this.finish(status));
  }

  private finish(status: CallStatus): void {
    this.ended = true;
    this.written = [];
    this.options.onEvent({
      type: 'call-ended',
      method: this.callStart.method,
      status,
      attempts: this.attempts,
      durationMs: performance.now() - this.startedMs,
    });
    this.observer.onStatus(status);
  }
}

/** One attempt on one connection; what it hears it passes to its call. */
class Attempt implements CallObserver {
  readonly endpointId: string;
  readonly index: number;
  readonly deadlineMs: number;
  readonly startedMs: number;
  /** The caller's deadline left it all the time that the service config gives, so that its expiry tells of the replica. */
  readonly hadWholeTimeout: boolean;
  /** Another attempt answered first: what comes of this one no longer counts. */
  lost = false;
  /** Held back until the call is committed to this attempt. */
  headers: Metadata | undefined;
  call: Call | undefined;
  span: AttemptSpan | undefined;
  /** Messages. */
  sent = 0;
  received = 0;
  sentBytes = 0;
  receivedBytes = 0;
  private readonly owner: AttemptedCall;

  constructor(
    owner: AttemptedCall,
    endpointId: string,
    index: number,
    deadlineMs: number,
    startedMs: number,
    timeoutMs: number | undefined,
  ) {
    this.owner = owner;
    this.endpointId = endpointId;
    this.index = index;
    this.deadlineMs = deadlineMs;
    this.startedMs = startedMs;
    // The edge may have set the same timeout a moment before.
    this.hadWholeTimeout = timeoutMs !== undefined && deadlineMs - startedMs >= 0.95 * timeoutMs;
  }

  onHeaders(metadata: Metadata): void {
    this.owner.headersReceived(this, metadata);
  }

  onMessage(message: Uint8Array): void {
    this.owner.messageReceived(this, message);
  }

  onWritable(): void {
    this.owner.becameWritable(this);
  }

  onStatus(status: CallStatus): void {
    // The replica keeps the same deadline, and its word that it passed may be read before our own timer.
    const expired = status.code === Code.DEADLINE_EXCEEDED && performance.now() >= this.deadlineMs - timerSlackMs;
    this.owner.attemptEnded(this, expired ? { ...status, from: 'local' } : status);
  }
}

function withMetadata(start: CallStart, metadata: Metadata = []): CallStart {
  return metadata.length === 0 ? start : { ...start, metadata: [...start.metadata, ...metadata] };
}

function isOwnDeadline(status: CallStatus): boolean {
  return status.code === Code.DEADLINE_EXCEEDED && status.from === 'local';
}

/** Full jitter: anywhere between nothing and the exponential bound. */
function backoffMs(policy: RetryPolicy, attemptsMade: number): number {
  const bound = policy.initialBackoffMs * policy.backoffMultiplier ** (attemptsMade - 1);
  return Math.random() * Math.min(bound, policy.maxBackoffMs);
}

/** The server's word on when to come back: NaN, for a negative or unreadable one, means not at all (gRFC A6). */
function pushbackMs(status: CallStatus): number | undefined {
  const text = getText(status.trailers, 'grpc-retry-pushback-ms');
  if (text === undefined) return undefined;
  return /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
}
