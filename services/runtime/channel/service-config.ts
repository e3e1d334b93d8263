import * as v from 'valibot';
import type { Method } from '../call/call.ts';
import { Code, type CodeName } from '../call/status.ts';
import { ConfigError, describeIssue, pathInside, strictObject } from '../process/config.ts';

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
  if (!parsed.success) {
    throw new ConfigError(parsed.issues.map((issue) => describeIssue(issue, json, 'the service config')));
  }
  const { loadBalancingConfig, healthCheckConfig, retryThrottling, methodConfig: entries = [] } = parsed.output;
  return {
    loadBalancing: loadBalancingConfig?.[0].loadBalancing ?? roundRobin,
    outlierDetection: loadBalancingConfig?.[0].outlierDetection,
    healthCheckServiceName: healthCheckConfig?.serviceName,
    retryThrottling,
    methods: new Map(
      entries.flatMap((entry) => entry.name.map((name) => [keyOf(name), toMethodConfig(entry)] as const)),
    ),
  };
}

/** google.protobuf.Duration in JSON: seconds with up to nine digits after the point, and an `s`. */
const duration = v.pipe(
  v.string('must be a duration such as "0.5s"'),
  v.regex(/^\d{1,12}(\.\d{1,9})?s$/, 'must be a duration such as "0.5s"'),
  v.transform((text) => Number(text.slice(0, -1)) * 1_000),
);

const positiveDuration = v.pipe(
  duration,
  v.check((ms) => ms > 0, 'must be greater than 0s'),
);

const codesByNumber = new Set<number>(Object.values(Code));

const statusCode = v.pipe(
  v.union([v.picklist(Object.keys(Code) as CodeName[]), v.number()], 'must be a status code such as "UNAVAILABLE"'),
  v.transform((code) => (typeof code === 'number' ? code : Code[code])),
  v.check((code) => codesByNumber.has(code) && code !== Code.OK, 'must be a status code other than OK'),
);

const text = v.string('must be text');
const number = v.number('must be a number');
const integer = v.pipe(number, v.integer('must be an integer'));

const between = (min: number, max: number) =>
  v.pipe(integer, v.minValue(min, `must be >= ${min}`), v.maxValue(max, `must be <= ${max}`));

const list = <const S extends v.GenericSchema>(item: S) => v.array(item, 'must be a list');

const toSet = v.transform((codes: number[]): ReadonlySet<number> => new Set(codes));

const attemptsDescription = 'How many attempts a call has, the first one included.';

const retryPolicySchema = v.pipe(
  strictObject({
    maxAttempts: v.pipe(between(2, 5), v.description(attemptsDescription)),
    initialBackoff: v.pipe(positiveDuration, v.description('The longest wait before the first retry.')),
    maxBackoff: v.pipe(positiveDuration, v.description('The longest wait before any retry.')),
    backoffMultiplier: v.pipe(
      number,
      v.gtValue(0, 'must be > 0'),
      v.description('What the wait is multiplied by after each retry.'),
    ),
    retryableStatusCodes: v.pipe(
      list(statusCode),
      v.minLength(1, 'must name at least one code'),
      toSet,
      v.description('The status codes after which a call is tried again.'),
    ),
    perAttemptRecvTimeout: v.optional(
      v.pipe(positiveDuration, v.description('The deadline of each attempt, counted from its start.')),
    ),
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
  v.description('Attempts one after the other, each at another replica.'),
);

const hedgingPolicySchema = v.pipe(
  strictObject({
    maxAttempts: v.pipe(between(2, 5), v.description(attemptsDescription)),
    hedgingDelay: v.optional(
      v.pipe(duration, v.description('How long an attempt may stay unanswered before the next begins.')),
      '0s',
    ),
    nonFatalStatusCodes: v.optional(
      v.pipe(list(statusCode), toSet, v.description('An attempt that fails so does not end the call.')),
      [],
    ),
  }),
  v.transform(
    (policy): HedgingPolicy => ({
      maxAttempts: policy.maxAttempts,
      hedgingDelayMs: policy.hedgingDelay,
      nonFatalCodes: policy.nonFatalStatusCodes,
    }),
  ),
  v.description(
    'Attempts beside each other, of which the first that answers wins; for methods that may run twice. Not beside a retryPolicy.',
  ),
);

const retryThrottlingSchema = v.pipe(
  strictObject({
    maxTokens: v.pipe(
      number,
      v.gtValue(0, 'must be > 0'),
      v.maxValue(1_000, 'must be <= 1000'),
      v.description('Further attempts are made while more than half of them are left.'),
    ),
    tokenRatio: v.pipe(
      number,
      v.gtValue(0, 'must be > 0'),
      v.description('What a success gives back; a failure takes 1.'),
    ),
  }),
  v.description('The budget that retries and hedges share.'),
);

const nameSchema = v.pipe(
  strictObject({
    service: v.optional(v.pipe(text, v.description('Full name, such as helloworld.Greeter; all when left out.')), ''),
    method: v.optional(v.pipe(text, v.description('Name, such as SayHello; all of the service when left out.')), ''),
  }),
  v.check(({ service, method }) => service !== '' || method === '', 'must name a service where it names a method'),
);

const methodConfigSchema = v.pipe(
  strictObject({
    name: v.pipe(
      list(nameSchema),
      v.minLength(1, 'must have at least one entry; [{}] is the default'),
      v.description('What the entry holds for. The most specific name wins; {} names every method.'),
    ),
    timeout: v.optional(v.pipe(positiveDuration, v.description('The deadline of calls that bring none.'))),
    waitForReady: v.optional(
      v.pipe(
        v.boolean('must be true or false'),
        v.description('Whether calls wait for a replica until their deadline instead of failing at once.'),
      ),
      false,
    ),
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
const enforcementDescription = 'Of endpoints that would be ejected, how many percent are.';
const minimumHostsDescription = 'How many endpoints must have had enough calls before any is judged.';
const requestVolumeDescription = 'Calls that an endpoint must have had in an interval to be judged.';

const outlierDetectionEntries = {
  interval: v.optional(v.pipe(positiveDuration, v.description('How often the endpoints are compared.')), '10s'),
  baseEjectionTime: v.optional(
    v.pipe(positiveDuration, v.description('An ejection lasts this long times how often the endpoint was ejected.')),
    '30s',
  ),
  maxEjectionTime: v.optional(v.pipe(positiveDuration, v.description('The longest that an ejection lasts.')), '300s'),
  maxEjectionPercent: v.optional(
    v.pipe(percentage, v.description('Of all endpoints; one may always be ejected, the last never.')),
    10,
  ),
  successRateEjection: v.optional(
    v.pipe(
      strictObject({
        stdevFactor: v.optional(
          v.pipe(
            between(0, 1_000_000),
            v.description('How far below the mean an outlier is, in thousandths of a standard deviation.'),
          ),
          1_900,
        ),
        enforcementPercentage: v.optional(v.pipe(percentage, v.description(enforcementDescription)), 100),
        minimumHosts: v.optional(v.pipe(between(2, 1_000), v.description(minimumHostsDescription)), 5),
        requestVolume: v.optional(v.pipe(between(1, 1_000_000), v.description(requestVolumeDescription)), 100),
      }),
      v.description('Ejects endpoints that succeed far less often than the mean.'),
    ),
  ),
  failurePercentageEjection: v.optional(
    v.pipe(
      strictObject({
        threshold: v.optional(
          v.pipe(percentage, v.description('More failures than this, in percent, eject an endpoint.')),
          85,
        ),
        enforcementPercentage: v.optional(v.pipe(percentage, v.description(enforcementDescription)), 100),
        minimumHosts: v.optional(v.pipe(between(2, 1_000), v.description(minimumHostsDescription)), 5),
        requestVolume: v.optional(v.pipe(between(1, 1_000_000), v.description(requestVolumeDescription)), 50),
      }),
      v.description('Ejects endpoints by their share of failures.'),
    ),
  ),
};

const roundRobin: LoadBalancingConfig = { policy: 'round_robin' };

const onePolicy = 'must name exactly one policy';

/** A `loadBalancingConfig`: a list of one. */
const onlyOne = <const S extends v.GenericSchema>(policy: S) =>
  v.pipe(list(v.unknown()), v.length(1, onePolicy), v.strictTuple([policy]));

const leafPolicies = {
  round_robin: v.optional(v.pipe(strictObject({}), v.description('Each endpoint in turn.'))),
  least_request_experimental: v.optional(
    v.pipe(
      strictObject({
        choiceCount: v.optional(v.pipe(between(2, 10), v.description('How many endpoints are drawn.')), 2),
      }),
      v.description('The endpoint with the fewest calls in flight of some that are drawn at random (gRFC A48).'),
    ),
  ),
};

function toLoadBalancing(policies: { least_request_experimental?: { choiceCount: number } | undefined }) {
  const { least_request_experimental: leastRequest } = policies;
  if (leastRequest === undefined) return roundRobin;
  return { policy: 'least_request_experimental', choiceCount: leastRequest.choiceCount } as const;
}

const outlierDetectionSchema = v.pipe(
  strictObject({
    ...outlierDetectionEntries,
    childPolicy: v.optional(
      v.pipe(
        onlyOne(v.pipe(strictObject(leafPolicies), v.entries(1, onePolicy), v.transform(toLoadBalancing))),
        v.description('How calls are shared out among the endpoints that are not ejected.'),
      ),
    ),
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
  v.description('Takes endpoints out of the pick that fail more than the others (gRFC A50).'),
);

const policySchema = v.pipe(
  strictObject({ ...leafPolicies, outlier_detection: v.optional(outlierDetectionSchema) }),
  v.entries(1, onePolicy),
  v.transform(
    ({ outlier_detection: detection, ...policies }) =>
      detection ?? { loadBalancing: toLoadBalancing(policies), outlierDetection: undefined },
  ),
);

/** What `parseServiceConfig` reads, for a configuration that a service config is part of. */
export const serviceConfigSchema = strictObject({
  loadBalancingConfig: v.optional(
    v.pipe(onlyOne(policySchema), v.description('How calls are shared out among the endpoints: one policy.')),
  ),
  methodConfig: v.optional(
    v.pipe(
      list(methodConfigSchema),
      v.rawCheck(({ dataset, addIssue }) => {
        if (!dataset.typed) return;
        const keys = new Set<string>();
        for (const [index, { name: names }] of dataset.value.entries()) {
          for (const [nameIndex, name] of names.entries()) {
            const path = pathInside(dataset.value, index, 'name', nameIndex);
            if (keys.has(keyOf(name))) addIssue({ message: 'must not be named twice', path });
            keys.add(keyOf(name));
          }
        }
      }),
      v.description('Timeouts, retries and hedging, by method.'),
    ),
  ),
  healthCheckConfig: v.optional(
    v.pipe(
      strictObject({
        serviceName: v.pipe(text, v.description('The service that is asked for; "" is the server as a whole.')),
      }),
      v.description('Watches the health service of each endpoint (gRFC A17).'),
    ),
  ),
  retryThrottling: v.optional(retryThrottlingSchema),
});

function keyOf({ service, method }: { readonly service: string; readonly method: string }): string {
  return `${service}/${method}`;
}

function toMethodConfig(entry: v.InferOutput<typeof methodConfigSchema>): MethodConfig {
  const { timeout: timeoutMs, waitForReady, retryPolicy, hedgingPolicy } = entry;
  return { timeoutMs, waitForReady, retryPolicy, hedgingPolicy };
}
