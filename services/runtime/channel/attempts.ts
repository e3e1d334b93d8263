import type { Call, Caller, CallObserver, CallStart, CallStatus, Metadata, Method, Picker } from '../call/call.ts';
import { getText } from '../call/metadata.ts';
import { Code, localStatus } from '../call/status.ts';
import type { ChannelListener } from './events.ts';
import type { MethodConfig, RetryPolicy } from './service-config.ts';

/** A call that was never sent is picked again this many times at most. */
const maxRepicks = 10;
/** Messages that a call keeps for a further attempt; past it the running attempt is the last. */
const maxBufferedBytes = 1024 * 1024;
/** Calls that wait for a ready endpoint at the same time; past it they fail at once. */
const maxWaitingCalls = 10_000;

export interface AttemptsOptions {
  readonly pick: Picker;
  readonly methodConfig: (method: Method) => MethodConfig;
  readonly onEvent: ChannelListener;
}

export interface Attempts extends Caller {
  /** To be called when the endpoints have changed: waiting calls pick again. */
  repick(): void;
}

/**
 * Makes one call of one or more attempts, each on a connection that the picker chose: a call that no replica has seen
 * is sent again, whatever its method; one that failed is retried as the method's `retryPolicy` says (gRFC A6), until
 * its first message has come. Calls wait while no endpoint is ready but one may become so.
 */
export function createAttempts(options: AttemptsOptions): Attempts {
  const waiting = new Set<AttemptedCall>();
  const configs = new WeakMap<Method, MethodConfig>();
  const configOf = (method: Method) => {
    let config = configs.get(method);
    if (config === undefined) configs.set(method, (config = options.methodConfig(method)));
    return config;
  };
  return {
    start(start, observer) {
      const call = new AttemptedCall(options, waiting, configOf(start.method), start, observer);
      call.begin();
      return call;
    },
    repick() {
      // Those that still find nothing are put back in the same order.
      const calls = [...waiting];
      waiting.clear();
      for (const call of calls) call.begin();
    },
  };
}

class AttemptedCall implements Call {
  private readonly options: AttemptsOptions;
  private readonly waiting: Set<AttemptedCall>;
  private readonly config: MethodConfig;
  private readonly callStart: CallStart;
  private readonly observer: CallObserver;
  private readonly startedMs = performance.now();
  private readonly deadlineMs: number;
  private attempt: Attempt | undefined;
  /** Attempts that a replica may have seen. */
  private attempts = 0;
  private repicks = 0;
  private avoid: readonly string[] = [];
  private credits = 0;
  /** What was written, as long as another attempt may need it. */
  private written: Uint8Array[] = [];
  private writtenBytes = 0;
  private requestEnded = false;
  private wantsWritable = false;
  /** The running attempt is the last: its messages have been passed on, or the request is no longer kept. */
  private committed = false;
  private ended = false;
  private timer: NodeJS.Timeout | undefined;

  constructor(
    options: AttemptsOptions,
    waiting: Set<AttemptedCall>,
    config: MethodConfig,
    start: CallStart,
    observer: CallObserver,
  ) {
    this.options = options;
    this.waiting = waiting;
    this.config = config;
    this.callStart = start;
    this.observer = observer;
    this.deadlineMs = Math.min(start.deadlineMs, this.startedMs + (config.timeoutMs ?? Number.POSITIVE_INFINITY));
  }

  /** Picks a connection and sends the call there, or waits for one. Used again for each attempt. */
  begin(): void {
    if (this.ended) return;
    const start = this.nextStart();
    if (start.deadlineMs <= performance.now()) return this.expired('before it was sent');
    const picked = this.options.pick(start);
    if (picked === undefined || ('code' in picked && this.config.waitForReady)) return this.wait();
    if ('code' in picked) return this.settle(picked, undefined);
    clearTimeout(this.timer);
    const attempt = new Attempt(this, picked.endpoint.id, this.attempts, start.deadlineMs);
    this.attempt = attempt;
    this.attempts++;
    this.options.onEvent({
      type: 'attempt-started',
      method: start.method,
      endpointId: attempt.endpointId,
      attempt: attempt.index,
    });
    attempt.call = picked.start(start, attempt);
    this.replay(attempt.call);
  }

  request(messages: number): void {
    this.credits += messages;
    this.attempt?.call?.request(messages);
  }

  write(message: Uint8Array, end: boolean): boolean {
    if (this.ended) return true;
    this.requestEnded ||= end;
    if (!this.committed) {
      this.written.push(message);
      this.writtenBytes += message.length;
    }
    const running = this.attempt?.call;
    const writable = running?.write(message, end) ?? false;
    if (running !== undefined && this.writtenBytes > maxBufferedBytes) this.commit();
    this.wantsWritable = !writable;
    // Before the first attempt the buffer is the only bound.
    return writable || (running === undefined && this.writtenBytes < maxBufferedBytes);
  }

  end(): void {
    this.requestEnded = true;
    this.attempt?.call?.end();
  }

  cancel(code: number, details: string): void {
    if (this.ended) return;
    const { attempt } = this;
    this.attempt = undefined;
    this.finishSoon(localStatus(code, details, attempt === undefined && this.attempts === 0 ? 'no' : 'maybe'));
    attempt?.call?.cancel(code, details);
  }

  headersReceived(attempt: Attempt, metadata: Metadata): void {
    if (attempt !== this.attempt) return;
    // A replica may send headers and still fail before its first message, which another attempt can make good.
    if (this.committed || !this.mayRetry()) this.observer.onHeaders(metadata, attempt.endpointId);
    else attempt.headers = metadata;
  }

  messageReceived(attempt: Attempt, message: Uint8Array): void {
    if (attempt !== this.attempt) return;
    this.commit();
    this.credits--;
    this.observer.onMessage(message);
  }

  becameWritable(attempt: Attempt): void {
    if (attempt === this.attempt && this.wantsWritable) this.observer.onWritable();
  }

  attemptEnded(attempt: Attempt, status: CallStatus): void {
    this.options.onEvent({
      type: 'attempt-ended',
      method: this.callStart.method,
      endpointId: attempt.endpointId,
      attempt: attempt.index,
      status,
      durationMs: performance.now() - attempt.startedMs,
    });
    if (attempt !== this.attempt) return;
    this.settle(status, attempt);
  }

  /** Ends the call with the status of its attempt (or of a pick that found nobody), or makes another attempt. */
  private settle(status: CallStatus, attempt: Attempt | undefined): void {
    if (status.code !== Code.OK && !this.committed && attempt !== undefined && status.seenByPeer === 'no') {
      if (this.repicks < maxRepicks) {
        this.attempts--;
        // At once on another replica; if there is none, its connection needs a moment to show that it is gone.
        return this.again(attempt, this.repicks++ === 0 ? 0 : 5);
      }
    } else if (status.code !== Code.OK && !this.committed) {
      const delayMs = this.retryDelayMs(status, attempt);
      if (delayMs !== undefined) return this.again(attempt, delayMs);
    }
    if (attempt === undefined) return this.finishSoon(status);
    this.passHeaders();
    this.finish(status);
  }

  private again(attempt: Attempt | undefined, delayMs: number): void {
    if (attempt !== undefined) this.avoid = [...this.avoid, attempt.endpointId];
    this.attempt = undefined;
    if (delayMs === 0) return this.begin();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.begin(), delayMs);
  }

  /** How long to wait before the next attempt that the retry policy allows; `undefined` if it allows none. */
  private retryDelayMs(status: CallStatus, attempt: Attempt | undefined): number | undefined {
    const { retryPolicy } = this.config;
    if (retryPolicy === undefined) return undefined;
    const made = this.attempts + (attempt === undefined ? 1 : 0);
    if (made >= retryPolicy.maxAttempts) return undefined;
    const timedOut = attempt !== undefined && attempt.deadlineMs < this.deadlineMs && isOwnDeadline(status);
    if (!timedOut && !retryPolicy.retryableCodes.has(status.code)) return undefined;
    const pushback = getText(status.trailers, 'grpc-retry-pushback-ms');
    const delayMs = pushback === undefined ? backoffMs(retryPolicy, made) : pushbackMs(pushback);
    if (delayMs === undefined || performance.now() + delayMs >= this.deadlineMs) return undefined;
    // A pick that found nobody was no attempt of a replica, but one of the policy.
    this.attempts = made;
    return delayMs;
  }

  private mayRetry(): boolean {
    return this.config.retryPolicy !== undefined && this.attempts < this.config.retryPolicy.maxAttempts;
  }

  /** What the next attempt is started with: the caller's own object unless something differs. */
  private nextStart(): CallStart {
    const { callStart, attempts } = this;
    const attemptTimeoutMs = this.config.retryPolicy?.perAttemptRecvTimeoutMs;
    const deadlineMs =
      attemptTimeoutMs === undefined
        ? this.deadlineMs
        : Math.min(this.deadlineMs, performance.now() + attemptTimeoutMs);
    if (deadlineMs === callStart.deadlineMs && attempts === 0 && this.avoid.length === 0) return callStart;
    const metadata: Metadata =
      attempts === 0 ? callStart.metadata : [...callStart.metadata, ['grpc-previous-rpc-attempts', String(attempts)]];
    return { ...callStart, deadlineMs, metadata, avoid: this.avoid };
  }

  private replay(call: Call): void {
    if (this.credits > 0) call.request(this.credits);
    const { written } = this;
    let writable = true;
    for (const [index, message] of written.entries()) {
      writable = call.write(message, this.requestEnded && index === written.length - 1);
    }
    if (this.requestEnded && written.length === 0) call.end();
    if (this.writtenBytes > maxBufferedBytes) this.commit();
    if (writable && this.wantsWritable && !this.requestEnded) {
      this.wantsWritable = false;
      queueMicrotask(() => {
        if (!this.ended) this.observer.onWritable();
      });
    }
  }

  private commit(): void {
    if (this.committed) return;
    this.committed = true;
    this.written = [];
    this.passHeaders();
  }

  private passHeaders(): void {
    const headers = this.attempt?.headers;
    if (this.attempt === undefined || headers === undefined) return;
    this.attempt.headers = undefined;
    this.observer.onHeaders(headers, this.attempt.endpointId);
  }

  private wait(): void {
    if (this.waiting.size >= maxWaitingCalls) {
      const details = `${maxWaitingCalls} calls already wait for an endpoint`;
      return this.finishSoon(localStatus(Code.UNAVAILABLE, details, 'no'));
    }
    this.waiting.add(this);
    clearTimeout(this.timer);
    if (this.deadlineMs === Number.POSITIVE_INFINITY) return;
    this.timer = setTimeout(() => {
      this.expired('while it waited for an endpoint to become ready');
    }, this.deadlineMs - performance.now());
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
  readonly startedMs = performance.now();
  /** Held back until the call is committed to this attempt. */
  headers: Metadata | undefined;
  call: Call | undefined;
  private readonly owner: AttemptedCall;

  constructor(owner: AttemptedCall, endpointId: string, index: number, deadlineMs: number) {
    this.owner = owner;
    this.endpointId = endpointId;
    this.index = index;
    this.deadlineMs = deadlineMs;
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
    this.owner.attemptEnded(this, status);
  }
}

function isOwnDeadline(status: CallStatus): boolean {
  return status.code === Code.DEADLINE_EXCEEDED && status.from === 'local';
}

/** Full jitter: anywhere between nothing and the exponential bound. */
function backoffMs(policy: RetryPolicy, attemptsMade: number): number {
  const bound = policy.initialBackoffMs * policy.backoffMultiplier ** (attemptsMade - 1);
  return Math.random() * Math.min(bound, policy.maxBackoffMs);
}

/** The server's word on when to come back: a negative or unreadable one means not at all (gRFC A6). */
function pushbackMs(text: string): number | undefined {
  return /^\d{1,10}$/.test(text) ? Number(text) : undefined;
}
