import type { Caller, ConnectionState, Transport } from '../call/call.ts';
import { createAttempts } from './attempts.ts';
import { createBudget } from './budget.ts';
import { createEndpointSet } from './endpoints.ts';
import type { ChannelListener } from './events.ts';
import { createRoundRobinPicker } from './picker/round-robin.ts';
import { methodConfig, parseServiceConfig, type ServiceConfig } from './service-config.ts';
import { parseTarget } from './target.ts';
import { createGrpcJsTransport } from './transport/grpc-js.ts';

export interface ChannelOptions {
  /** `dns:///name:port`, `ipv4:address:port,…`, `ipv6:[address]:port,…` or `file:///path`. */
  readonly target: string;
  /** From `parseServiceConfig`. Defaults to `round_robin` with no retries and no health checks. */
  readonly serviceConfig?: ServiceConfig;
  /** Defaults to grpc-js in plaintext. */
  readonly transport?: Transport;
  /** Hears everything that happens in the channel; must not throw. */
  readonly onEvent?: ChannelListener;
}

/** The whole client side of one target: a `Caller` over its replicas. */
export interface Channel extends Caller {
  readonly target: string;
  /** READY when at least one replica can take a call. */
  readonly state: ConnectionState;
  /** Starts to resolve and connect, ahead of the first call. Once. */
  connect(): void;
  /** Returns the function that ends it. */
  onStateChange(listener: (state: ConnectionState) => void): () => void;
  /** Whether the channel was READY within that time. */
  whenReady(timeoutMs: number): Promise<boolean>;
  /** Takes no further call, gives those in flight that long, then cancels them with UNAVAILABLE. */
  close(graceMs: number): Promise<void>;
}

const defaultServiceConfig = parseServiceConfig({});

/** @throws Error if the target cannot be read. */
export function createChannel(options: ChannelOptions): Channel {
  const target = parseTarget(options.target);
  const serviceConfig = options.serviceConfig ?? defaultServiceConfig;
  const onEvent = options.onEvent ?? (() => {});
  const stateListeners = new Set<(state: ConnectionState) => void>();
  const resolver = target.createResolver();
  const endpoints = createEndpointSet({
    target: target.text,
    transport:
      options.transport ?? createGrpcJsTransport(target.authority === undefined ? {} : { authority: target.authority }),
    createPicker: createRoundRobinPicker,
    healthServiceName: serviceConfig.healthCheckServiceName,
    onEvent,
    onChange,
  });
  const attempts = createAttempts({
    pick: endpoints.pick,
    methodConfig: (method) => methodConfig(serviceConfig, method),
    budget: createBudget(serviceConfig.retryThrottling),
    onEvent,
  });
  let state: ConnectionState = 'IDLE';
  let repickQueued = false;

  function onChange(): void {
    const now = endpoints.state;
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
    target: target.text,
    get state() {
      return state;
    },
    start: attempts.start,
    connect() {
      resolver.start(endpoints.update, endpoints.fail);
    },
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
    async close(graceMs) {
      resolver.stop();
      await endpoints.close(graceMs);
    },
  };
}
