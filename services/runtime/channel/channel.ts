import type { Caller, Connection, ConnectionState, Transport } from '../call/call.ts';
import type { TlsFiles } from '../process/tls-files.ts';
import { createAttempts } from './attempts.ts';
import { createBudget } from './budget.ts';
import { createConnectionGroups } from './connection-group.ts';
import { createEndpointSet, type EndpointSetSnapshot } from './endpoints.ts';
import type { ChannelEvent, ChannelListener } from './events.ts';
import { createLeastRequestPicker } from './picker/least-request.ts';
import { createRoundRobinPicker } from './picker/round-robin.ts';
import { createPriority } from './priority.ts';
import type { KubernetesAccess } from './resolver/kubernetes.ts';
import { type LoadBalancingConfig, methodConfig, parseServiceConfig, type ServiceConfig } from './service-config.ts';
import { parseTarget } from './target.ts';
import { createGrpcJsTransport } from './transport/grpc-js.ts';
import { createTlsCredentials } from './transport/tls.ts';

export interface ChannelOptions {
  /** What the service is called in spans. Defaults to nothing. */
  readonly name?: string;
  /**
   * `dns:///name:port`, `kubernetes:///service.namespace:port`, `ipv4:address:port,…`, `ipv6:[address]:port,…` or
   * `file:///path`. Of several, the first that is READY takes the calls; the others are its backups, in order.
   */
  readonly target: string | readonly string[];
  /** For `kubernetes:///` targets, such as `inClusterAccess(process.env)`. Defaults to none. */
  readonly kubernetes?: KubernetesAccess | undefined;
  /** From `parseServiceConfig`. Defaults to `round_robin` with no retries and no health checks. */
  readonly serviceConfig?: ServiceConfig;
  /** Connections to each replica. Defaults to 1. */
  readonly connectionsPerEndpoint?: number;
  /** How long a target stays READY before calls leave its backup for it. Defaults to 10 s. */
  readonly failbackAfterMs?: number;
  /** Defaults to plaintext. */
  readonly tls?: ChannelTls | undefined;
  /** Defaults to grpc-js. */
  readonly transport?: Transport;
  /** Hears everything that happens in the channel; must not throw. */
  readonly onEvent?: ChannelListener;
}

export interface ChannelTls extends TlsFiles {
  /** The name in the servers' certificates, and the `:authority` of calls. Defaults to the target's name, or the address. */
  readonly serverName?: string | undefined;
}

/** The whole client side of one service: a `Caller` over its replicas. */
export interface Channel extends Caller {
  /** The primary target. */
  readonly target: string;
  /** READY when at least one replica can take a call. */
  readonly state: ConnectionState;
  /** Calls of which no attempt is under way: they wait for an endpoint to become ready, or for their next attempt. */
  readonly idleCalls: number;
  /** Starts to resolve and connect, ahead of the first call. Once. */
  connect(): void;
  /** Returns the function that ends it. */
  onStateChange(listener: (state: ConnectionState) => void): () => void;
  /** Whether the channel was READY within that time. */
  whenReady(timeoutMs: number): Promise<boolean>;
  /** What the channel knows and does now, for people to read. */
  snapshot(): ChannelSnapshot;
  /** Takes no further call, gives those in flight that long, then cancels them with UNAVAILABLE. */
  close(graceMs: number): Promise<void>;
}

export interface ChannelSnapshot {
  readonly state: ConnectionState;
  readonly policy: LoadBalancingConfig['policy'];
  /** Index of the target that takes the calls. */
  readonly activePriority: number;
  readonly targets: readonly (EndpointSetSnapshot & { readonly target: string })[];
  /** Calls that wait for an endpoint to become ready. */
  readonly waitingCalls: number;
  /** `null` where retries have no limit. */
  readonly retryBudget: { readonly tokens: number; readonly maxTokens: number; readonly allows: boolean } | null;
}

const defaultServiceConfig = parseServiceConfig({});

/** @throws Error if a target cannot be read, or is in a cluster that cannot be reached from here, or a TLS file is wrong. */
export function createChannel(options: ChannelOptions): Channel {
  const { onEvent = () => {}, serviceConfig = defaultServiceConfig, tls } = options;
  const stateListeners = new Set<(state: ConnectionState) => void>();
  const budget = createBudget(serviceConfig.retryThrottling);
  const credentials = tls && createTlsCredentials(tls, (error) => onEvent({ type: 'tls-files', error }));
  const targets = [options.target].flat().map((text) => {
    const target = parseTarget(text, options.kubernetes);
    const authority = tls?.serverName ?? target.authority;
    const resolver = target.createResolver();
    const endpoints = createEndpointSet({
      target: text,
      transport: createConnectionGroups(
        options.transport ??
          createGrpcJsTransport({ ...(credentials && { credentials }), ...(authority && { authority }) }),
        options.connectionsPerEndpoint ?? 1,
      ),
      createPicker: (connections) => createPicker(serviceConfig.loadBalancing, connections),
      healthServiceName: serviceConfig.healthCheckServiceName,
      outlierDetection: serviceConfig.outlierDetection,
      onEvent,
      onChange,
    });
    return {
      target: text,
      endpoints,
      connect: () => resolver.start(endpoints.update, endpoints.fail),
      stop: () => resolver.stop(),
    };
  });
  const [primary] = targets;
  if (primary === undefined) throw new Error('a channel needs at least one target');
  const priority = createPriority({
    targets,
    failbackAfterMs: options.failbackAfterMs,
    onSwitch: (index) => onEvent({ type: 'priority', priority: index, target: targets[index]?.target ?? '' }),
  });
  const attempts = createAttempts({
    pick: priority.pick,
    active: () => ({
      upstream: options.name ?? '',
      target: targets[priority.active]?.target ?? '',
      priority: priority.active,
    }),
    methodConfig: (method) => methodConfig(serviceConfig, method),
    budget,
    onEvent(event: ChannelEvent) {
      for (const { endpoints } of targets) endpoints.observe(event);
      onEvent(event);
    },
  });
  let state: ConnectionState = 'IDLE';
  let repickQueued = false;
  let closed = false;

  function onChange(): void {
    priority.update();
    const now = closed ? 'SHUTDOWN' : priority.state;
    if (now !== state) {
      state = now;
      for (const listener of stateListeners) listener(now);
    }
    if (repickQueued) return;
    repickQueued = true;
    // Not from within the transport, whose change of state this may be.
    queueMicrotask(() => {
      repickQueued = false;
      attempts.repick();
    });
  }

  return {
    target: primary.target,
    get state() {
      return state;
    },
    get idleCalls() {
      return attempts.waiting + attempts.pausing;
    },
    start: attempts.start,
    connect: () => priority.connect(),
    onStateChange(listener) {
      stateListeners.add(listener);
      return () => stateListeners.delete(listener);
    },
    whenReady(timeoutMs) {
      if (state === 'READY') return Promise.resolve(true);
      return new Promise((resolve) => {
        const settle = (ready: boolean) => {
          clearTimeout(timer);
          stateListeners.delete(listener);
          resolve(ready);
        };
        const listener = (now: ConnectionState) => {
          if (now === 'READY') settle(true);
        };
        const timer = setTimeout(() => settle(false), timeoutMs);
        stateListeners.add(listener);
      });
    },
    snapshot() {
      const { retryThrottling } = serviceConfig;
      return {
        state,
        policy: serviceConfig.loadBalancing.policy,
        activePriority: priority.active,
        targets: targets.map(({ target, endpoints }) => ({ target, ...endpoints.snapshot() })),
        waitingCalls: attempts.waiting,
        retryBudget:
          retryThrottling === undefined
            ? null
            : { tokens: budget.tokens, maxTokens: retryThrottling.maxTokens, allows: budget.allows },
      };
    },
    async close(graceMs) {
      closed = true;
      priority.stop();
      await Promise.all(
        targets.map(({ endpoints, stop }) => {
          stop();
          return endpoints.close(graceMs);
        }),
      );
    },
  };
}

function createPicker(config: LoadBalancingConfig, connections: readonly Connection[]) {
  switch (config.policy) {
    case 'round_robin':
      return createRoundRobinPicker(connections);
    case 'least_request_experimental':
      return createLeastRequestPicker(connections, config.choiceCount);
  }
}
