import type { ServerResponse } from 'node:http';
import type { KubernetesAccess } from '#runtime/channel/resolver/kubernetes.ts';
import { type Admin, createAdmin } from '#runtime/process/admin.ts';
import { hashConfig } from '#runtime/process/config.ts';
import type { Program } from '#runtime/process/lifecycle.ts';
import type { Logger } from '#runtime/process/log.ts';
import { createMetrics } from '#runtime/process/metrics.ts';
import { createTraceStore, showTraces } from '#runtime/process/trace-store.ts';
import type { Tracing } from '#runtime/process/tracing.ts';
import type { ConfigFile } from './config-file.ts';
import { type GatewayConfig, settings, upstreamsOf } from './config.ts';
import { readDescriptors } from './descriptors.ts';
import { createErrorWriter } from './edge/errors.ts';
import { createCors } from './edge/cors.ts';
import { createMetadataRules, defaultPassedNames } from './edge/metadata.ts';
import { createEdgeServer } from './edge/server.ts';
import { createDocumentation } from './openapi/documentation.ts';
import { addPages } from './openapi/pages.ts';
import { createPipeline } from './pipeline.ts';
import { createPolicies } from './policies.ts';
import { createAuthentication } from './stages/authenticate.ts';
import { createCache } from './stages/cache.ts';
import { createEventLoop } from './stages/event-loop.ts';
import { createHttpObserver } from './stages/observe.ts';
import { createQuotas } from './stages/quota.ts';
import type { Route } from './transcoding/routes.ts';
import { createUpstreams, serviceOf } from './upstreams.ts';

export interface App {
  readonly program: Program;
  readonly admin: Admin;
  /** What is served, by which upstream. */
  readonly routes: readonly (Route & { readonly upstream: string })[];
}

/**
 * Builds the gateway. Nothing listens or connects before it is run. Its `start()` resolves, and `/readyz` turns true, once
 * each upstream was READY or `startupWaitMs` have passed: an outage of a service must not empty the gateway's own.
 *
 * @throws ConfigError if the descriptors cannot be served, or a target not be reached from here.
 */
export function createApp(config: GatewayConfig, log: Logger, tracing: Tracing, kubernetes?: KubernetesAccess): App {
  const registry = createMetrics({ service: 'gateway', configHash: hashConfig(settings, config), tracing });
  const traces = createTraceStore();
  const descriptors = readDescriptors(config.descriptors);
  const services = [...new Set(descriptors.methods.map(({ method }) => serviceOf(method)))];
  const eventLoop = createEventLoop();
  const upstreams = createUpstreams(upstreamsOf(config, services), { kubernetes, eventLoop, registry, log });
  const admin = createAdmin({
    host: config.host,
    port: config.adminPort,
    registry,
    routes: {
      'GET /introspection/traces': showTraces(traces, { service: 'gateway', podName: config.podName }),
      'GET /introspection/channel': (_request, response) => sendJson(response, upstreams.snapshot()),
      'GET /introspection/overload': (_request, response) => {
        const { overloaded, lastTurnMs } = eventLoop;
        sendJson(response, { eventLoop: { overloaded, lastTurnMs }, upstreams: upstreams.admissions() });
      },
    },
    log,
  });
  const observer = createHttpObserver({
    ...config,
    registry,
    log,
    tracing: tracing.enabled,
    upstreamOf: (method) => upstreams.of(method).name,
    traces,
  });
  const cache = createCache({ maxBytes: config.cacheLimitBytes, registry });
  const policyOf = createPolicies(
    config.configFile,
    descriptors.methods.map(({ method }) => method),
  );
  const authentication = createAuthentication({ providers: config.configFile?.auth ?? [], registry, log });
  const quotas = createQuotas({
    policies: config.configFile?.policies ?? [],
    redisUrl: config.quotaRedisUrl,
    registry,
    log,
  });
  const { routes, served } = createPipeline({
    ...config,
    descriptors,
    cache,
    upstreamOf: upstreams.of,
    policyOf,
    authenticate: authentication.guardOf,
    checkQuota: quotas.guardOf,
  });
  const pages =
    config.docs === 'enabled' ? createDocumentation(descriptors, served, policyOf, config.configFile?.metadata) : [];
  const server = createEdgeServer({
    ...config,
    routes: addPages(routes, pages),
    errors: createErrorWriter(descriptors.types),
    ...createEdgeRules(config.configFile, { passTraceContext: !tracing.enabled }),
    observer,
    eventLoop,
    registry,
    log,
  });

  return {
    admin,
    routes: served.map((route) => ({ ...route, upstream: upstreams.of(route.service.method).name })),
    program: {
      async start() {
        eventLoop.start();
        authentication.start();
        quotas.start();
        upstreams.connect();
        const port = await server.listen();
        log.info({ port, adminPort: admin.port, upstreams: upstreams.names, routes: served.length }, 'serving');
        await upstreams.whenReady(config.startupWaitMs);
      },
      drain: server.drain,
      async finish() {
        await server.close();
        cache.close();
        await upstreams.close();
        authentication.stop();
        quotas.stop();
        eventLoop.stop();
      },
      force: server.destroy,
      counters: () => ({ requests: observer.counters(), attempts: upstreams.counters() }),
    },
  };
}

/** What a file says of headers, or what holds without one. */
function createEdgeRules(file: ConfigFile | undefined, options: { readonly passTraceContext: boolean }) {
  const { metadata: passed = defaultPassedNames, auth = [], cors, policies = [] } = file ?? {};
  const quotaHeaders = policies.flatMap(({ quota }) => (quota?.key.startsWith('header:') ? [quota.key.slice(7)] : []));
  return {
    metadata: createMetadataRules({
      ...options,
      passed,
      claimKeys: auth.flatMap(({ claims }) => Object.values(claims)),
    }),
    cors: cors && createCors(cors, { request: [...passed.request, ...quotaHeaders], reply: passed.reply }),
  };
}

function sendJson(response: ServerResponse, value: unknown): void {
  response.setHeader('content-type', 'application/json').end(`${JSON.stringify(value, null, 2)}\n`);
}
