import type { Metadata } from '@grpc/grpc-js';
import {
  type Attributes,
  context as otelContext,
  isSpanContextValid,
  propagation,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api';
import { codeName, isServerFault } from '../call/status.ts';

const tracer = trace.getTracer('tandem-server');

/** The server span of a call. */
export interface CallSpan {
  /** Without a span of our own that of the client's; undefined if there is none either. */
  readonly traceId: string | undefined;
  /** Whether the span is sent to the collector. */
  readonly isSampled: boolean;
  /** Runs something of the call: what it logs, and spans that it makes, belong to this one. */
  run<T>(work: () => T): T;
  /** `peer` tells who the client is, where anybody asks. */
  end(outcome: CallOutcome, peer: () => Peer): void;
}

interface Peer {
  readonly remoteAddress?: string | undefined;
  readonly remotePort?: number | undefined;
}

export interface CallOutcome {
  readonly code: number;
  readonly details: string;
  /** Messages of a stream, each way; undefined for a call with one request and one reply. */
  readonly messages: { readonly sent: number; readonly received: number } | undefined;
}

/** Starts the span of a call below the one that its metadata name. Without tracing it has only the trace's id. */
export function startCallSpan(path: string, metadata: Metadata): CallSpan {
  const parent = propagation.extract(ROOT_CONTEXT, metadata, getter);
  const span = tracer.startSpan(path.slice(1), { kind: SpanKind.SERVER }, parent);
  const spanContext = span.spanContext();
  if (!isSpanContextValid(spanContext)) return untraced(getter.get(metadata, 'traceparent'));
  const context = trace.setSpan(parent, span);
  return {
    traceId: spanContext.traceId,
    isSampled: span.isRecording(),
    run: (work) => otelContext.with(context, work),
    end(outcome, peer) {
      if (span.isRecording()) {
        span.setAttributes(attributesOf(path, outcome, peer()));
        if (isServerFault(outcome.code)) span.setStatus({ code: SpanStatusCode.ERROR, message: outcome.details });
      }
      span.end();
    },
  };
}

function untraced(traceparent: string | undefined): CallSpan {
  if (traceparent === undefined) return withoutTrace;
  const [, traceId] = /^[0-9a-f]{2}-([0-9a-f]{32})-/.exec(traceparent) ?? [];
  return { ...withoutTrace, traceId };
}

const withoutTrace: CallSpan = { traceId: undefined, isSampled: false, run: (work) => work(), end() {} };

const getter = {
  get(metadata: Metadata, key: string) {
    const [value] = metadata.get(key);
    return typeof value === 'string' ? value : undefined;
  },
  keys: (metadata: Metadata) => Object.keys(metadata.getMap()),
};

function attributesOf(path: string, { code, messages }: CallOutcome, peer: Peer): Attributes {
  const attributes: Attributes = {
    'rpc.system.name': 'grpc',
    'rpc.method': path.slice(1),
    'rpc.response.status_code': codeName(code),
    'network.peer.address': peer.remoteAddress,
    'network.peer.port': peer.remotePort,
  };
  if (isServerFault(code)) attributes['error.type'] = codeName(code);
  if (messages !== undefined) {
    attributes['tandem.messages.sent'] = messages.sent;
    attributes['tandem.messages.received'] = messages.received;
  }
  return attributes;
}
