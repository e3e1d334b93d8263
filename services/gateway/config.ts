import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { fileURLToPath } from 'node:url';
import { parseServiceConfig } from '#runtime/channel/service-config.ts';
import { parseTarget } from '#runtime/channel/target.ts';
import {
  type Config,
  ConfigError,
  durationMs,
  integer,
  oneOf,
  parsed,
  port,
  processSettings,
  type Settings,
  text,
} from '#runtime/process/config.ts';
import { readConfigFile, type UpstreamConfig } from './config-file.ts';

/**
 * The service config of an upstream that has none.
 *
 * Retries run where a repeated call does no harm: what may change something is repeated only if it never left. They stop
 * once half of the 200 tokens are gone, so that a full outage is not multiplied, and a replica that freezes under load
 * must not use them up: an attempt ends after 1 s of the 2 s of a call, so that one at another replica still fits in.
 * Outlier detection works with three replicas, the number that most services have; the standard's 5 would never judge them.
 */
export const defaultServiceConfig = {
  loadBalancingConfig: [
    {
      outlier_detection: {
        maxEjectionPercent: 50,
        failurePercentageEjection: { threshold: 85, minimumHosts: 3, requestVolume: 50 },
        childPolicy: [{ round_robin: {} }],
      },
    },
  ],
  healthCheckConfig: { serviceName: '' },
  retryThrottling: { maxTokens: 200, tokenRatio: 0.1 },
  methodConfig: [
    {
      name: [{}],
      retryPolicy: {
        maxAttempts: 3,
        initialBackoff: '0.05s',
        maxBackoff: '0.5s',
        backoffMultiplier: 2,
        retryableStatusCodes: ['UNAVAILABLE'],
        perAttemptRecvTimeout: '1s',
      },
    },
  ],
};

/** What the gateway can be told. */
export const settings = {
  port: { env: 'PORT', help: 'port of the public HTTP API (8080)', default: 8080, schema: port() },
  configFile: {
    env: 'GATEWAY_CONFIG',
    flag: 'config',
    help: 'YAML file of several upstreams, in place of TARGET and SERVICE_CONFIG: see docs/configuration.md (none)',
    default: undefined,
    schema: parsed(readConfigFile),
  },
  targets: {
    env: 'TARGET',
    help: 'the gRPC service: kubernetes:///service.namespace:port, dns:///name:port, ipv4:address:port,… or file:///endpoints.json; its backups follow after spaces (dns:///localhost:50051)',
    default: undefined,
    schema: parsed(readTargets),
  },
  descriptors: {
    env: 'DESCRIPTORS',
    help: 'its descriptor set, as `buf build -o` writes it (that of the greeter)',
    default: fileURLToPath(new URL('../../proto/descriptors.binpb', import.meta.url)),
    schema: text(),
  },
  serviceConfig: {
    env: 'SERVICE_CONFIG',
    help: 'gRPC service config: JSON, or @file (round_robin, health checks, outlier detection, idempotent methods in 3 attempts of up to 1s)',
    default: undefined,
    schema: parsed(readServiceConfig),
  },
  kubernetesApi: {
    env: 'KUBERNETES_API',
    help: 'the API server for kubernetes:/// targets, such as `kubectl proxy` at http://127.0.0.1:8001 (that of the cluster around)',
    default: undefined,
    schema: parsed(readHttpUrl),
  },
  startupWaitMs: {
    env: 'STARTUP_WAIT',
    help: 'how long /readyz waits for the first replica (10s)',
    default: 10_000,
    schema: durationMs({ min: 0, max: 300_000 }),
  },
  streamIdleTimeoutMs: {
    env: 'STREAM_IDLE_TIMEOUT',
    help: 'after how long a stream that stands still is ended (60s)',
    default: 60_000,
    schema: durationMs({ min: 100, max: 3_600_000 }),
  },
  streamHeartbeatMs: {
    env: 'STREAM_HEARTBEAT',
    help: 'how often a silent stream shows that it is alive: comments to event streams, pings to WebSockets (15s)',
    default: 15_000,
    schema: durationMs({ min: 100, max: 600_000 }),
  },
  maxStreams: {
    env: 'MAX_STREAMS',
    help: 'how many streams may be open at a time (10000)',
    default: 10_000,
    schema: integer({ min: 1, max: 1_000_000 }),
  },
  keepAliveTimeoutMs: {
    env: 'KEEP_ALIVE_TIMEOUT',
    help: 'how long HTTP connections stay open unused; longer than the load balancer in front keeps them (75s)',
    default: 75_000,
    schema: durationMs({ min: 1_000, max: 3_600_000 }),
  },
  requestTimeoutMs: {
    env: 'REQUEST_TIMEOUT',
    help: 'how long a request may take to come; its head at most 10s of it, a stream of requests has its idle timeout (30s)',
    default: 30_000,
    schema: durationMs({ min: 100, max: 600_000 }),
  },
  bodyLimitBytes: {
    env: 'BODY_LIMIT',
    help: 'the longest request body, and message of a stream of requests, in bytes (1048576)',
    default: 1_048_576,
    schema: integer({ min: 1, max: 67_108_864 }),
  },
  cacheLimitBytes: {
    env: 'CACHE_LIMIT',
    help: 'what the replies in the cache may take in memory, in bytes: see docs/caching.md (67108864)',
    default: 67_108_864,
    schema: integer({ min: 1_048_576, max: 17_179_869_184 }),
  },
  trustedProxies: {
    env: 'TRUSTED_PROXIES',
    help: 'whose X-Forwarded-For is believed: addresses and networks of load balancers, such as 10.0.0.0/8,fd00::/8 (none)',
    default: [],
    schema: parsed(readNetworks),
  },
  quotaRedisUrl: {
    env: 'QUOTA_REDIS_URL',
    help: 'the Redis that counts quotas for all gateways, redis://… or rediss://… (the memory of each)',
    default: undefined,
    secret: true,
    schema: parsed(readRedisUrl),
  },
  docs: {
    env: 'DOCS',
    help: 'whether /docs and /openapi.json tell the public what is served: enabled or disabled (enabled)',
    default: 'enabled',
    schema: oneOf(['enabled', 'disabled']),
  },
  ...processSettings,
  checkConfig: { flag: 'check-config', help: 'say whether the gateway would start so, and exit' },
  printRoutes: { flag: 'print-routes', help: 'list what it would serve, and exit' },
} satisfies Settings;

export type GatewayConfig = Config<typeof settings>;

/** An upstream with the services that it serves. */
export interface ServingUpstream extends UpstreamConfig {
  readonly services: readonly string[];
  /** Where it was configured, for messages. */
  readonly place: string;
}

/**
 * The upstreams that serve these services of the descriptors: those of the file, or the one that TARGET names.
 *
 * @throws ConfigError unless each service has exactly one upstream, and each upstream a service.
 */
export function upstreamsOf(config: GatewayConfig, services: readonly string[]): readonly ServingUpstream[] {
  const { configFile, targets = ['dns:///localhost:50051'], serviceConfig = defaultServiceConfig } = config;
  if (configFile?.upstreams === undefined) {
    return [{ name: 'default', targets, services, serviceConfig, connectionsPerEndpoint: 1, place: 'TARGET' }];
  }
  const { upstreams, placeOf } = configFile;
  const problems: string[] = [];
  const place = placeOf('upstreams');
  if (config.targets !== undefined) problems.push(`${place}: upstreams must not stand beside TARGET`);
  if (config.serviceConfig !== undefined) problems.push(`${place}: upstreams must not stand beside SERVICE_CONFIG`);

  const named = new Set(upstreams.flatMap((upstream) => upstream.services ?? []));
  const unnamed = services.filter((service) => !named.has(service));
  if (unnamed.length > 0 && upstreams.every((upstream) => upstream.services !== undefined)) {
    problems.push(...unnamed.map((service) => `${place}: upstreams must have one that serves ${service}`));
  }
  for (const [index, upstream] of upstreams.entries()) {
    for (const [serviceIndex, service] of upstream.services?.entries() ?? []) {
      if (services.includes(service)) continue;
      const at = placeOf('upstreams', index, 'services', serviceIndex);
      const path = `upstreams[${index}].services[${serviceIndex}]`;
      problems.push(`${at}: ${path} "${service}" must be a service of the descriptors: ${services.join(', ')}`);
    }
    if (upstream.services === undefined && unnamed.length === 0) {
      problems.push(`${placeOf('upstreams', index)}: upstreams[${index}] has no service: the others name all`);
    }
  }
  if (problems.length > 0) throw new ConfigError(problems);
  return upstreams.map((upstream, index) => ({
    ...upstream,
    services: upstream.services ?? unnamed,
    serviceConfig: upstream.serviceConfig ?? defaultServiceConfig,
    place: placeOf('upstreams', index),
  }));
}

/** The primary and its backups, in order. */
function readTargets(source: string): readonly string[] {
  const targets = source.trim().split(/\s+/);
  const problems = targets.flatMap((target, index) => {
    if (targets.indexOf(target) < index) return [`target "${target}" is named twice`];
    try {
      parseTarget(target);
      return [];
    } catch (error) {
      return [(error as Error).message];
    }
  });
  if (problems.length > 0) throw new ConfigError(problems);
  return targets;
}

/** Kept as JSON, as it can be logged; the upstream reads it again. */
function readServiceConfig(source: string): object {
  const json = JSON.parse(source.startsWith('@') ? readFileSync(source.slice(1), 'utf8') : source) as object;
  parseServiceConfig(json);
  return json;
}

function readHttpUrl(url: string): string {
  if (!/^https?:$/.test(URL.parse(url)?.protocol ?? '')) throw new Error('must be an http:// or https:// URL');
  return url;
}

function readNetworks(text: string): readonly string[] {
  const networks = text.split(/[\s,]+/).filter(Boolean);
  const problems = networks.flatMap((network) => {
    const [address = '', bits, ...rest] = network.split('/');
    const maxBits = { 4: 32, 6: 128 }[isIP(address)] ?? -1;
    const isNetwork = bits === undefined ? maxBits > 0 : /^\d{1,3}$/.test(bits) && Number(bits) <= maxBits;
    return isNetwork && rest.length === 0 ? [] : [`"${network}" is not an address or a network such as 10.0.0.0/8`];
  });
  if (problems.length > 0) throw new ConfigError(problems);
  return networks;
}

function readRedisUrl(url: string): string {
  if (!/^rediss?:$/.test(URL.parse(url)?.protocol ?? '')) throw new Error('must be a redis:// or rediss:// URL');
  return url;
}
