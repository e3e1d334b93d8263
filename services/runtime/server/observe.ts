import { Counter, Histogram, type Registry } from 'prom-client';
import { Code, codeName } from '../call/status.ts';

/** The names and labels of gRFC A66, in Prometheus's spelling: https://github.com/grpc/proposal/blob/master/A66-otel-stats.md */
export const callStartedName = 'grpc_server_call_started_total';
export const callDurationName = 'grpc_server_call_duration_seconds';

/** In seconds; A66's. */
const latencyBuckets = [
  0, 0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01, 0.013,
  0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8, 1, 2, 5, 10,
  20, 50, 100,
];

/** The calls of one method since the start. What is in flight is `started` less the others. */
export interface CallCounters {
  readonly started: number;
  readonly ok: number;
  readonly failed: number;
  readonly cancelled: number;
}

/** Counts the calls of a server. */
export interface Observer {
  /** A call of one of the methods began. The result is called with its status code when it ends. */
  start(path: string): (code: number) => void;
  /** By method, those without calls left out. */
  counters(): Record<string, CallCounters>;
}

/** `paths` are those of the methods served (`/helloworld.Greeter/SayHello`): no other can become a label. */
export function createObserver(options: { readonly registry: Registry; readonly paths: readonly string[] }): Observer {
  const registers = [options.registry];
  const callStarted = new Counter({
    name: callStartedName,
    help: 'Calls started, those in flight included.',
    labelNames: ['grpc_method'],
    registers,
  });
  const callDuration = new Histogram({
    name: callDurationName,
    help: 'Time from the headers of a call to its status.',
    labelNames: ['grpc_method', 'grpc_status'],
    buckets: latencyBuckets,
    registers,
  });

  const methods = new Map(options.paths.map((path) => [path, observeMethod(path.slice(1))]));

  function observeMethod(name: string) {
    const started = callStarted.labels(name);
    const durations: (Histogram.Internal<string> | undefined)[] = [];
    const counters = { started: 0, ok: 0, failed: 0, cancelled: 0 };
    return {
      name,
      counters,
      start() {
        const startMs = performance.now();
        counters.started++;
        started.inc();
        return (code: number) => {
          counters[code === Code.OK ? 'ok' : code === Code.CANCELLED ? 'cancelled' : 'failed']++;
          durations[code] ??= callDuration.labels(name, codeName(code));
          durations[code].observe((performance.now() - startMs) / 1_000);
        };
      },
    };
  }

  return {
    start(path) {
      const method = methods.get(path);
      if (method === undefined) throw new Error(`${path} is not a method of this server`);
      return method.start();
    },
    counters() {
      const called = [...methods.values()].filter(({ counters }) => counters.started > 0);
      return Object.fromEntries(called.map(({ name, counters }) => [name, { ...counters }]));
    },
  };
}
