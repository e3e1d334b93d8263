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
import { Code, codeName } from '../call/status.ts';

const tracer = trace.getTracer('tandem-server');

/** The server span of a call. */
export interface CallSpan {
  /** Runs something of the call: what it logs, and spans that it makes, belong to this one. */
  run<T>(work: () => T): T;
  end(outcome: CallOutcome): void;
}

export interface CallOutcome {
  readonly code: number;
  readonly details: string;
  /** The address of the client. */
  readonly remoteAddress?: string | undefined;
  readonly remotePort?: number | undefined;
  /** Messages of a stream, each way; undefined for a call with one request and one reply. */
  readonly messages: { readonly sent: number; readonly received: number } | undefined;
}

/** Starts the span of a call below the one that its metadata name. Without tracing there is nothing to it. */
export function startCallSpan(path: string, metadata: Metadata): CallSpan {
  const parent = propagation.extract(ROOT_CONTEXT, metadata, getter);
  const span = tracer.startSpan(path.slice(1), { kind: SpanKind.SERVER }, parent);
  if (!isSpanContextValid(span.spanContext())) return untraced;
  const context = trace.setSpan(parent, span);
  return {
    run: (work) => otelContext.with(context, work),
    end(outcome) {
      if (span.isRecording()) {
        span.setAttributes(attributesOf(path, outcome));
        if (serverFaults.has(outcome.code)) span.setStatus({ code: SpanStatusCode.ERROR, message: outcome.details });
      }
      span.end();
    },
  };
}

const untraced: CallSpan = { run: (work) => work(), end() {} };

const getter = {
  get(metadata: Metadata, key: string) {
    const [value] = metadata.get(key);
    return typeof value === 'string' ? value : undefined;
  },
  keys: (metadata: Metadata) => Object.keys(metadata.getMap()),
};

/** The codes that say that the server, not its client, is at fault: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/ */
const serverFaults = new Set<number>([
  Code.UNKNOWN,
  Code.DEADLINE_EXCEEDED,
  Code.UNIMPLEMENTED,
  Code.INTERNAL,
  Code.UNAVAILABLE,
  Code.DATA_LOSS,
]);

function attributesOf(path: string, { code, remoteAddress, remotePort, messages }: CallOutcome): Attributes {
  const attributes: Attributes = {
    'rpc.system.name': 'grpc',
    'rpc.method': path.slice(1),
    'rpc.status_code': codeName(code),
    'network.peer.address': remoteAddress,
    'network.peer.port': remotePort,
  };
  if (serverFaults.has(code)) attributes['error.type'] = codeName(code);
  if (messages !== undefined) {
    attributes['tandem.messages.sent'] = messages.sent;
    attributes['tandem.messages.received'] = messages.received;
  }
  return attributes;
}
