import { createRequire } from 'node:module';
import type { JWTVerifyGetKey } from 'jose';

/** The public keys of an issuer of tokens, by the URL of its JWKS (RFC 7517). */
export interface KeySet {
  /** Fetches the keys, and again from time to time. Does not wait for them. */
  start(): void;
  stop(): void;
  /**
   * The key of a token. One that is not there may be new: the set is fetched again, once for all who wait, and not within
   * `cooldownMs` of the last time that one was not there. Rejects with KeysUnavailable while that cannot be told, and else as jose's key sets do.
   */
  readonly find: JWTVerifyGetKey;
  /** Another one for each other set of keys; undefined while there are none. */
  readonly version: number | undefined;
}

/** The keys cannot be had just now. */
export class KeysUnavailable extends Error {
  override readonly name = 'KeysUnavailable';
  /** When the next attempt to fetch them ends, about. */
  readonly retryAfterMs: number;

  constructor(retryAfterMs: number) {
    super('the keys cannot be fetched');
    this.retryAfterMs = retryAfterMs;
  }
}

export type FetchResult = 'ok' | 'failed';

/** A set of keys is some kilobytes. */
const maxBytes = 1_048_576;
const retryMs = { first: 1_000, max: 30_000 } as const;

/**
 * jose's own remote key set forgets its keys when they have grown old and cannot be fetched, and then asks for them with
 * each request. This one keeps the last good keys for `maxAgeMs`, and asks at its own pace.
 */
export function createKeySet(options: {
  readonly url: string;
  readonly onFetch: (result: FetchResult, error?: Error) => void;
  /** How long a fetch may take. Defaults to 5 s. */
  readonly timeoutMs?: number;
  /** How often the keys are fetched while all is well. Defaults to 10 minutes. */
  readonly refreshMs?: number;
  /** The least time between two fetches for keys that are not there. Defaults to 10 s. */
  readonly cooldownMs?: number;
  /** How long keys are used that cannot be fetched again. Defaults to 24 h. */
  readonly maxAgeMs?: number;
}): KeySet {
  const { url, onFetch, timeoutMs = 5_000, refreshMs = 600_000, cooldownMs = 10_000, maxAgeMs = 86_400_000 } = options;
  const { createLocalJWKSet } = loadJose();
  let keys: JWTVerifyGetKey | undefined;
  let text = '';
  let version = 0;
  let fetchedAtMs = -Infinity;
  let missedAtMs = -Infinity;
  let fetching: Promise<void> | undefined;
  let failures = 0;
  let timer: NodeJS.Timeout | undefined;
  let nextAtMs = 0;
  let stopped = false;

  /** Never rejects. */
  function refresh(): Promise<void> {
    clearTimeout(timer);
    return (fetching ??= fetchKeys().then(
      () => settle(0),
      (error: Error) => settle(failures + 1, error),
    ));
  }

  async function fetchKeys(): Promise<void> {
    const fetched = await readText(url, timeoutMs);
    if (fetched !== text || keys === undefined) {
      const json = JSON.parse(fetched) as { readonly keys?: unknown };
      if (Array.isArray(json?.keys) && json.keys.length === 0) throw new Error('the set has no keys');
      keys = createLocalJWKSet(json as Parameters<typeof createLocalJWKSet>[0]);
      text = fetched;
      version++;
    }
    fetchedAtMs = performance.now();
  }

  function settle(newFailures: number, error?: Error): void {
    fetching = undefined;
    failures = newFailures;
    if (stopped) return;
    onFetch(error === undefined ? 'ok' : 'failed', error);
    const delayMs = failures === 0 ? refreshMs : Math.min(retryMs.max, retryMs.first * 2 ** (failures - 1));
    // Gateways that start together shall not come together.
    const spreadMs = delayMs * (0.9 + 0.2 * Math.random());
    nextAtMs = performance.now() + spreadMs;
    timer = setTimeout(() => void refresh(), spreadMs).unref();
  }

  const usable = () => (performance.now() - fetchedAtMs < maxAgeMs ? keys : undefined);
  const unavailable = () => new KeysUnavailable(Math.max(1_000, nextAtMs - performance.now()));

  return {
    start() {
      void refresh();
    },
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
    async find(header, token) {
      const known = usable();
      if (known !== undefined) {
        try {
          return await known(header, token);
        } catch (error) {
          if (!isNoMatch(error)) throw error;
        }
      }
      // While fetches fail, they are repeated anyhow.
      if (fetching === undefined && failures === 0 && performance.now() - missedAtMs >= cooldownMs) {
        missedAtMs = performance.now();
        void refresh();
      }
      await fetching;
      const fresh = usable();
      if (fresh === undefined) throw unavailable();
      try {
        return await fresh(header, token);
      } catch (error) {
        // Whether a new key is good can be told only by who has the new set.
        throw failures > 0 && isNoMatch(error) ? unavailable() : error;
      }
    },
    get version() {
      return usable() && version;
    },
  };
}

/** It takes 100 ms and 14 MB, which only who asks for tokens shall wait for. */
export function loadJose(): typeof import('jose') {
  return createRequire(import.meta.url)('jose');
}

function isNoMatch(error: unknown): boolean {
  return (error as { readonly code?: string }).code === 'ERR_JWKS_NO_MATCHING_KEY';
}

/** The body of a reply that is 200 and not too long. */
async function readText(url: string, timeoutMs: number): Promise<string> {
  const { status, body } = await fetch(url, {
    redirect: 'error',
    headers: { accept: 'application/jwk-set+json, application/json' },
    signal: AbortSignal.timeout(timeoutMs),
  });
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body ?? []) {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > maxBytes) throw new Error(`the reply must be <= ${maxBytes} bytes`);
  }
  if (status !== 200) throw new Error(`the reply must be 200, is ${status}`);
  return Buffer.concat(chunks).toString();
}
