import * as v from 'valibot';
import type { Method } from '../call/call.ts';
import { Code, type CodeName } from '../call/status.ts';
import { ConfigError, strictObject } from '../process/config.ts';

/** The client policy of a channel, read from the standard gRPC service config. Durations are milliseconds. */
export interface ServiceConfig {
  readonly loadBalancing: LoadBalancingConfig;
  readonly outlierDetection: OutlierDetectionConfig | undefined;
  /** The name that health Watch asks for (gRFC A17); `undefined` leaves active health checking off. */
  readonly healthCheckServiceName: string | undefined;
  /** The budget that retries and hedges share; `undefined` sets them no limit. */
  readonly retryThrottling: RetryThrottling | undefined;
  /** Keyed by `package.Service/Method`, `package.Service/` and, for the default, `/`. */
  readonly methods: ReadonlyMap<string, MethodConfig>;
}

export type LoadBalancingConfig =
  | { readonly policy: 'round_robin' }
  | { readonly policy: 'least_request_experimental'; readonly choiceCount: number };

/** gRFC A50. Percentages are 0…100. */
export interface OutlierDetectionConfig {
  /** How often the endpoints are compared. Defaults to 10 s. */
  readonly intervalMs: number;
  /** An ejection lasts this long times how often the endpoint was ejected before. Defaults to 30 s. */
  readonly baseEjectionTimeMs: number;
  /** Defaults to 300 s. */
  readonly maxEjectionTimeMs: number;
  /** Of all endpoints; one may always be ejected, the last never. Defaults to 10. */
  readonly maxEjectionPercent: number;
  readonly successRateEjection: SuccessRateEjection | undefined;
  readonly failurePercentageEjection: FailurePercentageEjection | undefined;
}

export interface SuccessRateEjection {
  /** Thousandths of a standard deviation below the mean. Defaults to 1900. */
  readonly stdevFactor: number;
  readonly enforcementPercentage: number;
  readonly minimumHosts: number;
  /** Calls that an endpoint must have had in an interval to be judged. Defaults to 100. */
  readonly requestVolume: number;
}

export interface FailurePercentageEjection {
  /** Defaults to 85. */
  readonly threshold: number;
  readonly enforcementPercentage: number;
  readonly minimumHosts: number;
  /** Defaults to 50. */
  readonly requestVolume: number;
}

/** gRFC A6: further attempts are made only while more than half of the tokens are left. */
export interface RetryThrottling {
  readonly maxTokens: number;
  /** What a success gives back; a failure takes 1. */
  readonly tokenRatio: number;
}

export interface MethodConfig {
  readonly timeoutMs: number | undefined;
  /** Whether calls wait for a replica until their deadline instead of failing at once. Defaults to false. */
  readonly waitForReady: boolean;
  /** A method has a retry or a hedging policy, not both. */
  readonly retryPolicy: RetryPolicy | undefined;
  readonly hedgingPolicy: HedgingPolicy | undefined;
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

/** gRFC A6: attempts run beside each other, and the first that answers wins. */
export interface HedgingPolicy {
  /** Counts the first attempt too. */
  readonly maxAttempts: number;
  /** How long an attempt may stay unanswered before the next begins. */
  readonly hedgingDelayMs: number;
  /** An attempt that fails so does not end the call. */
  readonly nonFatalCodes: ReadonlySet<number>;
}

const none: MethodConfig = {
  timeoutMs: undefined,
  waitForReady: false,
  retryPolicy: undefined,
  hedgingPolicy: undefined,
};

/** What holds for a method: the entry that names it, else its service, else the default. */
export function methodConfig(config: ServiceConfig, method: Method): MethodConfig {
  const name = method.path.slice(1);
  const service = name.slice(0, name.lastIndexOf('/') + 1);
  const named = config.methods.get(name) ?? config.methods.get(service);
  const found = named ?? config.methods.get('/') ?? none;
  if (method.idempotency !== 'UNKNOWN') return found;
  // A policy must not run a `CreateOrder` twice: what may change something is retried only where it is named, and never
  // sent to two replicas at once.
  return { ...found, retryPolicy: named?.retryPolicy, hedgingPolicy: undefined };
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
  const { loadBalancingConfig, healthCheckConfig, retryThrottling, methodConfig: entries = [] } = parsed.output;
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
    loadBalancing: loadBalancingConfig?.[0]?.loadBalancing ?? roundRobin,
    outlierDetection: loadBalancingConfig?.[0]?.outlierDetection,
    healthCheckServiceName: healthCheckConfig?.serviceName,
    retryThrottling,
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

const number = v.number('must be a number');
const integer = v.pipe(number, v.integer('must be an integer'));

const between = (min: number, max: number) =>
  v.pipe(integer, v.minValue(min, `must be >= ${min}`), v.maxValue(max, `must be <= ${max}`));

const statusCodes = v.pipe(
  v.array(statusCode),
  v.transform((codes): ReadonlySet<number> => new Set(codes)),
);

const retryPolicySchema = v.pipe(
  strictObject({
    maxAttempts: between(2, 5),
    initialBackoff: positiveDuration,
    maxBackoff: positiveDuration,
    backoffMultiplier: v.pipe(number, v.gtValue(0, 'must be > 0')),
    retryableStatusCodes: v.pipe(
      statusCodes,
      v.check((codes) => codes.size > 0, 'must name at least one code'),
    ),
    perAttemptRecvTimeout: v.optional(positiveDuration),
  }),
  v.transform(
    (policy): RetryPolicy => ({
      maxAttempts: policy.maxAttempts,
      initialBackoffMs: policy.initialBackoff,
      maxBackoffMs: policy.maxBackoff,
      backoffMultiplier: policy.backoffMultiplier,
      retryableCodes: policy.retryableStatusCodes,
      perAttemptRecvTimeoutMs: policy.perAttemptRecvTimeout,
    }),
  ),
);

const hedgingPolicySchema = v.pipe(
  strictObject({
    maxAttempts: between(2, 5),
    hedgingDelay: v.optional(duration, '0s'),
    nonFatalStatusCodes: v.optional(statusCodes, []),
  }),
  v.transform(
    (policy): HedgingPolicy => ({
      maxAttempts: policy.maxAttempts,
      hedgingDelayMs: policy.hedgingDelay,
      nonFatalCodes: policy.nonFatalStatusCodes,
    }),
  ),
);

const retryThrottlingSchema = strictObject({
  maxTokens: v.pipe(number, v.gtValue(0, 'must be > 0'), v.maxValue(1_000, 'must be <= 1000')),
  tokenRatio: v.pipe(number, v.gtValue(0, 'must be > 0')),
});

const nameSchema = v.pipe(
  strictObject({ service: v.optional(v.string(), ''), method: v.optional(v.string(), '') }),
  v.check(({ service, method }) => service !== '' || method === '', 'must name a service where it names a method'),
);

const methodConfigSchema = v.pipe(
  strictObject({
    name: v.pipe(v.array(nameSchema), v.minLength(1, 'must have at least one entry; [{}] is the default')),
    timeout: v.optional(positiveDuration),
    waitForReady: v.optional(v.boolean('must be true or false'), false),
    retryPolicy: v.optional(retryPolicySchema),
    hedgingPolicy: v.optional(hedgingPolicySchema),
  }),
  v.forward(
    v.check(
      ({ retryPolicy, hedgingPolicy }) => retryPolicy === undefined || hedgingPolicy === undefined,
      'must not stand beside a retryPolicy',
    ),
    ['hedgingPolicy'],
  ),
);

const percentage = between(0, 100);

const outlierDetectionEntries = {
  interval: v.optional(positiveDuration, '10s'),
  baseEjectionTime: v.optional(positiveDuration, '30s'),
  maxEjectionTime: v.optional(positiveDuration, '300s'),
  maxEjectionPercent: v.optional(percentage, 10),
  successRateEjection: v.optional(
    strictObject({
      stdevFactor: v.optional(between(0, 1_000_000), 1_900),
      enforcementPercentage: v.optional(percentage, 100),
      minimumHosts: v.optional(between(2, 1_000), 5),
      requestVolume: v.optional(between(1, 1_000_000), 100),
    }),
  ),
  failurePercentageEjection: v.optional(
    strictObject({
      threshold: v.optional(percentage, 85),
      enforcementPercentage: v.optional(percentage, 100),
      minimumHosts: v.optional(between(2, 1_000), 5),
      requestVolume: v.optional(between(1, 1_000_000), 50),
    }),
  ),
};

const roundRobin: LoadBalancingConfig = { policy: 'round_robin' };

/** An entry of a `loadBalancingConfig`: one policy by its name. */
const leafPolicySchema = v.pipe(
  strictObject({
    round_robin: v.optional(strictObject({})),
    least_request_experimental: v.optional(strictObject({ choiceCount: v.optional(between(2, 10), 2) })),
  }),
  v.check((policies) => Object.keys(policies).length === 1, 'must name exactly one policy'),
  v.transform(({ least_request_experimental: leastRequest }): LoadBalancingConfig => {
    if (leastRequest === undefined) return roundRobin;
    return { policy: 'least_request_experimental', choiceCount: leastRequest.choiceCount };
  }),
);

const onePolicy = 'must name exactly one policy';

const outlierDetectionSchema = v.pipe(
  strictObject({
    ...outlierDetectionEntries,
    childPolicy: v.optional(v.pipe(v.array(v.unknown()), v.length(1, onePolicy), v.tuple([leafPolicySchema]))),
  }),
  v.transform(({ interval, baseEjectionTime, maxEjectionTime, childPolicy, ...rest }) => ({
    loadBalancing: childPolicy?.[0] ?? roundRobin,
    outlierDetection: {
      intervalMs: interval,
      baseEjectionTimeMs: baseEjectionTime,
      maxEjectionTimeMs: maxEjectionTime,
      maxEjectionPercent: rest.maxEjectionPercent,
      successRateEjection: rest.successRateEjection,
      failurePercentageEjection: rest.failurePercentageEjection,
    } satisfies OutlierDetectionConfig,
  })),
);

const policySchema = v.lazy((policy) =>
  isObject(policy) && 'outlier_detection' in policy
    ? v.pipe(
        strictObject({ outlier_detection: outlierDetectionSchema }),
        v.transform(({ outlier_detection: detection }) => detection),
      )
    : v.pipe(
        leafPolicySchema,
        v.transform((loadBalancing) => ({ loadBalancing, outlierDetection: undefined })),
      ),
);

const serviceConfigSchema = strictObject({
  loadBalancingConfig: v.optional(
    v.pipe(v.array(v.unknown(), 'must be a list'), v.length(1, onePolicy), v.tuple([policySchema])),
  ),
  methodConfig: v.optional(v.array(methodConfigSchema)),
  healthCheckConfig: v.optional(strictObject({ serviceName: v.string('must be text') })),
  retryThrottling: v.optional(retryThrottlingSchema),
});

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function toMethodConfig(entry: v.InferOutput<typeof methodConfigSchema>): MethodConfig {
  const { timeout: timeoutMs, waitForReady, retryPolicy, hedgingPolicy } = entry;
  return { timeoutMs, waitForReady, retryPolicy, hedgingPolicy };
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
