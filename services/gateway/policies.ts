import type { Method } from '#runtime/call/call.ts';
import { ConfigError } from '#runtime/process/config.ts';
import type { ConfigFile } from './config-file.ts';
import type { CachePolicy, PolicyConfig, QuotaPolicy } from './policy-schema.ts';

/** What holds for a method beyond what gRPC's service config can say. */
export interface Policy {
  readonly cache: CachePolicy | undefined;
  readonly quota: QuotaPolicy | undefined;
  /** The name of the provider whose tokens it asks for; undefined for anonymous. */
  readonly authProvider: string | undefined;
  /** Low is shed first. */
  readonly priority: 'high' | 'low';
}

/**
 * The policy of each of these methods.
 *
 * @throws ConfigError that lists each policy that names no method, or the same as another, or cannot hold for what it names.
 */
export function createPolicies(
  file: Pick<ConfigFile, 'policies' | 'auth' | 'placeOf'> | undefined,
  methods: readonly Method[],
): (method: Method) => Policy {
  const { policies = [], auth = [] } = file ?? {};
  const problems: string[] = [];
  const fail = (keys: readonly (string | number)[], message: string) =>
    problems.push(`${file?.placeOf(...keys)}: ${pathText(keys)} ${message}`);
  /** By the name `/service/method`, `/service/` or `/`. */
  const byName = new Map<string, PolicyConfig>();

  for (const [index, policy] of policies.entries()) {
    for (const [at, { service, method }] of policy.name.entries()) {
      const keys = ['policies', index, 'name', at];
      const name = service === undefined ? '/' : `/${service}/${method ?? ''}`;
      const named = methods.filter(({ path }) => path === name || (method === undefined && path.startsWith(name)));
      if (service === undefined && method !== undefined) fail(keys, 'must name the service of the method');
      else if (named.length === 0) fail(keys, `"${name.slice(1)}" is not in the descriptors`);
      else if (byName.has(name)) fail(keys, `"${name.slice(1) || '{}'}" has a policy already`);
      else byName.set(name, policy);
      if (policy.cache !== undefined && named.length > 0 && !named.some(isCacheable)) {
        fail(['policies', index, 'cache'], 'must be for a unary method that is NO_SIDE_EFFECTS');
      }
    }
    const { auth: asked } = policy;
    if (typeof asked === 'object' && !auth.some(({ name }) => name === asked.provider)) {
      fail(['policies', index, 'auth', 'provider'], `"${asked.provider}" is not one of auth`);
    }
  }

  const resolved = new Map(methods.map((method) => [method, resolve(method)]));
  if (problems.length > 0) throw new ConfigError(problems);
  return (method) => resolved.get(method) as Policy;

  function resolve(method: Method): Policy {
    const service = method.path.slice(0, method.path.lastIndexOf('/') + 1);
    const candidates = [byName.get(method.path), byName.get(service), byName.get('/')];
    const find = <K extends keyof PolicyConfig>(field: K): PolicyConfig[K] | undefined =>
      candidates.find((policy) => policy?.[field] !== undefined)?.[field];
    const asked = find('auth');
    const quota = find('quota');
    if (auth.length > 0 && asked === undefined) {
      fail(['policies'], `must say the auth of ${method.path.slice(1)}: a provider, or anonymous`);
    }
    if (quota?.key.startsWith('claim:') && typeof asked !== 'object') {
      fail(['policies'], `must have an auth provider for the quota of ${method.path.slice(1)} by ${quota.key}`);
    }
    return {
      cache: isCacheable(method) ? find('cache') : undefined,
      quota,
      authProvider: typeof asked === 'object' ? asked.provider : undefined,
      priority: find('priority') ?? 'high',
    };
  }
}

function isCacheable({ idempotency, requestStream, responseStream }: Method): boolean {
  return idempotency === 'NO_SIDE_EFFECTS' && !requestStream && !responseStream;
}

function pathText(keys: readonly (string | number)[]): string {
  return keys.reduce<string>(
    (path, key) => (typeof key === 'number' ? `${path}[${key}]` : `${path && `${path}.`}${key}`),
    '',
  );
}
