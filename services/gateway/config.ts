import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseServiceConfig } from '#runtime/channel/service-config.ts';
import { parseTarget } from '#runtime/channel/target.ts';
import {
  type Config,
  durationMs,
  integer,
  parsed,
  port,
  processSettings,
  type Settings,
  text,
} from '#runtime/process/config.ts';

/** Retries run where a repeated call does no harm: what may change something is repeated only if it never left. */
const defaultServiceConfig = {
  loadBalancingConfig: [{ round_robin: {} }],
  healthCheckConfig: { serviceName: '' },
  methodConfig: [
    {
      name: [{}],
      retryPolicy: {
        maxAttempts: 3,
        initialBackoff: '0.05s',
        maxBackoff: '0.5s',
        backoffMultiplier: 2,
        retryableStatusCodes: ['UNAVAILABLE'],
      },
    },
  ],
};

/** What the gateway can be told. */
export const settings = {
  port: { env: 'PORT', help: 'port of the public HTTP API (8080)', default: 8080, schema: port() },
  target: {
    env: 'TARGET',
    help: 'the gRPC service: dns:///name:port, ipv4:address:port,… or file:///endpoints.json (dns:///localhost:50051)',
    default: 'dns:///localhost:50051',
    schema: parsed((target) => parseTarget(target).text),
  },
  descriptors: {
    env: 'DESCRIPTORS',
    help: 'its descriptor set, as `buf build -o` writes it (that of the greeter)',
    default: fileURLToPath(new URL('../../proto/descriptors.binpb', import.meta.url)),
    schema: text(),
  },
  serviceConfig: {
    env: 'SERVICE_CONFIG',
    help: 'gRPC service config: JSON, or @file (round_robin, health checks, retries of idempotent methods)',
    default: defaultServiceConfig,
    schema: parsed(readServiceConfig),
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
  keepAliveTimeoutMs: {
    env: 'KEEP_ALIVE_TIMEOUT',
    help: 'how long HTTP connections stay open unused; longer than the load balancer in front keeps them (75s)',
    default: 75_000,
    schema: durationMs({ min: 1_000, max: 3_600_000 }),
  },
  bodyLimitBytes: {
    env: 'BODY_LIMIT',
    help: 'the longest request body, in bytes (1048576)',
    default: 1_048_576,
    schema: integer({ min: 1, max: 67_108_864 }),
  },
  ...processSettings,
} satisfies Settings;

export type GatewayConfig = Config<typeof settings>;

/** Kept as JSON, as it can be logged; the upstream reads it again. */
function readServiceConfig(source: string): object {
  const json = JSON.parse(source.startsWith('@') ? readFileSync(source.slice(1), 'utf8') : source) as object;
  parseServiceConfig(json);
  return json;
}
