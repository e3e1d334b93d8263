import * as v from 'valibot';
import type { Method } from '../call/call.ts';
import { Code, type CodeName } from '../call/status.ts';
import { ConfigError } from '../process/config.ts';

/** The client policy of a channel, read from the standard gRPC service config. Durations are milliseconds. */
export interface ServiceConfig {
  readonly loadBalancing: LoadBalancingConfig;
  /** The name that health Watch asks for (gRFC A17); `undefined` leaves active health checking off. */
  readonly healthCheckServiceName: string | undefined;
  /** Keyed by `package.Service/Method`, `package.Service/` and, for the default, `/`. */
  readonly methods: ReadonlyMap<string, MethodConfig>;
}

export type LoadBalancingConfig = { readonly policy: 'round_robin' };

export interface MethodConfig {
  readonly timeoutMs: number | undefined;
  /** Whether calls wait for a replica until their deadline instead of failing at once. Defaults to false. */
  readonly waitForReady: boolean;
  readonly retryPolicy: RetryPolicy | undefined;
}

/** gRFC A6. */
export interface RetryPolicy {
  /** Counts the first attempt too. */
  readonly maxAttempts: number;
  readonly initialBackoffMs: number;
  readonly maxBackoffMs: number;
  readonly backoffMultiplier: number;
  readonly retryableCodes: ReadonlySet<number>;
  /** The deadline of each attempt, counted from its start. */
  readonly perAttemptRecvTimeoutMs: number | undefined;
}

const none: MethodConfig = { timeoutMs: undefined, waitForReady: false, retryPolicy: undefined };

/** What holds for a method: the entry that names it, else its service, else the default. */
export function methodConfig(config: ServiceConfig, method: Method): MethodConfig {
  const name = method.path.slice(1);
  const service = name.slice(0, name.lastIndexOf('/') + 1);
  const named = config.methods.get(name) ?? config.methods.get(service);
  if (named !== undefined) return named;
  const fallback = config.methods.get('/') ?? none;
  // A default policy must not run a `CreateOrder` twice: what may change something is retried only where it is named.
  if (method.idempotency === 'UNKNOWN') return { ...fallback, retryPolicy: undefined };
  return fallback;
}

/**
 * Reads a service config: https://github.com/grpc/grpc-proto/blob/master/grpc/service_config/service_config.proto, in
 * its JSON form. Nothing is skipped or corrected: what is unknown or out of range is a problem.
 *
 * @throws ConfigError that lists every problem by its JSON path.
 */
export function parseServiceConfig(json: unknown): ServiceConfig {
  const parsed = v.safeParse(serviceConfigSchema, json);
  if (!parsed.success) throw new ConfigError(parsed.issues.map((issue) => describe(issue, json)));
  const { loadBalancingConfig, healthCheckConfig, methodConfig: entries = [] } = parsed.output;
  const methods = new Map<string, MethodConfig>();
  const problems: string[] = [];
  for (const [index, entry] of entries.entries()) {
    const config = toMethodConfig(entry);
    for (const [nameIndex, { service, method }] of entry.name.entries()) {
      const key = `${service}/${method}`;
      if (methods.has(key)) problems.push(`methodConfig[${index}].name[${nameIndex}] is named twice`);
      methods.set(key, config);
    }
  }
  if (problems.length > 0) throw new ConfigError(problems);
  return {
    loadBalancing: loadBalancingConfig?.[0] ?? { policy: 'round_robin' },
    healthCheckServiceName: healthCheckConfig?.serviceName,
    methods,
  };
}

/** google.protobuf.Duration in JSON: seconds with up to nine digits after the point, and an `s`. */
const duration = v.pipe(
  v.string('must be a duration such as "0.5s"'),
  v.regex(/^\d{1,12}(\.\d{1,9})?s$/, 'must be a duration such as "0.5s"'),
  v.transform((text) => Number(text.slice(0, -1)) * 1_000),
);

const positiveDuration = v.pipe(duration, v.minValue(Number.MIN_VALUE, 'must be greater than 0s'));

const codesByNumber = new Set<number>(Object.values(Code));

const statusCode = v.pipe(
  v.union([v.picklist(Object.keys(Code) as CodeName[]), v.number()], 'must be a status code such as "UNAVAILABLE"'),
  v.transform((code) => (typeof code === 'number' ? code : Code[code])),
  v.check((code) => codesByNumber.has(code) && code !== Code.OK, 'must be a status code other than OK'),
);

const retryPolicySchema = v.pipe(
  v.strictObject({
    maxAttempts: v.pipe(
      v.number('must be a number'),
      v.integer('must be an integer'),
      v.minValue(2, 'must be >= 2'),
      v.maxValue(5, 'must be <= 5'),
    ),
    initialBackoff: positiveDuration,
    maxBackoff: positiveDuration,
    backoffMultiplier: v.pipe(v.number('must be a number'), v.gtValue(0, 'must be > 0')),
    retryableStatusCodes: v.pipe(v.array(statusCode), v.minLength(1, 'must name at least one code')),
    perAttemptRecvTimeout: v.optional(positiveDuration),
  }),
  v.transform(
    (policy): RetryPolicy => ({
      maxAttempts: policy.maxAttempts,
      initialBackoffMs: policy.initialBackoff,
      maxBackoffMs: policy.maxBackoff,
      backoffMultiplier: policy.backoffMultiplier,
      retryableCodes: new Set(policy.retryableStatusCodes),
      perAttemptRecvTimeoutMs: policy.perAttemptRecvTimeout,
    }),
  ),
);

const nameSchema = v.pipe(
  v.strictObject({ service: v.optional(v.string(), ''), method: v.optional(v.string(), '') }),
  v.check(({ service, method }) => service !== '' || method === '', 'must name a service where it names a method'),
);

const methodConfigSchema = v.strictObject({
  name: v.pipe(v.array(nameSchema), v.minLength(1, 'must have at least one entry; [{}] is the default')),
  timeout: v.optional(positiveDuration),
  waitForReady: v.optional(v.boolean('must be true or false')),
  retryPolicy: v.optional(retryPolicySchema),
});

const loadBalancingSchema = v.pipe(
  v.strictObject({ round_robin: v.strictObject({}) }),
  v.transform((): LoadBalancingConfig => ({ policy: 'round_robin' })),
);

const serviceConfigSchema = v.strictObject({
  loadBalancingConfig: v.optional(v.pipe(v.array(loadBalancingSchema), v.length(1, 'must name exactly one policy'))),
  methodConfig: v.optional(v.array(methodConfigSchema)),
  healthCheckConfig: v.optional(v.strictObject({ serviceName: v.string('must be text') })),
});

function toMethodConfig(entry: v.InferOutput<typeof methodConfigSchema>): MethodConfig {
  return { timeoutMs: entry.timeout, waitForReady: entry.waitForReady ?? false, retryPolicy: entry.retryPolicy };
}

/** `methodConfig[0].retryPolicy.maxAttempts 9 must be <= 5` */
function describe(issue: v.BaseIssue<unknown>, json: unknown): string {
  let path = '';
  let given = json;
  for (const { key } of issue.path ?? []) {
    path += typeof key === 'number' ? `[${key}]` : `${path && '.'}${String(key)}`;
    given = (given as Record<PropertyKey, unknown>)[key as PropertyKey];
  }
  if (issue.expected === 'never') return `${path} is not a field of the service config`;
  if (given === undefined) return `${path} is missing`;
  return `${path || 'the service config'} ${JSON.stringify(given)} ${issue.message}`;
}
