import { readFileSync } from 'node:fs';
import { type Admin, createAdmin } from '#runtime/process/admin.ts';
import { hashConfig } from '#runtime/process/config.ts';
import type { Program } from '#runtime/process/lifecycle.ts';
import type { Logger } from '#runtime/process/log.ts';
import { createMetrics } from '#runtime/process/metrics.ts';
import type { Tracing } from '#runtime/process/tracing.ts';
import { createServer } from '#runtime/server/server.ts';
import { type GreeterConfig, settings, tlsOf } from './config.ts';
import { createFaults } from './faults.ts';
import { greeter } from './greeter.ts';

const descriptors = new URL('../../proto/descriptors.binpb', import.meta.url);

/** Builds the greeter. Nothing listens before it is run. */
export function createApp(
  config: GreeterConfig,
  log: Logger,
  tracing?: Tracing,
): { readonly program: Program; readonly admin: Admin } {
  const registry = createMetrics({
    service: 'greeter',
    configHash: hashConfig(settings, config),
    ...(tracing && { tracing }),
  });
  const faults = config.faults === 'enabled' ? createFaults({ log, server: () => server }) : undefined;
  const admin = createAdmin({ host: config.host, port: config.adminPort, registry, routes: faults?.routes ?? {}, log });
  const server = createServer({
    ...config,
    tls: tlsOf(config),
    descriptors: readFileSync(descriptors),
    services: { 'helloworld.Greeter': faults?.wrap(greeter) ?? greeter },
    registry,
    log,
  });
  return {
    admin,
    program: {
      ...server,
      async start() {
        const port = await server.start();
        if (faults !== undefined) log.warn('faults can be injected through the admin port');
        log.info({ port, adminPort: admin.port }, 'serving');
      },
    },
  };
}
