import { hash } from 'node:crypto';
import { Counter, Gauge, type Registry } from 'prom-client';
import { createCounter } from '#runtime/process/counter.ts';
import type { Logger } from '#runtime/process/log.ts';
import type { Guard, Visit } from '../edge/exchange.ts';
import type { AuthProvider } from '../policy-schema.ts';
import type { AuthOutcome } from './observe.ts';
import { createKeySet, type KeySet } from './key-set.ts';
import { type CheckedToken, createTokenCheck, missingToken, TokenError } from './token.ts';

/** Who may call, by the tokens of the providers that policies name. */
export interface Authentication {
  /** Begins to fetch keys, without waiting for them. */
  start(): void;
  stop(): void;
  /** Lets requests pass that bring a token of that provider, and says whose it is. */
  guardOf(provider: string): Guard;
}

/** `provider` is a name of the configuration. */
export function createAuthentication(options: {
  readonly providers: readonly AuthProvider[];
  readonly registry: Registry;
  readonly log: Logger;
}): Authentication {
  const { providers, registry, log } = options;
  if (providers.length === 0) return { start() {}, stop() {}, guardOf: (provider) => fail(provider) };
  const requests = createCounter(registry, {
    name: 'tandem_auth_requests_total',
    help: 'Requests to methods that ask for a token, by how they fared',
    labelNames: ['provider', 'outcome'],
  });
  const fetches = new Counter({
    name: 'tandem_auth_jwks_fetches_total',
    help: 'Fetches of the keys of a provider',
    labelNames: ['provider', 'result'],
    registers: [registry],
  });
  const fetchedAt = new Gauge({
    name: 'tandem_auth_jwks_fetched_timestamp_seconds',
    help: 'When the keys of a provider were last fetched',
    labelNames: ['provider'],
    registers: [registry],
  });

  const checks = new Map(
    providers.map((provider) => {
      const { name, jwks: url } = provider;
      const keys = createKeySet({
        url,
        onFetch(result, error) {
          fetches.inc({ provider: name, result });
          if (error === undefined) return fetchedAt.setToCurrentTime({ provider: name });
          log.warn({ provider: name, url, err: error }, 'keys cannot be fetched: the last ones stay in use for 24 h');
        },
      });
      const count = (outcome: AuthOutcome) => void requests.of({ provider: name, outcome }).value++;
      return [name, { keys, guard: createGuard({ provider, keys, count, log }) }];
    }),
  );

  return {
    start() {
      for (const { keys } of checks.values()) keys.start();
    },
    stop() {
      for (const { keys } of checks.values()) keys.stop();
    },
    guardOf: (provider) => checks.get(provider)?.guard ?? fail(provider),
  };
}

function fail(provider: string): never {
  throw new Error(`${provider} is not a provider`);
}

/** Checks that are remembered: one takes 200 to 400 µs of CPU, and a client sends the same token for minutes. */
const maxKnownTokens = 10_000;
const bearerSyntax = /^bearer +([\w.~+/-]+=*)$/i;

function createGuard(options: {
  readonly provider: AuthProvider;
  readonly keys: KeySet;
  readonly count: (outcome: AuthOutcome) => void;
  readonly log: Logger;
}): Guard {
  const { provider, keys, count, log } = options;
  const check = createTokenCheck(provider, keys);
  /** By the hash of the token; the one that was asked for last at the end. */
  const known = new Map<string, CheckedToken & { readonly version: number }>();

  /** The keys must be those of then: one may have been withdrawn. */
  function recall(id: string): CheckedToken | undefined {
    const found = known.get(id);
    if (found === undefined) return undefined;
    known.delete(id);
    if (found.version !== keys.version || found.endsAtMs <= Date.now()) return undefined;
    known.set(id, found);
    return found;
  }

  async function verify(visit: Visit, token: string, id: string): Promise<void> {
    const { version } = keys;
    const checked = await check(token).catch((error: unknown) => {
      throw error instanceof TokenError ? refuse(visit, error) : error;
    });
    if (version !== undefined && version === keys.version) {
      const [oldest] = known.size < maxKnownTokens ? [] : known.keys();
      if (oldest !== undefined) known.delete(oldest);
      known.set(id, { ...checked, version });
    }
    pass(visit, checked);
  }

  function pass(visit: Visit, { identity }: CheckedToken): void {
    visit.identity = identity;
    visit.observation.auth = 'ok';
    count('ok');
  }

  function refuse({ observation, requestId }: Visit, error: TokenError): TokenError {
    observation.auth = error.problem;
    count(error.problem);
    if (error.reason !== '') log.debug({ provider: provider.name, reason: error.reason, requestId }, 'token refused');
    return error;
  }

  return (visit) => {
    const [, token] = bearerSyntax.exec(visit.headers.authorization ?? '') ?? [];
    if (token === undefined) throw refuse(visit, missingToken());
    const id = hash('sha256', token, 'base64');
    const checked = recall(id);
    if (checked === undefined) return verify(visit, token, id);
    pass(visit, checked);
    return undefined;
  };
}
