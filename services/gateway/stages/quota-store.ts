import { createRequire } from 'node:module';
import type { Redis } from 'ioredis';
import { Counter, Gauge, type Registry } from 'prom-client';
import type { RateLimiterAbstract, RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';
import type { Logger } from '#runtime/process/log.ts';

/** What is left of a quota after a request. */
export interface Balance {
  readonly allowed: boolean;
  readonly remaining: number;
  /** Until the whole quota is there again. */
  readonly resetMs: number;
}

/** Counts the requests of one quota by who made them. Never rejects. */
export type CountRequest = (key: string) => Promise<Balance>;

/** Where the requests of quotas are counted. */
export interface QuotaStore {
  /** `id` is the same on all gateways that share the quota. */
  counterOf(id: string, quota: { readonly requests: number; readonly perS: number }): CountRequest;
  /** Connects, without waiting for it. */
  start(): void;
  stop(): void;
}

/** Past it the key that was seen first is forgotten, and may begin anew. Of each quota: some 20 MB. */
const maxKeys = 100_000;
/** How long a request waits for Redis before memory answers it. */
const commandTimeoutMs = 100;
/** A connection that is silent for so long is given up: until the next one is ready, nobody waits. */
const silenceMs = 1_000;
const minReconnectMs = 50;
const maxReconnectMs = 2_000;

/**
 * Counts in the memory of this process, or in a Redis that several gateways share. While that does not answer each counts
 * in its own memory, from nothing: then a caller has the quota once at each gateway. Afterwards Redis goes on where it was.
 */
export function createQuotaStore(options: {
  /** A secret: it may hold a password. Undefined for memory. */
  readonly redisUrl: string | undefined;
  readonly registry: Registry;
  readonly log: Logger;
}): QuotaStore {
  const { redisUrl, registry, log } = options;
  if (redisUrl === undefined) {
    return {
      counterOf: (_id, quota) => countWith(createMemory(quota)),
      start() {},
      stop() {},
    };
  }
  const redis = createRedis(redisUrl, log);
  const uncounted = new Counter({
    name: 'tandem_quota_redis_failures_total',
    help: 'Requests whose quota was counted in memory because Redis did not answer',
    registers: [registry],
  });
  registry.registerMetric(
    new Gauge({
      name: 'tandem_quota_redis_ready',
      help: 'Whether Redis counts the quotas (1), or the memory of this process (0)',
      registers: [],
      collect() {
        this.set(redis.status === 'ready' ? 1 : 0);
      },
    }),
  );

  return {
    counterOf(id, quota) {
      const { RateLimiterRedis } = load('rate-limiter-flexible');
      return countWith(
        new RateLimiterRedis({
          storeClient: redis,
          rejectIfRedisNotReady: true,
          keyPrefix: `tandem:quota:${id}`,
          points: quota.requests,
          duration: quota.perS,
          insuranceLimiter: createMemory(quota, () => uncounted.inc()),
        }),
      );
    },
    start() {
      redis.connect().catch(() => {}); // It is logged, and tried again.
    },
    stop: () => redis.disconnect(),
  };
}

function countWith(limiter: RateLimiterAbstract): CountRequest {
  const balanceOf = ({ remainingPoints, msBeforeNext }: RateLimiterRes, allowed: boolean) => ({
    allowed,
    remaining: remainingPoints,
    resetMs: Math.max(0, msBeforeNext),
  });
  return (key) =>
    limiter.consume(key).then(
      (result) => balanceOf(result, true),
      (result: RateLimiterRes) => balanceOf(result, false),
    );
}

/** Its keys are bounded, which those of the library are not. */
function createMemory(
  { requests, perS }: { readonly requests: number; readonly perS: number },
  onRequest?: () => void,
): RateLimiterMemory {
  const { RateLimiterMemory } = load('rate-limiter-flexible');
  const keys = new Set<string>();
  class BoundedMemory extends RateLimiterMemory {
    override consume(key: string): Promise<RateLimiterRes> {
      onRequest?.();
      if (keys.size >= maxKeys && !keys.has(key)) {
        const [oldest = ''] = keys;
        keys.delete(oldest);
        void this.delete(oldest);
      }
      keys.add(key);
      return super.consume(key);
    }
  }
  return new BoundedMemory({ points: requests, duration: perS });
}

function createRedis(url: string, log: Logger): Redis {
  const { Redis } = load('ioredis');
  const redis = new Redis(url, {
    lazyConnect: true,
    connectionName: 'tandem-gateway',
    connectTimeout: silenceMs,
    commandTimeout: commandTimeoutMs,
    socketTimeout: silenceMs,
    // What cannot be sent now is counted in memory: nothing waits, and nothing is counted late.
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    retryStrategy: (times) => Math.random() * Math.min(maxReconnectMs, minReconnectMs * 2 ** times) + minReconnectMs,
  });
  let isDown = false;
  redis.on('ready', () => {
    isDown = false;
    log.info('Redis counts the quotas');
  });
  redis.on('error', (error) => {
    if (!isDown) log.warn({ err: error }, 'Redis cannot be reached: quotas are counted in memory');
    isDown = true;
  });
  return redis;
}

/** Both take their time to load (50 and 130 ms), which only who has quotas shall wait for. */
function load(name: 'rate-limiter-flexible'): typeof import('rate-limiter-flexible');
function load(name: 'ioredis'): typeof import('ioredis');
function load(name: string): unknown {
  return createRequire(import.meta.url)(name);
}
