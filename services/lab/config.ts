import { integer, port, processSettings, type Settings } from '#runtime/process/config.ts';

export const maxReplicas = 26;

/** What `make run` can be told. Any other variable reaches the programs as it is: `SERVICE_CONFIG`, `OTEL_*`. */
export const labSettings = {
  replicas: {
    env: 'REPLICAS',
    help: `how many greeters to start, 1 to ${maxReplicas} (3)`,
    default: 3,
    schema: integer({ min: 1, max: maxReplicas }),
  },
  port: { env: 'PORT', help: 'port of the gateway (8080)', default: 8080, schema: port() },
  greeterPort: {
    env: 'GREETER_PORT',
    help: 'port of the first greeter; the next ones follow (50051)',
    default: 50_051,
    schema: port(),
  },
  adminPort: {
    ...processSettings.adminPort,
    help: 'admin port of the gateway; those of the greeters follow (9090)',
  },
  logLevel: processSettings.logLevel,
  logFormat: processSettings.logFormat,
  drainDelayMs: {
    ...processSettings.drainDelayMs,
    help: 'how long a program serves on after SIGTERM (200ms)',
    default: 200,
  },
  drainGraceMs: processSettings.drainGraceMs,
} satisfies Settings;
