import type { CallStatus, Connection, ConnectionState, Endpoint, Picker, Transport } from '../call/call.ts';
import { Code, localStatus } from '../call/status.ts';
import type { ChannelEvent, ChannelListener, EjectionReason, Health } from './events.ts';
import { answers, HealthWatch } from './health.ts';
import { createOutlierDetector } from './outlier.ts';
import type { OutlierDetectionConfig } from './service-config.ts';

/** How long an ejected endpoint may take to answer the trial that brings it back. */
const trialTimeoutMs = 1_000;

/** Makes the picker over the connections that serve, at least one, anew whenever they change. */
export type PickerFactory = (connections: readonly Connection[]) => Picker;

export interface EndpointSetOptions {
  /** Names the set in messages. */
  readonly target: string;
  readonly transport: Transport;
  readonly createPicker: PickerFactory;
  /** `undefined`: a connection serves as soon as it is READY. */
  readonly healthServiceName: string | undefined;
  readonly outlierDetection: OutlierDetectionConfig | undefined;
  readonly onEvent: ChannelListener;
  /** Runs after each change of what can be picked; never inside a call of this set's methods by a call's attempt. */
  readonly onChange: () => void;
}

/** The replicas of a target, a connection to each, and the picker over those that serve. */
export interface EndpointSet {
  readonly pick: Picker;
  readonly state: ConnectionState;
  /** Takes what the resolver found: who stays keeps its connection, who left finishes its calls. */
  update(endpoints: readonly Endpoint[]): void;
  /** The resolver failed. It matters only while it has never answered. */
  fail(error: Error): void;
  /** Hears of every attempt of the channel: what comes of it decides who stays in the pick. */
  observe(event: ChannelEvent): void;
  snapshot(): EndpointSetSnapshot;
  close(graceMs: number): Promise<void>;
}

export interface EndpointSetSnapshot {
  readonly state: ConnectionState;
  /** Since the resolver last gave the list; `undefined` until it did. */
  readonly resolvedMsAgo: number | undefined;
  /** The resolver's last error, if it has given no list since. */
  readonly resolverError: string | undefined;
  readonly endpoints: readonly EndpointSnapshot[];
}

export interface EndpointSnapshot {
  readonly id: string;
  readonly addresses: readonly string[];
  /** False where who keeps the list calls none ready: only its own health service counts. */
  readonly ready: boolean;
  readonly state: ConnectionState;
  readonly lastError: string;
  readonly health: Health;
  readonly ejected: EjectionReason | undefined;
  /** Calls that have not ended, without the health Watch. */
  readonly inFlight: number;
  /** Attempts sent there, and those of them that failed, since it became an endpoint. */
  readonly picks: number;
  readonly failures: number;
}

interface Subchannel {
  endpoint: Endpoint;
  readonly connection: Connection;
  health: Health;
  watch: HealthWatch | undefined;
  /** Has been in TRANSIENT_FAILURE since it was last READY: calls do not wait for it. */
  failed: boolean;
  picks: number;
  failures: number;
}

export function createEndpointSet(options: EndpointSetOptions): EndpointSet {
  const { target, transport, createPicker, healthServiceName, outlierDetection, onEvent, onChange } = options;
  const subchannels = new Map<string, Subchannel>();
  const leaving = new Set<Connection>();
  let resolved = false;
  let resolvedAtMs = 0;
  let resolverError: Error | undefined;
  let closed = false;
  let onLastGone: (() => void) | undefined;
  let serving: readonly Connection[] = [];
  let picker: Picker = pickNone;
  const outliers = createOutlierDetector({
    config: outlierDetection,
    serving: () => [...subchannels.values()].filter(isServing).map(({ endpoint }) => endpoint.id),
    trial: async (endpointId) => {
      const subchannel = subchannels.get(endpointId);
      return subchannel !== undefined && answers(subchannel.connection, trialTimeoutMs);
    },
    onEjected(endpointId, reason) {
      onEvent({ type: 'ejected', endpointId, reason });
      rebuild();
    },
    onReturned(endpointId) {
      onEvent({ type: 'returned', endpointId });
      rebuild();
    },
  });

  function add(endpoint: Endpoint): void {
    const connection = transport(endpoint, (state) => {
      onEvent({ type: 'connection', endpointId: endpoint.id, state, lastError: connection.lastError });
      if (state === 'SHUTDOWN') {
        leaving.delete(connection);
        if (leaving.size === 0) onLastGone?.();
      }
      if (subchannels.get(endpoint.id) === subchannel) stateChanged(subchannel, state);
    });
    const subchannel: Subchannel = {
      endpoint,
      connection,
      health: 'unknown',
      watch: undefined,
      failed: false,
      picks: 0,
      failures: 0,
    };
    subchannels.set(endpoint.id, subchannel);
  }

  function remove(subchannel: Subchannel, graceMs: number): void {
    subchannels.delete(subchannel.endpoint.id);
    outliers.forget(subchannel.endpoint.id);
    subchannel.watch?.stop();
    leaving.add(subchannel.connection);
    subchannel.connection.close(graceMs);
  }

  function stateChanged(subchannel: Subchannel, state: ConnectionState): void {
    if (state === 'READY') {
      subchannel.failed = false;
      if (healthServiceName === undefined) {
        subchannel.health = 'serving';
      } else {
        subchannel.watch = new HealthWatch(subchannel.connection, healthServiceName, (health) => {
          if (subchannel.health === health) return;
          subchannel.health = health;
          onEvent({ type: 'health', endpointId: subchannel.endpoint.id, health });
          rebuild();
        });
      }
    } else {
      if (state === 'TRANSIENT_FAILURE') subchannel.failed = true;
      subchannel.watch?.stop();
      subchannel.watch = undefined;
      subchannel.health = 'unknown';
      outliers.forget(subchannel.endpoint.id);
    }
    rebuild();
  }

  function rebuild(): void {
    const able = [...subchannels.values()].filter(isServing);
    const chosen = able.filter(({ endpoint }) => outliers.ejection(endpoint.id) === undefined);
    // An ejected endpoint is better than none.
    const now = (chosen.length > 0 ? chosen : able).map(({ connection }) => connection);
    const same = now.length === serving.length && now.every((connection, index) => connection === serving[index]);
    if (!same) {
      serving = now;
      picker = now.length === 0 ? pickNone : createPicker(now);
    }
    onChange();
  }

  /** Queues while a replica may still come up, and fails once none can. */
  function pickNone(): CallStatus | undefined {
    if (closed) return localStatus(Code.UNAVAILABLE, `the channel to ${target} is closed`, 'no');
    if (state() === 'CONNECTING') return undefined;
    return localStatus(Code.UNAVAILABLE, `no endpoint of ${target} can take the call: ${describe()}`, 'no');
  }

  function state(): ConnectionState {
    if (closed) return 'SHUTDOWN';
    if (serving.length > 0) return 'READY';
    if (!resolved) return resolverError === undefined ? 'CONNECTING' : 'TRANSIENT_FAILURE';
    for (const { connection, failed, health } of subchannels.values()) {
      const waitsForHealth = connection.state === 'READY' && health === 'unknown';
      if (waitsForHealth || (!failed && connection.state !== 'READY')) return 'CONNECTING';
    }
    return 'TRANSIENT_FAILURE';
  }

  function describe(): string {
    if (!resolved) return resolverError?.message ?? 'the resolver has not answered';
    if (subchannels.size === 0) return `there are 0 endpoints${resolverError ? `: ${resolverError.message}` : ''}`;
    const reasons = [...subchannels.values()].slice(0, 5).map(({ endpoint, connection, health }) => {
      const why =
        connection.state !== 'READY'
          ? connection.lastError || connection.state
          : health === 'serving'
            ? 'not ready, and without a health service that says otherwise'
            : `health is ${health}`;
      return `${endpoint.id}: ${why}`;
    });
    return `there are ${subchannels.size} endpoints, none ready (${reasons.join('; ')})`;
  }

  return {
    pick: (call) => picker(call),
    get state() {
      return state();
    },
    update(endpoints) {
      if (closed) return;
      const first = !resolved;
      resolved = true;
      resolvedAtMs = performance.now();
      resolverError = undefined;
      const wanted = new Map(endpoints.map((endpoint) => [endpoint.id, endpoint]));
      const gone = [...subchannels.values()].filter(({ endpoint, connection }) => {
        const now = wanted.get(endpoint.id);
        // One that was tried too early would wait for its next try, when it could serve at once.
        const tooEarly = endpoint.ready === false && now?.ready !== false && connection.state !== 'READY';
        return tooEarly || !sameAddresses(endpoint, now);
      });
      for (const subchannel of gone) remove(subchannel, Number.POSITIVE_INFINITY);
      for (const subchannel of subchannels.values()) {
        subchannel.endpoint = wanted.get(subchannel.endpoint.id) ?? subchannel.endpoint;
      }
      const added = [...wanted.values()].filter(({ id }) => !subchannels.has(id));
      for (const endpoint of added) add(endpoint);
      // Resolvers repeat themselves: only what changed is an event.
      if (first || gone.length + added.length > 0) onEvent({ type: 'endpoints', endpointIds: [...wanted.keys()] });
      rebuild();
    },
    fail(error) {
      onEvent({ type: 'resolver-error', error });
      resolverError = error;
      if (!resolved) onChange();
    },
    observe(event) {
      if (event.type !== 'attempt-started' && event.type !== 'attempt-ended') return;
      const subchannel = subchannels.get(event.endpointId);
      if (subchannel === undefined) return;
      if (event.type === 'attempt-started') {
        subchannel.picks++;
      } else {
        if (event.status.code !== Code.OK && !event.lost) subchannel.failures++;
        outliers.attemptEnded(event);
      }
    },
    snapshot() {
      return {
        state: state(),
        resolvedMsAgo: resolved ? performance.now() - resolvedAtMs : undefined,
        resolverError: resolverError?.message,
        endpoints: [...subchannels.values()].map(({ endpoint, connection, health, watch, picks, failures }) => ({
          id: endpoint.id,
          addresses: endpoint.addresses,
          ready: endpoint.ready !== false,
          state: connection.state,
          lastError: connection.lastError,
          health,
          ejected: outliers.ejection(endpoint.id),
          inFlight: connection.inFlight - (watch?.isOpen ? 1 : 0),
          picks,
          failures,
        })),
      };
    },
    close(graceMs) {
      closed = true;
      outliers.stop();
      for (const connection of leaving) connection.close(graceMs);
      for (const subchannel of subchannels.values()) remove(subchannel, graceMs);
      rebuild();
      if (leaving.size === 0) return Promise.resolve();
      return new Promise((resolve) => {
        onLastGone = resolve;
      });
    },
  };
}

function isServing({ endpoint, connection, health, watch }: Subchannel): boolean {
  if (connection.state !== 'READY' || health !== 'serving') return false;
  // A Watch that is open has said so; one that is not has found no health service.
  return endpoint.ready !== false || watch?.isOpen === true;
}

function sameAddresses(a: Endpoint, b: Endpoint | undefined): boolean {
  return (
    a.addresses.length === b?.addresses.length && a.addresses.every((address, index) => address === b.addresses[index])
  );
}
