import { hash } from 'node:crypto';
import type { Registry } from 'prom-client';
import { Code, type RpcError } from '#runtime/call/status.ts';
import { createCounter } from '#runtime/process/counter.ts';
import type { Logger } from '#runtime/process/log.ts';
import { errorWith, retryInfo } from '../edge/errors.ts';
import type { Guard, Visit } from '../edge/exchange.ts';
import type { PolicyConfig, QuotaPolicy } from '../policy-schema.ts';
import { createQuotaStore, type QuotaStore } from './quota-store.ts';

/** The quotas of the policies. */
export interface Quotas {
  /** Counts requests, and lets those pass that are within the quota. */
  guardOf(quota: QuotaPolicy): Guard;
  /** Connects to where they are counted, without waiting for it. */
  start(): void;
  stop(): void;
}

/**
 * A quota for each policy that has one, whichever of its methods is called. Replies say what is left of it in the fields
 * of https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/10/.
 */
export function createQuotas(options: {
  readonly policies: readonly PolicyConfig[];
  /** Of the Redis that counts; undefined for the memory of this process. */
  readonly redisUrl: string | undefined;
  readonly registry: Registry;
  readonly log: Logger;
}): Quotas {
  const { policies, registry } = options;
  const withQuota = policies.flatMap(({ name, quota }) => (quota === undefined ? [] : [{ name: nameOf(name), quota }]));
  if (withQuota.length === 0) return { guardOf: fail, start() {}, stop() {} };
  const store = createQuotaStore(options);
  const requests = createCounter(registry, {
    name: 'tandem_quota_requests_total',
    help: 'Requests to methods with a quota, by whether they were within it',
    labelNames: ['policy', 'result'],
  });
  const guards = new Map(
    withQuota.map(({ name, quota }) => {
      const allowed = requests.of({ policy: name, result: 'allowed' });
      const refused = requests.of({ policy: name, result: 'refused' });
      const count = (isAllowed: boolean) => void (isAllowed ? allowed : refused).value++;
      return [quota, createGuard(name, quota, store, count)];
    }),
  );
  return { guardOf: (quota) => guards.get(quota) ?? fail(), start: store.start, stop: store.stop };
}

function fail(): never {
  throw new Error('no policy has this quota');
}

function createGuard(
  name: string,
  quota: QuotaPolicy,
  store: QuotaStore,
  onRequest: (allowed: boolean) => void,
): Guard {
  const { requests, per } = quota;
  const perS = per / 1_000;
  // Another quota of the same policy is another one: what was counted for the last does not matter to it.
  const id = shortHash(JSON.stringify([name, requests, perS, quota.key]));
  const count = store.counterOf(id, { requests, perS });
  const policyField = `"${name}";q=${requests};w=${perS}`;
  const allowance = `${requests} requests in ${perS} s`;

  return async (visit) => {
    // Nobody who reads the store shall find a key that opens something there.
    const { allowed, remaining, resetMs } = await count(shortHash(callerOf(visit, quota.key)));
    onRequest(allowed);
    void visit.reply
      .header('ratelimit-policy', policyField)
      .header('ratelimit', `"${name}";r=${remaining};t=${Math.ceil(resetMs / 1_000)}`);
    if (!allowed) throw exhausted(`the quota of ${allowance} is used up`, quota.key, resetMs);
  };
}

/** https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto */
function exhausted(message: string, subject: string, resetMs: number): RpcError {
  const failure = {
    '@type': 'type.googleapis.com/google.rpc.QuotaFailure',
    violations: [{ subject, description: message }],
  };
  return errorWith(Code.RESOURCE_EXHAUSTED, message, [failure, retryInfo(resetMs)]);
}

/** Whose request it is. Who does not bring the header, or has no such claim, counts by its address. */
function callerOf({ headers, ip, identity }: Visit, key: string): string {
  const [kind = '', name = ''] = splitOnce(key);
  const value = kind === 'header' ? headers[name] : kind === 'claim' ? identity?.claims[name] : undefined;
  if (value !== undefined && value !== '') return `${key} ${typeof value === 'string' ? value : JSON.stringify(value)}`;
  return `ip ${networkOf(ip)}`;
}

function splitOnce(key: string): readonly string[] {
  const colon = key.indexOf(':');
  return colon === -1 ? [key] : [key.slice(0, colon), key.slice(colon + 1)];
}

/** Who gets an IPv6 address gets 2⁶⁴ of them: they count as one. An IPv4 address stands for itself, mapped or not. */
export function networkOf(ip: string): string {
  if (!ip.includes(':')) return ip;
  if (ip.includes('.')) return ip.slice(ip.lastIndexOf(':') + 1);
  const [before = '', after] = ip.replace(/%.*$/, '').toLowerCase().split('::');
  const groups = before === '' ? [] : before.split(':');
  if (after !== undefined) {
    const rest = after === '' ? [] : after.split(':');
    groups.push(...Array<string>(Math.max(0, 8 - groups.length - rest.length)).fill('0'), ...rest);
  }
  return `${groups
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ''))
    .join(':')}::/64`;
}

/** The name of a policy in metrics and headers: the methods that it is for. */
function nameOf(names: PolicyConfig['name']): string {
  return names
    .map(({ service, method }) =>
      service === undefined ? 'all' : `${service}${method === undefined ? '' : `/${method}`}`,
    )
    .join(' ');
}

function shortHash(text: string): string {
  return hash('sha256', text, 'base64url').slice(0, 22);
}
