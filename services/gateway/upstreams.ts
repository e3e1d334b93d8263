import type { Registry } from 'prom-client';
import type { Method } from '#runtime/call/call.ts';
import { type Channel, type ChannelSnapshot, createChannel } from '#runtime/channel/channel.ts';
import type { ChannelEvent } from '#runtime/channel/events.ts';
import { type AttemptCounters, type ChannelMetrics, createChannelMetrics } from '#runtime/channel/metrics.ts';
import type { KubernetesAccess } from '#runtime/channel/resolver/kubernetes.ts';
import { methodConfig, parseServiceConfig } from '#runtime/channel/service-config.ts';
import { ConfigError } from '#runtime/process/config.ts';
import type { Logger } from '#runtime/process/log.ts';
import type { ServingUpstream } from './config.ts';
import type { Upstream } from './pipeline.ts';
import { type AdmissionMetrics, createAdmissionMetrics } from './stages/admission-metrics.ts';
import { type Admission, type AdmissionSnapshot, createAdmission } from './stages/admit.ts';
import { defaultBounds } from './stages/concurrency-limit.ts';
import type { EventLoop } from './stages/event-loop.ts';

/** An overload is no time for a line for each call. */
const shedLogIntervalMs = 10_000;

/** The services that the gateway calls. */
export interface Upstreams {
  readonly names: readonly string[];
  /** The one that serves the method. */
  of(method: Method): Upstream;
  /** Starts to resolve and connect, ahead of the first call. Once. */
  connect(): void;
  /** Resolves once each has been READY, or that time has passed. */
  whenReady(timeoutMs: number): Promise<void>;
  /** What each channel knows and does now, by the upstream's name. */
  snapshot(): Record<string, ChannelSnapshot>;
  /** How many calls each may have and has, by its name. */
  admissions(): Record<string, AdmissionSnapshot>;
  /** The attempts of each since the start, by its name. */
  counters(): Record<string, AttemptCounters>;
  close(): Promise<void>;
}

/**
 * The channels to the upstreams, watched by metrics and log.
 *
 * @throws ConfigError that lists each upstream whose channel cannot be made here.
 */
export function createUpstreams(
  configs: readonly ServingUpstream[],
  options: {
    /** For `kubernetes:///` targets. */
    readonly kubernetes: KubernetesAccess | undefined;
    readonly eventLoop: EventLoop;
    readonly registry: Registry;
    readonly log: Logger;
  },
): Upstreams {
  const metrics = createChannelMetrics(options.registry);
  const admissionMetrics = createAdmissionMetrics(options.registry);
  const problems: string[] = [];
  const opened = configs.flatMap((config) => {
    const { name, targets } = config;
    const log = options.log.child({ upstream: name, target: targets[0] });
    try {
      return { ...config, log, ...openUpstream(config, { ...options, metrics, admissionMetrics, log }) };
    } catch (error) {
      // Targets were read with the configuration; whether this process can use them is known only here.
      problems.push(`${config.place}: ${(error as Error).message}`);
      return [];
    }
  });
  if (problems.length > 0) throw new ConfigError(problems);
  const byService = new Map(opened.flatMap(({ services, upstream }) => services.map((name) => [name, upstream])));

  return {
    names: opened.map(({ name }) => name),
    of(method) {
      const upstream = byService.get(serviceOf(method));
      if (upstream === undefined) throw new Error(`no upstream serves ${method.path}`);
      return upstream;
    },
    connect() {
      for (const { channel } of opened) channel.connect();
    },
    async whenReady(timeoutMs) {
      await Promise.all(
        opened.map(async ({ channel, targets, log }) => {
          const ready = await channel.whenReady(timeoutMs);
          if (!ready) log.warn({ targets }, 'no replica is ready yet: serving without');
        }),
      );
    },
    snapshot: () => Object.fromEntries(opened.map(({ name, channel }) => [name, channel.snapshot()])),
    admissions: () => Object.fromEntries(opened.map(({ name, admission }) => [name, admission.snapshot()])),
    counters: metrics.counters,
    async close() {
      await Promise.all(opened.map(({ channel }) => channel.close(0)));
    },
  };
}

/** The full name of a method's service. */
export function serviceOf({ path }: Method): string {
  return path.slice(1, path.lastIndexOf('/'));
}

function openUpstream(
  config: ServingUpstream,
  options: {
    readonly kubernetes: KubernetesAccess | undefined;
    readonly eventLoop: EventLoop;
    readonly metrics: ChannelMetrics;
    readonly admissionMetrics: AdmissionMetrics;
    readonly log: Logger;
  },
): { readonly channel: Channel; readonly admission: Admission; readonly upstream: Upstream } {
  const { name, targets, connectionsPerEndpoint, tls } = config;
  const { kubernetes, eventLoop, metrics, admissionMetrics, log } = options;
  const serviceConfig = parseServiceConfig(config.serviceConfig);
  const count = metrics.listener(targets[0] ?? '', name);
  const channel = createChannel({
    name,
    target: targets,
    serviceConfig,
    connectionsPerEndpoint,
    tls,
    kubernetes,
    onEvent(event) {
      count(event);
      writeLog(log, event);
    },
  });
  metrics.watch(channel, name);
  const countShed = admissionMetrics.onShed(name);
  let quietUntilMs = 0;
  const admission = createAdmission({
    bounds: config.concurrency ?? defaultBounds,
    eventLoop,
    idleCalls: () => channel.idleCalls,
    onShed(reason, priority) {
      countShed(reason, priority);
      const nowMs = performance.now();
      if (nowMs < quietUntilMs) return;
      quietUntilMs = nowMs + shedLogIntervalMs;
      log.warn({ reason, priority, admission: admission.snapshot() }, 'overload: calls are shed');
    },
  });
  admissionMetrics.watch(admission, name);
  return {
    channel,
    admission,
    upstream: {
      name,
      refusal: admission.refusal,
      admit: admission.admit,
      start: (call, observer) => channel.start(call, observer),
      timeoutMs: (method) => methodConfig(serviceConfig, method).timeoutMs,
    },
  };
}

/** What an operator wants to know of the replicas; calls are for the metrics. */
function writeLog(log: Logger, event: ChannelEvent): void {
  switch (event.type) {
    case 'endpoints':
      return log.info({ endpoints: event.endpointIds }, 'endpoints changed');
    case 'resolver-error':
      return log.warn({ err: event.error }, 'target cannot be resolved: the last endpoints stay in use');
    case 'tls-files':
      if (event.error === undefined) return log.info('TLS files changed: new connections use them');
      return log.warn({ err: event.error }, 'TLS files cannot be used: the last ones stay in use');
    case 'connection':
      return log.debug(
        { endpoint: event.endpointId, state: event.state, reason: event.lastError },
        'connection changed',
      );
    case 'health':
      return log.info({ endpoint: event.endpointId, health: event.health }, 'health changed');
    case 'ejected':
      return log.warn({ endpoint: event.endpointId, reason: event.reason }, 'endpoint ejected');
    case 'returned':
      return log.info({ endpoint: event.endpointId }, 'endpoint returned');
    case 'priority':
      if (event.priority === 0) return log.info({ active: event.target }, 'calls go to the primary target again');
      return log.warn({ priority: event.priority, active: event.target }, 'calls go to a backup target');
  }
}
