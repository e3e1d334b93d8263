import { Counter, Gauge, type Registry } from 'prom-client';
import type { Caller, CallStart, CallStatus, Metadata, MetadataEntry, Method } from '#runtime/call/call.ts';
import { getText } from '#runtime/call/metadata.ts';
import { Code, codeName, localStatus } from '#runtime/call/status.ts';
import { type Count, createCounter } from '#runtime/process/counter.ts';
import { millisecondsOf, parseCacheControl, type Wish } from '../edge/cache-control.ts';
import { statusOf } from '../edge/errors.ts';
import type { CachePolicy } from '../policy-schema.ts';
import { createCacheKeys } from './cache-key.ts';
import { createReplyStore, type ReplyForm, type SharedReply, type WrittenReply } from './cache-store.ts';

/** A call that the cache may answer. */
export interface CacheableCall {
  readonly start: CallStart;
  readonly request: Uint8Array;
  readonly form: ReplyForm;
  readonly wish: Wish;
}

/**
 * How an answer came about. From the store: `hit`, or `stale` where that was allowed. By a call of its own: `miss`,
 * `expired` (what was stored is stale) or `requested` (the client did not want what is stored). By somebody else's call:
 * `collapsed`. From the store because the call failed: `stale-if-error`. By neither, since the client wanted nothing but
 * what is stored: `unmatched`. Not for the cache: `bypass`.
 */
export type CacheOutcome = (typeof outcomes)[number];

const outcomes = [
  'hit',
  'stale',
  'miss',
  'expired',
  'requested',
  'collapsed',
  'stale-if-error',
  'unmatched',
  'bypass',
] as const;

/** Why a call was made: https://www.rfc-editor.org/rfc/rfc9211#name-the-fwd-parameter */
export type ForwardReason = 'miss' | 'stale' | 'request';

export interface Answer {
  readonly outcome: CacheOutcome;
  /** Undefined where there is none; `status` tells why. */
  readonly reply?: SharedReply;
  /** The reply in the form that was asked for. */
  readonly written?: WrittenReply;
  /** How the call ended; undefined for an answer without a call. */
  readonly status?: CallStatus;
  /** The replica that answered it. */
  readonly endpointId?: string;
  /** Undefined for an answer without a call. */
  readonly forwarded?: ForwardReason;
  /** Whether what the call brought is kept. */
  readonly stored?: boolean;
}

type OnAnswer = (answer: Answer) => void;

/** The cache of one method. */
export interface MethodCache {
  /**
   * Answers from the store, at once, or by a call that those who ask the same share; `start.deadlineMs` holds for this
   * answer alone. The function that it returns waits no longer: a call that nobody waits for is cancelled.
   */
  answer(call: CacheableCall, onAnswer: OnAnswer): () => void;
  /** Counts a call that is not for the cache. */
  bypass(): void;
}

export interface Cache {
  /** `timeoutMs` is how long a call takes at most unless its caller allows more. */
  of(
    method: Method,
    options: { readonly policy: CachePolicy; readonly timeoutMs: number; readonly next: Caller },
  ): MethodCache;
  /** Ends the calls that nobody waits for, and makes no more of them. */
  close(): void;
}

/** How many calls that nobody waits for may be under way. */
const maxRefreshes = 100;

/** What stale replies may stand in for: https://www.rfc-editor.org/rfc/rfc5861#section-4 */
const outages: ReadonlySet<number> = new Set([
  Code.UNKNOWN,
  Code.DEADLINE_EXCEEDED,
  Code.RESOURCE_EXHAUSTED,
  Code.INTERNAL,
  Code.UNAVAILABLE,
  Code.DATA_LOSS,
]);

/** Somebody who waits for a call. */
interface Waiter {
  readonly key: string;
  readonly call: CacheableCall;
  readonly forwarded: ForwardReason;
  readonly onAnswer: OnAnswer;
  flight: Flight | undefined;
  /** Whether the call was under way before. */
  collapsed: boolean;
  timer: NodeJS.Timeout | undefined;
}

/** A call that is under way. */
interface Flight {
  readonly startedMs: number;
  readonly deadlineMs: number;
  readonly waiters: Set<Waiter>;
  cancel(): void;
}

/**
 * Keeps replies, and makes one call of those that are equal and come at the same time.
 *
 * The deadline of a shared call is that of the first who waits for it, or the method's own timeout if that is later. Who
 * has less time gets DEADLINE_EXCEEDED and leaves the call to the others; who has more goes on to wait for a next call. So
 * each call has somebody who made it and no other: there are never more of them than requests.
 */
export function createCache(options: { readonly maxBytes: number; readonly registry: Registry }): Cache {
  const store = createReplyStore(options);
  const running = new Set<Flight>();
  /** The call that others with the same key join: the last one that was begun. */
  const joinable = new Map<string, Flight>();
  /** Those of `running` that go on without anybody who waits. */
  const refreshes = new Set<Flight>();
  const metrics = createFlightMetrics(options.registry, running);
  let closed = false;

  function createMethodCache(method: Method, policy: CachePolicy, timeoutMs: number, next: Caller): MethodCache {
    const { ttl: ttlMs, staleWhileRevalidate: revalidateMs, staleIfError: ifErrorMs } = policy;
    const keys = createCacheKeys(method, policy.key);
    const lookups = metrics.lookups(method);

    function answer(call: CacheableCall, onAnswer: OnAnswer): () => void {
      const { wish } = call;
      const key = keys.keyOf(call.request, call.start.metadata);
      const nowMs = performance.now();
      const reply = store.get(key);
      let forwarded: ForwardReason = 'miss';
      if (reply !== undefined) {
        const staleMs = nowMs - reply.startedMs - reply.freshMs;
        const allowedMs = leavesItToCache(wish) ? Math.max(wish.maxStaleMs, revalidateMs) : wish.maxStaleMs;
        const isFreshEnough = staleMs <= (wish.minFreshMs > 0 ? -wish.minFreshMs : allowedMs);
        if (isFreshEnough && nowMs - reply.startedMs <= wish.maxAgeMs) {
          if (staleMs > 0 && staleMs <= revalidateMs) refresh(key, call);
          give({ key, call, onAnswer }, reply, { outcome: staleMs > 0 ? 'stale' : 'hit' });
          return () => {};
        }
        forwarded = staleMs > 0 ? 'stale' : 'request';
      }
      if (wish.onlyIfCached) {
        conclude(onAnswer, { outcome: 'unmatched' });
        return () => {};
      }
      const waiter: Waiter = { key, call, forwarded, onAnswer, flight: undefined, collapsed: false, timer: undefined };
      wait(waiter);
      return () => leave(waiter);
    }

    function conclude(onAnswer: OnAnswer, answer: Answer): void {
      lookups[answer.outcome].value++;
      onAnswer(answer);
    }

    function give(to: Pick<Waiter, 'key' | 'call' | 'onAnswer'>, reply: SharedReply, answer: Answer): void {
      const { key, call, onAnswer } = to;
      let given: Answer;
      try {
        given = { ...answer, reply, written: store.written(key, reply, call.form) };
      } catch (error) {
        given = { ...answer, status: statusOf(error) };
      }
      conclude(onAnswer, given);
    }

    /** Gives what is stale in place of a failure, where that is allowed. */
    function fail(waiter: Waiter, status: CallStatus): void {
      const { key, call, forwarded, onAnswer } = waiter;
      const reply = outages.has(status.code) && leavesItToCache(call.wish) ? store.get(key) : undefined;
      if (reply !== undefined && performance.now() - reply.startedMs - reply.freshMs <= ifErrorMs) {
        return give(waiter, reply, { outcome: 'stale-if-error', status, forwarded });
      }
      conclude(onAnswer, { outcome: outcomeOf(waiter), status, forwarded });
    }

    /** Joins the call that is under way, or makes one. */
    function wait(waiter: Waiter): void {
      const { key, call } = waiter;
      const { deadlineMs } = call.start;
      const nowMs = performance.now();
      let flight = joinable.get(key);
      waiter.collapsed = flight !== undefined && nowMs - flight.startedMs <= call.wish.maxAgeMs;
      if (flight === undefined || !waiter.collapsed) {
        flight = launch(key, call, Math.max(deadlineMs, nowMs + timeoutMs));
      }
      flight.waiters.add(waiter);
      waiter.flight = flight;
      if (deadlineMs >= flight.deadlineMs) return;
      waiter.timer = setTimeout(() => {
        leave(waiter);
        fail(waiter, localStatus(Code.DEADLINE_EXCEEDED, 'the deadline passed during a shared call', 'maybe'));
      }, deadlineMs - nowMs);
    }

    function leave(waiter: Waiter): void {
      const { flight, timer } = waiter;
      clearTimeout(timer);
      if (!flight?.waiters.delete(waiter)) return;
      if (flight.waiters.size === 0 && !refreshes.has(flight)) flight.cancel();
    }

    /** Fetches what is stale unless somebody does. */
    function refresh(key: string, call: CacheableCall): void {
      if (closed || refreshes.size >= maxRefreshes || joinable.has(key)) return;
      refreshes.add(launch(key, call, performance.now() + timeoutMs));
    }

    function launch(key: string, { start, request, form }: CacheableCall, deadlineMs: number): Flight {
      let metadata: Metadata = [];
      let endpointId = '';
      let message: Uint8Array | undefined;
      const startedMs = performance.now();
      const call = next.start(
        { ...start, metadata: keys.sharedPart(start.metadata), deadlineMs },
        {
          onHeaders(headers, id) {
            metadata = headers;
            endpointId = id;
          },
          onMessage(bytes) {
            message = bytes;
          },
          onWritable() {},
          onStatus: land,
        },
      );
      const flight: Flight = {
        startedMs,
        deadlineMs,
        waiters: new Set(),
        cancel() {
          if (joinable.get(key) === flight) joinable.delete(key);
          call.cancel(Code.CANCELLED, 'nobody waits for it any more');
        },
      };
      running.add(flight);
      joinable.set(key, flight);
      call.request(1);
      call.write(request, true);
      return flight;

      function land(status: CallStatus): void {
        running.delete(flight);
        if (joinable.get(key) === flight) joinable.delete(key);
        if (refreshes.delete(flight)) metrics.countRefresh(method, status);
        const { reply, stored, failure } = settle(status);
        const isTimeUp = status.code === Code.DEADLINE_EXCEEDED && performance.now() > deadlineMs - 1;
        for (const waiter of flight.waiters) {
          clearTimeout(waiter.timer);
          waiter.flight = undefined;
          if (reply !== undefined) {
            const { forwarded } = waiter;
            give(waiter, reply, { outcome: outcomeOf(waiter), status, forwarded, endpointId, stored });
          } else if (isTimeUp && waiter.call.start.deadlineMs > deadlineMs) wait(waiter);
          else fail(waiter, failure);
        }
      }

      function settle(status: CallStatus): { reply?: SharedReply; stored: boolean; failure: CallStatus } {
        if (status.code !== Code.OK)
          return {
            stored: false,
            failure: { ...status, trailers: [...status.trailers, ...metadata].filter(isForAll) },
          };
        try {
          if (message === undefined) throw new Error('OK without a message');
          const reply: SharedReply = {
            message: new Uint8Array(message), // A copy, since what came in may be a part of a larger buffer.
            metadata: [...metadata, ...status.trailers].filter(isForAll),
            startedMs,
            freshMs: freshMsOf(metadata),
            written: new Map(),
          };
          store.written(key, reply, form);
          return { reply, stored: store.keep(key, reply), failure: status };
        } catch (error) {
          return { stored: false, failure: statusOf(error) };
        }
      }
    }

    /** What the upstream says can only be less than the policy. */
    function freshMsOf(metadata: Metadata): number {
      const header = getText(metadata, 'cache-control');
      if (header === undefined) return ttlMs;
      const directives = parseCacheControl(header);
      if (['no-store', 'no-cache', 'private'].some((name) => directives.has(name))) return 0;
      const toldMs = millisecondsOf(directives, 's-maxage', 0) ?? millisecondsOf(directives, 'max-age', 0);
      return Math.min(toldMs ?? ttlMs, ttlMs);
    }

    return { answer, bypass: () => void lookups.bypass.value++ };
  }

  return {
    of: (method, { policy, timeoutMs, next }) => createMethodCache(method, policy, timeoutMs, next),
    close() {
      closed = true;
      for (const flight of refreshes) {
        refreshes.delete(flight);
        if (flight.waiters.size === 0) flight.cancel();
      }
    },
  };
}

/** What is stale is not for those who say how old or how fresh they take it. */
function leavesItToCache({ maxAgeMs, minFreshMs }: Wish): boolean {
  return maxAgeMs === Infinity && minFreshMs === 0;
}

/** A cookie is for one. */
function isForAll([key]: MetadataEntry): boolean {
  return key !== 'set-cookie';
}

const outcomeByReason = { miss: 'miss', stale: 'expired', request: 'requested' } as const;

function outcomeOf({ collapsed, forwarded }: Waiter): CacheOutcome {
  return collapsed ? 'collapsed' : outcomeByReason[forwarded];
}

function createFlightMetrics(registry: Registry, running: ReadonlySet<Flight>) {
  const registers = [registry];
  const lookups = createCounter(registry, {
    name: 'tandem_cache_lookups_total',
    help: 'Answers of methods with a cache policy, by how they came about',
    labelNames: ['grpc_method', 'outcome'],
  });
  const refreshes = new Counter({
    name: 'tandem_cache_refreshes_total',
    help: 'Calls that fetched a stale reply again while nobody waited, by how they ended',
    labelNames: ['grpc_method', 'grpc_status'],
    registers,
  });
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  gauge('tandem_cache_calls', 'Calls under way whose reply can be shared', () => running.size);
  gauge('tandem_cache_waiters', 'Requests that wait for them', () =>
    [...running].reduce((waiters, flight) => waiters + flight.waiters.size, 0),
  );
  const nameOf = ({ path }: Method) => path.slice(1);
  return {
    lookups(method: Method) {
      const grpc_method = nameOf(method);
      const counts = outcomes.map((outcome) => [outcome, lookups.of({ grpc_method, outcome })] as const);
      return Object.fromEntries(counts) as Record<CacheOutcome, Count>;
    },
    countRefresh: (method: Method, { code }: CallStatus) =>
      refreshes.inc({ grpc_method: nameOf(method), grpc_status: codeName(code) }),
  };
}
