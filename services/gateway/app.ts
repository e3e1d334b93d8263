import type { KubernetesAccess } from '#runtime/channel/resolver/kubernetes.ts';
import { type Admin, createAdmin } from '#runtime/process/admin.ts';
import type { Program } from '#runtime/process/lifecycle.ts';
import type { Logger } from '#runtime/process/log.ts';
import { createMetrics } from '#runtime/process/metrics.ts';
import type { GatewayConfig } from './config.ts';
import { readDescriptors } from './descriptors.ts';
import { createErrorWriter } from './edge/errors.ts';
import { createEdgeServer } from './edge/server.ts';
import { createDocumentation } from './openapi/documentation.ts';
import { addPages } from './openapi/pages.ts';
import { createPipeline } from './pipeline.ts';
import { createHttpObserver } from './stages/observe.ts';
import { createUpstream } from './upstreams.ts';

/**
 * Builds the gateway. Nothing listens or connects before it is run. Its `start()` resolves, and `/readyz` turns true, once
 * the upstream was READY or `startupWaitMs` have passed: an outage of the service must not empty the gateway's own.
 *
 * @throws ConfigError if the descriptors cannot be served, or a target not be reached from here.
 */
export function createApp(
  config: GatewayConfig,
  log: Logger,
  tracing: { readonly enabled: boolean },
  kubernetes?: KubernetesAccess,
): { readonly program: Program; readonly admin: Admin } {
  const registry = createMetrics({ service: 'gateway' });
  const descriptors = readDescriptors(config.descriptors);
  const { channel, upstream } = createUpstream({ ...config, kubernetes, registry, log });
  const admin = createAdmin({
    host: config.host,
    port: config.adminPort,
    registry,
    routes: {
      'GET /introspection/channel': (_request, response) => {
        response.setHeader('content-type', 'application/json').end(`${JSON.stringify(channel.snapshot(), null, 2)}\n`);
      },
    },
    log,
  });
  const observer = createHttpObserver({ registry, log, tracing: tracing.enabled });
  const { routes, served, unserved } = createPipeline({
    descriptors,
    upstream,
    streamIdleTimeoutMs: config.streamIdleTimeoutMs,
    passTraceContext: !tracing.enabled,
  });
  const pages = config.docs === 'enabled' ? createDocumentation(descriptors, served) : [];
  const server = createEdgeServer({
    ...config,
    routes: addPages(routes, pages),
    errors: createErrorWriter(descriptors.types),
    observer,
    log,
  });

  return {
    admin,
    program: {
      async start() {
        channel.connect();
        const port = await server.listen();
        log.info({ port, adminPort: admin.port, targets: config.targets, routes: served.length }, 'serving');
        if (unserved.length > 0) {
          log.info({ methods: unserved.map(({ method }) => method.path) }, 'no routes for methods that take a stream');
        }
        const ready = await channel.whenReady(config.startupWaitMs);
        if (!ready) log.warn({ targets: config.targets }, 'no replica is ready yet: serving without');
      },
      drain: server.drain,
      async finish() {
        await server.close();
        await channel.close(0);
      },
      force: server.destroy,
      counters: () => ({ requests: observer.counters() }),
    },
  };
}
