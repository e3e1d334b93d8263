import { Gauge, type Registry } from 'prom-client';
import { latencyBuckets } from '../call/latency-buckets.ts';
import type { AttemptReason, Method } from '../call/call.ts';
import { sizeBuckets } from '../call/size-buckets.ts';
import { Code, codeName } from '../call/status.ts';
import { type Count, type Counter, createCounter } from '../process/counter.ts';
import { createHistogram, type Observe } from '../process/histogram.ts';
import type { Channel, ChannelSnapshot } from './channel.ts';
import type { EndpointSnapshot } from './endpoints.ts';
import { type ChannelEvent, type ChannelListener, ejectionReasons } from './events.ts';

/** The client metrics of a process, shared by its channels. */
export interface ChannelMetrics {
  /** What happens in the channel of that (primary) target. `upstream` tells channels apart that have the same one. */
  listener(target: string, upstream: string): ChannelListener;
  /** How the channel stands, looked at whenever the metrics are read. */
  watch(channel: Channel, upstream: string): void;
  /** What was done since the start, by upstream. */
  counters(): Record<string, AttemptCounters>;
}

export interface AttemptCounters {
  readonly attempts: number;
  /** Those that no replica saw: never sent, or refused before a handler ran. */
  readonly unseen: number;
}

/**
 * Registers the client metrics of gRFC A66 (https://github.com/grpc/proposal/blob/master/A66-otel-stats.md) and, as
 * `tandem_channel_*`, what it has no name for. `endpoint` is a label only of those that are endpoints now.
 */
export function createChannelMetrics(registry: Registry): ChannelMetrics {
  const attemptStarted = createCounter(registry, {
    name: 'grpc_client_attempt_started_total',
    help: 'RPC attempts started, with those that have not ended, by why: first, repick, retry or hedge',
    labelNames: ['grpc_method', 'grpc_target', 'upstream', 'reason'],
  });
  const attemptUnseen = createCounter(registry, {
    name: 'tandem_channel_unseen_attempts_total',
    help: 'Attempts that no replica saw: never sent, or refused before a handler ran',
    labelNames: ['grpc_method', 'grpc_target', 'upstream'],
  });
  const budgetExhausted = createCounter(registry, {
    name: 'tandem_channel_budget_exhausted_total',
    help: 'Retries and hedges that the policy would have made and the budget did not allow',
    labelNames: ['grpc_method', 'grpc_target', 'upstream'],
  });
  const attemptDuration = createHistogram(registry, {
    name: 'grpc_client_attempt_duration_seconds',
    help: 'End-to-end time of an RPC attempt',
    labelNames: ['grpc_method', 'grpc_target', 'upstream', 'grpc_status'],
    buckets: latencyBuckets,
  });
  const attemptSent = createHistogram(registry, {
    name: 'grpc_client_attempt_sent_total_compressed_message_size_bytes',
    help: 'Size of all messages sent in an RPC attempt',
    labelNames: ['grpc_method', 'grpc_target', 'upstream', 'grpc_status'],
    buckets: sizeBuckets,
  });
  const attemptReceived = createHistogram(registry, {
    name: 'grpc_client_attempt_rcvd_total_compressed_message_size_bytes',
    help: 'Size of all messages received in an RPC attempt',
    labelNames: ['grpc_method', 'grpc_target', 'upstream', 'grpc_status'],
    buckets: sizeBuckets,
  });
  const callDuration = createHistogram(registry, {
    name: 'grpc_client_call_duration_seconds',
    help: 'Time of an RPC from the application, with all its attempts',
    labelNames: ['grpc_method', 'grpc_target', 'upstream', 'grpc_status'],
    buckets: latencyBuckets,
  });
  const endpointAttempts = createCounter(registry, {
    name: 'tandem_channel_endpoint_attempts_total',
    help: 'Attempts sent to an endpoint',
    labelNames: ['grpc_target', 'upstream', 'endpoint'],
  });
  const endpointFailures = createCounter(registry, {
    name: 'tandem_channel_endpoint_failures_total',
    help: 'Attempts at an endpoint that failed, without hedges that lost',
    labelNames: ['grpc_target', 'upstream', 'endpoint'],
  });
  const connectionFailures = createCounter(registry, {
    name: 'tandem_channel_connection_failures_total',
    help: 'Connections to endpoints that broke or could not be made',
    labelNames: ['grpc_target', 'upstream'],
  });
  const ejections = createCounter(registry, {
    name: 'tandem_channel_ejections_total',
    help: 'Endpoints taken out of the pick, by rule',
    labelNames: ['grpc_target', 'upstream', 'reason'],
  });
  const prioritySwitches = createCounter(registry, {
    name: 'tandem_channel_priority_switches_total',
    help: 'How often calls went over to another target',
    labelNames: ['grpc_target', 'upstream'],
  });
  const resolverErrors = createCounter(registry, {
    name: 'tandem_channel_resolver_errors_total',
    help: 'Failures to resolve a target; the last endpoints stay in use',
    labelNames: ['grpc_target', 'upstream'],
  });
  const tlsErrors = createCounter(registry, {
    name: 'tandem_channel_tls_errors_total',
    help: 'Changes of the TLS files that left them unusable; the last ones stay in use',
    labelNames: ['grpc_target', 'upstream'],
  });
  const watched: WatchedChannel[] = [];
  registerGauges(registry, watched);

  return {
    watch: (channel, upstream) => void watched.push({ channel, upstream }),
    counters() {
      const [started, unseen] = [sumByUpstream(attemptStarted), sumByUpstream(attemptUnseen)];
      return Object.fromEntries(
        watched.map(({ upstream }) => [
          upstream,
          { attempts: started.get(upstream) ?? 0, unseen: unseen.get(upstream) ?? 0 },
        ]),
      );
    },
    listener(target, upstream) {
      const ofChannel = { grpc_target: target, upstream };
      // What is rare is 0 from the start: a counter that begins with 1 has not increased, and alerts look for increases.
      const counts = {
        connectionFailures: connectionFailures.of(ofChannel),
        prioritySwitches: prioritySwitches.of(ofChannel),
        resolverErrors: resolverErrors.of(ofChannel),
        tlsErrors: tlsErrors.of(ofChannel),
      };
      for (const reason of ejectionReasons) ejections.of({ ...ofChannel, reason });
      // A series looked up by its labels costs more than the rest of an event; each is looked up once.
      const byMethod = new WeakMap<Method, MethodChildren>();
      const byEndpoint = new Map<string, EndpointChildren>();
      return (event: ChannelEvent) => {
        switch (event.type) {
          case 'attempt-started':
            ofMethod(event.method).started(event.reason).value++;
            ofEndpoint(event.endpointId).attempts.value++;
            break;
          case 'attempt-ended':
            endAttempt(event);
            if (event.status.seenByPeer === 'no') ofMethod(event.method).unseen.value++;
            if (event.status.code !== Code.OK && !event.lost) ofEndpoint(event.endpointId).failures.value++;
            break;
          case 'call-ended':
            ofMethod(event.method).call(event.status.code)(event.durationMs / 1_000);
            break;
          case 'budget-exhausted':
            ofMethod(event.method).budgetExhausted.value++;
            break;
          case 'connection':
            if (event.state === 'SHUTDOWN') forget(event.endpointId);
            else if (event.state === 'TRANSIENT_FAILURE') counts.connectionFailures.value++;
            break;
          case 'ejected':
            ejections.of({ ...ofChannel, reason: event.reason }).value++;
            break;
          case 'priority':
            counts.prioritySwitches.value++;
            break;
          case 'resolver-error':
            counts.resolverErrors.value++;
            break;
          case 'tls-files':
            if (event.error !== undefined) counts.tlsErrors.value++;
            break;
        }
      };

      function endAttempt({ method, status, durationMs, sentBytes, receivedBytes }: AttemptEnded): void {
        const { duration, sent, received } = ofMethod(method).attempt(status.code);
        duration(durationMs / 1_000);
        sent(sentBytes);
        received(receivedBytes);
      }

      function ofMethod(method: Method): MethodChildren {
        let found = byMethod.get(method);
        if (found === undefined) {
          const labels = { ...ofChannel, grpc_method: method.path.slice(1) };
          const byStatus = <T>(children: (labels: StatusLabels) => T) => {
            const byCode: T[] = [];
            return (code: number) => (byCode[code] ??= children({ ...labels, grpc_status: codeName(code) }));
          };
          const byReason = new Map<AttemptReason, Count>();
          found = {
            started(reason) {
              let counter = byReason.get(reason);
              if (counter === undefined) byReason.set(reason, (counter = attemptStarted.of({ ...labels, reason })));
              return counter;
            },
            unseen: attemptUnseen.of(labels),
            budgetExhausted: budgetExhausted.of(labels),
            attempt: byStatus((labels) => ({
              duration: attemptDuration(labels),
              sent: attemptSent(labels),
              received: attemptReceived(labels),
            })),
            call: byStatus(callDuration),
          };
          byMethod.set(method, found);
        }
        return found;
      }

      function ofEndpoint(endpoint: string): EndpointChildren {
        let found = byEndpoint.get(endpoint);
        if (found === undefined) {
          const labels = { ...ofChannel, endpoint };
          found = { attempts: endpointAttempts.of(labels), failures: endpointFailures.of(labels) };
          byEndpoint.set(endpoint, found);
        }
        return found;
      }

      function forget(endpoint: string): void {
        if (!byEndpoint.delete(endpoint)) return;
        endpointAttempts.remove({ ...ofChannel, endpoint });
        endpointFailures.remove({ ...ofChannel, endpoint });
      }
    },
  };
}

function sumByUpstream(counter: Pick<Counter<'upstream'>, 'series'>): ReadonlyMap<string, number> {
  const sums = new Map<string, number>();
  for (const { labels, value } of counter.series()) sums.set(labels.upstream, (sums.get(labels.upstream) ?? 0) + value);
  return sums;
}

type AttemptEnded = Extract<ChannelEvent, { type: 'attempt-ended' }>;

type StatusLabels = Record<'grpc_method' | 'grpc_target' | 'upstream' | 'grpc_status', string>;

interface MethodChildren {
  readonly started: (reason: AttemptReason) => Count;
  readonly unseen: Count;
  readonly budgetExhausted: Count;
  readonly attempt: (code: number) => {
    readonly duration: Observe;
    readonly sent: Observe;
    readonly received: Observe;
  };
  readonly call: (code: number) => Observe;
}

interface EndpointChildren {
  readonly attempts: Count;
  readonly failures: Count;
}

interface WatchedChannel {
  readonly channel: Channel;
  readonly upstream: string;
}

/** Gauges that read the channels' snapshots, so that what a person sees there and what a graph shows cannot differ. */
function registerGauges(registry: Registry, watched: readonly WatchedChannel[]): void {
  const gauge = (
    name: string,
    help: string,
    labels: readonly string[],
    read: (snapshot: ChannelSnapshot, set: (value: number, labels?: Record<string, string>) => void) => void,
  ) =>
    new Gauge({
      name: `tandem_channel_${name}`,
      help,
      labelNames: ['grpc_target', 'upstream', ...labels],
      registers: [registry],
      collect() {
        this.reset();
        for (const { channel, upstream } of watched) {
          read(channel.snapshot(), (value, more) =>
            this.set({ grpc_target: channel.target, upstream, ...more }, value),
          );
        }
      },
    });

  gauge('endpoints', 'Endpoints of the active target, by condition', ['condition'], (snapshot, set) => {
    const counts = new Map<string, number>();
    for (const endpoint of activeEndpoints(snapshot)) {
      const condition = conditionOf(endpoint);
      counts.set(condition, (counts.get(condition) ?? 0) + 1);
    }
    for (const condition of conditions) set(counts.get(condition) ?? 0, { condition });
  });
  gauge('endpoint_in_flight', 'Calls in flight at an endpoint', ['endpoint'], (snapshot, set) => {
    for (const { id, inFlight } of activeEndpoints(snapshot)) set(inFlight, { endpoint: id });
  });
  gauge('active_priority', 'Index of the target that takes the calls; 0 is the primary', [], (snapshot, set) =>
    set(snapshot.activePriority),
  );
  gauge('waiting_calls', 'Calls that wait for an endpoint to become ready', [], (snapshot, set) =>
    set(snapshot.waitingCalls),
  );
  gauge('retry_budget_tokens', 'Tokens left for retries and hedges', [], ({ retryBudget }, set) => {
    if (retryBudget !== null) set(retryBudget.tokens);
  });
  gauge('endpoints_age_seconds', 'Since the resolver last confirmed the endpoints', [], (snapshot, set) => {
    const { resolvedMsAgo } = snapshot.targets[snapshot.activePriority] ?? {};
    if (resolvedMsAgo !== undefined) set(resolvedMsAgo / 1_000);
  });
}

const conditions = ['ready', 'ejected', 'not_serving', 'connecting', 'failed'] as const;

function conditionOf({ state, health, ejected }: EndpointSnapshot): (typeof conditions)[number] {
  if (state === 'READY') {
    if (health === 'unknown') return 'connecting';
    if (health === 'not-serving') return 'not_serving';
    return ejected === undefined ? 'ready' : 'ejected';
  }
  return state === 'TRANSIENT_FAILURE' ? 'failed' : 'connecting';
}

function activeEndpoints(snapshot: ChannelSnapshot): readonly EndpointSnapshot[] {
  return snapshot.targets[snapshot.activePriority]?.endpoints ?? [];
}
