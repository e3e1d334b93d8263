import { type Config, durationMs, oneOf, port, processSettings, type Settings } from '#runtime/process/config.ts';

const maxAge = durationMs({ min: 1_000, max: 86_400_000 });

/** What the greeter can be told. */
export const settings = {
  port: { env: 'PORT', help: 'port of the gRPC server (50051)', default: 50_051, schema: port() },
  maxConnectionAgeMs: {
    env: 'MAX_CONNECTION_AGE',
    help: 'age at which connections end, so that clients find new replicas (5m)',
    default: 300_000,
    schema: maxAge,
  },
  maxConnectionAgeGraceMs: {
    env: 'MAX_CONNECTION_AGE_GRACE',
    help: 'how long the calls of such a connection may still take (5m)',
    default: 300_000,
    schema: maxAge,
  },
  faults: {
    env: 'FAULTS',
    help: 'enabled lets tests inject faults through the admin port (disabled)',
    default: 'disabled',
    schema: oneOf(['disabled', 'enabled']),
  },
  ...processSettings,
} satisfies Settings;

export type GreeterConfig = Config<typeof settings>;
