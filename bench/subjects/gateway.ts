import process from 'node:process';
import pino from 'pino';
import { createChannel } from '../../services/runtime/channel/channel.ts';
import { createChannelMetrics } from '../../services/runtime/channel/metrics.ts';
import { parseServiceConfig } from '../../services/runtime/channel/service-config.ts';
import { parseConfig } from '../../services/runtime/process/config.ts';
import { createMetrics } from '../../services/runtime/process/metrics.ts';
import { createTraceStore } from '../../services/runtime/process/trace-store.ts';
import { readConfigFile } from '../../services/gateway/config-file.ts';
import { settings } from '../../services/gateway/config.ts';
import { readDescriptors } from '../../services/gateway/descriptors.ts';
import { createErrorWriter } from '../../services/gateway/edge/errors.ts';
import { createMetadataRules, defaultPassedNames } from '../../services/gateway/edge/metadata.ts';
import { createEdgeServer } from '../../services/gateway/edge/server.ts';
import { createPipeline } from '../../services/gateway/pipeline.ts';
import { createPolicies } from '../../services/gateway/policies.ts';
import { createAdmission } from '../../services/gateway/stages/admit.ts';
import { createAuthentication } from '../../services/gateway/stages/authenticate.ts';
import { createCache } from '../../services/gateway/stages/cache.ts';
import { defaultBounds } from '../../services/gateway/stages/concurrency-limit.ts';
import { createEventLoop } from '../../services/gateway/stages/event-loop.ts';
import { createHttpObserver, type HttpObserver, type Observation } from '../../services/gateway/stages/observe.ts';
import { createQuotas } from '../../services/gateway/stages/quota.ts';

/*
 * Our gateway put together without what FEATURES does not name: `metrics`, `logs` (with them), `traces` (those kept in
 * memory, with logs), `limiter`. Caches and tokens come by GATEWAY_CONFIG. Without any it is bare: HTTP, transcoding, the
 * channel with round robin.
 */
const { env, stdout } = process;
const features = new Set((env['FEATURES'] ?? '').split(','));
const config = parseConfig(settings, { env, argv: [] });
const configFile = env['POLICIES'] === undefined ? undefined : readConfigFile(env['POLICIES']);

const registry = createMetrics({ service: 'gateway', configHash: '' });
const silent = pino({ level: 'silent' });
const log = features.has('logs') ? pino(stdout) : silent;
const descriptors = readDescriptors(config.descriptors);
const eventLoop = createEventLoop();

const channel = createChannel({
  target: config.targets ?? [],
  serviceConfig: parseServiceConfig(config.serviceConfig ?? {}),
  ...(features.has('metrics') && { onEvent: createChannelMetrics(registry).listener('', 'default') }),
});
const admission = createAdmission({ bounds: defaultBounds, eventLoop, idleCalls: () => channel.idleCalls });
const authentication = createAuthentication({ providers: configFile?.auth ?? [], registry, log: silent });
const quotas = createQuotas({ policies: [], redisUrl: undefined, registry, log: silent });

const blind: Observation = {
  context: { startAttempt: () => ({ metadata: [], end() {} }) },
  traceId: '',
  status: undefined,
  endpointId: '',
  streamForm: undefined,
  auth: undefined,
  cache: undefined,
};
const noObserver: HttpObserver = { observe: () => ({ ...blind }), counters: () => ({}) };
const observer = features.has('metrics')
  ? createHttpObserver({
      registry,
      log,
      tracing: false,
      ...(features.has('traces') && { traces: createTraceStore() }),
    })
  : noObserver;

const { routes } = createPipeline({
  ...config,
  descriptors,
  cache: createCache({ maxBytes: config.cacheLimitBytes, registry }),
  upstreamOf: () => ({
    name: 'default',
    start: (call, callObserver) => channel.start(call, callObserver),
    refusal: (priority) => (features.has('limiter') ? admission.refusal(priority) : undefined),
    admit: (next) => (features.has('limiter') ? admission.admit(next) : next),
    timeoutMs: () => undefined,
  }),
  policyOf: createPolicies(
    configFile,
    descriptors.methods.map(({ method }) => method),
  ),
  authenticate: authentication.guardOf,
  checkQuota: quotas.guardOf,
});
const server = createEdgeServer({
  ...config,
  routes,
  errors: createErrorWriter(descriptors.types),
  metadata: createMetadataRules({ passed: defaultPassedNames, claimKeys: [], passTraceContext: false }),
  cors: undefined,
  observer,
  eventLoop,
  registry,
  log: silent,
});

eventLoop.start();
authentication.start();
channel.connect();
await channel.whenReady(10_000);
stdout.write(`${JSON.stringify({ port: await server.listen() })}\n`);
process.once('SIGTERM', () => process.exit());
