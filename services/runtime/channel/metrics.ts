import { Counter, Histogram, type Registry } from 'prom-client';
import type { Method } from '../call/call.ts';
import { codeName } from '../call/status.ts';
import type { ChannelEvent, ChannelListener } from './events.ts';

/** The buckets of gRFC A66, in seconds. */
const latencyBuckets = [
  0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01, 0.013, 0.016,
  0.02, 0.025, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8, 1, 2, 5, 10, 20, 50,
  100,
];

/**
 * Registers the client metrics of gRFC A66 and returns, for the target of each channel, the listener that feeds them.
 * https://github.com/grpc/proposal/blob/master/A66-otel-stats.md
 */
export function createChannelMetrics(registry: Registry): (target: string) => ChannelListener {
  const registers = [registry];
  const attemptStarted = new Counter({
    name: 'grpc_client_attempt_started_total',
    help: 'RPC attempts started, with those that have not ended',
    labelNames: ['grpc_method', 'grpc_target'],
    registers,
  });
  const attemptDuration = new Histogram({
    name: 'grpc_client_attempt_duration_seconds',
    help: 'End-to-end time of an RPC attempt',
    labelNames: ['grpc_method', 'grpc_target', 'grpc_status'],
    buckets: latencyBuckets,
    registers,
  });
  const callDuration = new Histogram({
    name: 'grpc_client_call_duration_seconds',
    help: 'Time of an RPC from the application, with all its attempts',
    labelNames: ['grpc_method', 'grpc_target', 'grpc_status'],
    buckets: latencyBuckets,
    registers,
  });

  return (target) => {
    // A label lookup by name costs more than the rest of an event; each child is looked up once.
    const byMethod = new WeakMap<Method, MethodChildren>();
    return (event: ChannelEvent) => {
      switch (event.type) {
        case 'attempt-started':
          children(event.method).started.inc();
          break;
        case 'attempt-ended':
          children(event.method)
            .attempt(event.status.code)
            .observe(event.durationMs / 1_000);
          break;
        case 'call-ended':
          children(event.method)
            .call(event.status.code)
            .observe(event.durationMs / 1_000);
          break;
      }
    };

    function children(method: Method): MethodChildren {
      let found = byMethod.get(method);
      if (found === undefined) {
        const labels = { grpc_method: method.path.slice(1), grpc_target: target };
        const withStatus = (histogram: Histogram) => {
          const byCode: Histogram.Internal<string>[] = [];
          return (code: number) => (byCode[code] ??= histogram.labels({ ...labels, grpc_status: codeName(code) }));
        };
        found = {
          started: attemptStarted.labels(labels),
          attempt: withStatus(attemptDuration),
          call: withStatus(callDuration),
        };
        byMethod.set(method, found);
      }
      return found;
    }
  };
}

interface MethodChildren {
  readonly started: Counter.Internal;
  readonly attempt: (code: number) => Histogram.Internal<string>;
  readonly call: (code: number) => Histogram.Internal<string>;
}
