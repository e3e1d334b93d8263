import type { Registry } from 'prom-client';
import { latencyBuckets } from '../call/latency-buckets.ts';
import { sizeBuckets } from '../call/size-buckets.ts';
import { Code, codeName, isServerFault } from '../call/status.ts';
import { createAccessLog } from '../process/access-log.ts';
import { createCounter } from '../process/counter.ts';
import { createHistogram, type Observe } from '../process/histogram.ts';
import type { Logger } from '../process/log.ts';

/** The names and labels of gRFC A66, in Prometheus's spelling: https://github.com/grpc/proposal/blob/master/A66-otel-stats.md */
export const callStartedName = 'grpc_server_call_started_total';
export const callDurationName = 'grpc_server_call_duration_seconds';
export const callSentName = 'grpc_server_call_sent_total_compressed_message_size_bytes';
export const callReceivedName = 'grpc_server_call_rcvd_total_compressed_message_size_bytes';

/** The calls of one method since the start. What is in flight is `started` less the others. */
export interface CallCounters {
  readonly started: number;
  readonly ok: number;
  readonly failed: number;
  readonly cancelled: number;
}

/** How a call ended. */
export interface CallEnd {
  readonly code: number;
  readonly details: string;
  /** Of its messages as they are on the wire, without what frames them. */
  readonly sentBytes: number;
  readonly receivedBytes: number;
  /** What its client and whoever is before that know it by. */
  readonly requestId: string | undefined;
  /** Undefined for a call that is not logged, such as a health check. */
  readonly trace: { readonly traceId: string | undefined; readonly isSampled: boolean } | undefined;
  /** Of a stream, each way; undefined for a call with one request and one reply. */
  readonly messages: { readonly sent: number; readonly received: number } | undefined;
}

/** Those of a method and a code. */
interface CallHistograms {
  readonly duration: Observe;
  readonly sent: Observe;
  readonly received: Observe;
}

/** Counts, times and logs the calls of a server. */
export interface Observer {
  /** A call of one of the methods began. The result is called when it ends. */
  start(path: string): (end: CallEnd) => void;
  /** By method, those without calls left out. */
  counters(): Record<string, CallCounters>;
}

/** `paths` are those of the methods served (`/helloworld.Greeter/SayHello`): no other can become a label. */
export function createObserver(options: {
  readonly registry: Registry;
  readonly log: Logger;
  readonly paths: readonly string[];
  /** The share of the calls that went well which are logged. */
  readonly accessLogRatio: number;
  /** A call that takes longer, and is no stream, is slow. */
  readonly slowRequestMs: number;
}): Observer {
  const { registry, log, slowRequestMs } = options;
  const { levelOf } = createAccessLog(log, options.accessLogRatio);
  const callStarted = createCounter(registry, {
    name: callStartedName,
    help: 'Calls started, those in flight included.',
    labelNames: ['grpc_method'],
  });
  const callDuration = createHistogram(registry, {
    name: callDurationName,
    help: 'Time from the headers of a call to its status.',
    labelNames: ['grpc_method', 'grpc_status'],
    buckets: latencyBuckets,
  });
  const callSent = createHistogram(registry, {
    name: callSentName,
    help: 'Size of all messages sent in a call.',
    labelNames: ['grpc_method', 'grpc_status'],
    buckets: sizeBuckets,
  });
  const callReceived = createHistogram(registry, {
    name: callReceivedName,
    help: 'Size of all messages received in a call.',
    labelNames: ['grpc_method', 'grpc_status'],
    buckets: sizeBuckets,
  });

  const methods = new Map(options.paths.map((path) => [path, observeMethod(path.slice(1))]));

  function observeMethod(name: string) {
    const started = callStarted.of({ grpc_method: name });
    const byCode: CallHistograms[] = [];
    const histogramsOf = (code: number): CallHistograms => {
      const labels = { grpc_method: name, grpc_status: codeName(code) };
      return { duration: callDuration(labels), sent: callSent(labels), received: callReceived(labels) };
    };
    const counters = { started: 0, ok: 0, failed: 0, cancelled: 0 };
    return {
      name,
      counters,
      start() {
        const startMs = performance.now();
        counters.started++;
        started.value++;
        return (end: CallEnd) => {
          const { code, trace } = end;
          const durationMs = performance.now() - startMs;
          counters[code === Code.OK ? 'ok' : code === Code.CANCELLED ? 'cancelled' : 'failed']++;
          const { duration, sent, received } = (byCode[code] ??= histogramsOf(code));
          duration(durationMs / 1_000, trace?.isSampled === true ? trace.traceId : undefined);
          sent(end.sentBytes);
          received(end.receivedBytes);
          if (trace !== undefined) writeLog(name, durationMs, trace.traceId, end);
        };
      },
    };
  }

  /** The fields have the names that the gateway's lines have. */
  function writeLog(grpcMethod: string, durationMs: number, traceId: string | undefined, end: CallEnd): void {
    const { code, details, requestId, messages } = end;
    const slow = messages === undefined && durationMs >= slowRequestMs;
    const fault = code === Code.OK ? 'none' : isServerFault(code) ? 'server' : 'client';
    const level = levelOf({ fault, slow, id: requestId ?? traceId });
    if (level === undefined) return;
    const fields = {
      ...(traceId && { trace_id: traceId }),
      ...(requestId && { requestId }),
      grpcMethod,
      durationMs: Math.round(durationMs * 100) / 100,
      ...(slow && { slow }),
      ...(messages && { messagesSent: messages.sent, messagesReceived: messages.received }),
      grpcCode: codeName(code),
      ...(code !== Code.OK && { details }),
    };
    log[level](fields, 'call');
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
