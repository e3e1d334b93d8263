import type { Registry } from 'prom-client';
import { type Channel, type ChannelOptions, createChannel } from '#runtime/channel/channel.ts';
import type { ChannelEvent } from '#runtime/channel/events.ts';
import { createChannelMetrics } from '#runtime/channel/metrics.ts';
import type { KubernetesAccess } from '#runtime/channel/resolver/kubernetes.ts';
import { methodConfig, parseServiceConfig } from '#runtime/channel/service-config.ts';
import { ConfigError } from '#runtime/process/config.ts';
import type { Logger } from '#runtime/process/log.ts';
import type { Upstream } from './pipeline.ts';

/** The channel to the service that the gateway calls, watched by metrics and log. Throws a `ConfigError` if it cannot be. */
export function createUpstream(options: {
  /** The primary, and its backups in order. */
  readonly targets: readonly string[];
  /** The JSON of a gRPC service config. */
  readonly serviceConfig: unknown;
  /** For `kubernetes:///` targets. */
  readonly kubernetes: KubernetesAccess | undefined;
  readonly registry: Registry;
  readonly log: Logger;
}): { readonly channel: Channel; readonly upstream: Upstream } {
  const { targets } = options;
  const [target = ''] = targets;
  const serviceConfig = parseServiceConfig(options.serviceConfig);
  const metrics = createChannelMetrics(options.registry);
  const count = metrics.listener(target);
  const log = options.log.child({ target });
  const channel = openChannel({
    target: targets,
    serviceConfig,
    kubernetes: options.kubernetes,
    onEvent(event) {
      count(event);
      writeLog(log, event);
    },
  });
  metrics.watch(channel);
  return {
    channel,
    upstream: {
      start: (call, observer) => channel.start(call, observer),
      timeoutMs: (method) => methodConfig(serviceConfig, method).timeoutMs,
    },
  };
}

/** Targets were read with the configuration; whether this process can use them is known only here. */
function openChannel(options: ChannelOptions): Channel {
  try {
    return createChannel(options);
  } catch (error) {
    throw new ConfigError([`TARGET: ${(error as Error).message}`]);
  }
}

/** What an operator wants to know of the replicas; calls are for the metrics. */
function writeLog(log: Logger, event: ChannelEvent): void {
  switch (event.type) {
    case 'endpoints':
      return log.info({ endpoints: event.endpointIds }, 'endpoints changed');
    case 'resolver-error':
      return log.warn({ err: event.error }, 'target cannot be resolved: the last endpoints stay in use');
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
