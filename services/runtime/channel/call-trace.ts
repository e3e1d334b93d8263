import {
  type Attributes,
  type Context,
  propagation,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api';
import type { AttemptOutcome, AttemptSpan, AttemptStart, CallContext, Metadata, MetadataEntry } from '../call/call.ts';
import { Code, codeName } from '../call/status.ts';
import { type KeptSpan, randomId } from '../process/trace-store.ts';

const tracer = trace.getTracer('tandem-channel');

/**
 * The attempts of one call. Each is a client span below `parent` where that is sampled, and otherwise only noted, which
 * costs next to nothing. `parent` is undefined while tracing is off: nothing is sent along then.
 */
export class CallTrace implements CallContext {
  private readonly parent: Context | undefined;
  private readonly isSampled: boolean;
  private readonly attempts: Attempt[] = [];
  private passedOn: Metadata | undefined;

  constructor(parent: Context | undefined) {
    this.parent = parent;
    this.isSampled = parent !== undefined && trace.getSpan(parent)?.isRecording() === true;
  }

  startAttempt(start: AttemptStart): AttemptSpan {
    const { parent } = this;
    const number = this.attempts.length + 1;
    const attempt =
      this.isSampled && parent !== undefined
        ? startSampled(start, number, parent)
        : new Attempt(start, number, undefined, (this.passedOn ??= parent === undefined ? [] : inject(parent)));
    this.attempts.push(attempt);
    return attempt;
  }

  /** How many there were so far. */
  get size(): number {
    return this.attempts.length;
  }

  /** The attempts as spans below that one. */
  spans(parentSpanId: string): readonly KeptSpan[] {
    return this.attempts.map((attempt) => attempt.toSpan(parentSpanId));
  }
}

function startSampled(start: AttemptStart, number: number, parent: Context): Attempt {
  const span = tracer.startSpan(nameOf(start), { kind: SpanKind.CLIENT }, parent);
  return new Attempt(start, number, span, inject(trace.setSpan(parent, span)));
}

function inject(context: Context): Metadata {
  const metadata: MetadataEntry[] = [];
  propagation.inject(context, metadata, addEntry);
  return metadata;
}

const addEntry = {
  set(metadata: MetadataEntry[], key: string, value: string) {
    metadata.push([key.toLowerCase(), value]);
  },
};

class Attempt implements AttemptSpan {
  readonly metadata: Metadata;
  private readonly start: AttemptStart;
  private readonly number: number;
  private readonly span: Span | undefined;
  private readonly startMs = Date.now();
  private readonly startedMs = performance.now();
  private endedMs: number | undefined;
  private outcome: AttemptOutcome | undefined;
  private id: string | undefined;

  constructor(start: AttemptStart, number: number, span: Span | undefined, metadata: Metadata) {
    this.start = start;
    this.number = number;
    this.span = span;
    this.metadata = metadata;
  }

  end(outcome: AttemptOutcome): void {
    this.endedMs = performance.now();
    this.outcome = outcome;
    const { span } = this;
    if (span === undefined) return;
    span.setAttributes(this.attributes());
    const message = this.error();
    if (message !== undefined) span.setStatus({ code: SpanStatusCode.ERROR, message });
    span.end();
  }

  toSpan(parentSpanId: string): KeptSpan {
    const { start, startMs, startedMs, endedMs } = this;
    this.id ??= this.span?.spanContext().spanId ?? randomId(8);
    return {
      spanId: this.id,
      parentSpanId,
      name: nameOf(start),
      kind: SpanKind.CLIENT,
      startMs,
      endMs: endedMs === undefined ? undefined : startMs + (endedMs - startedMs),
      attributes: this.attributes(),
      error: this.error(),
    };
  }

  /**
   * https://opentelemetry.io/docs/specs/semconv/rpc/grpc/; `tandem.*` is what it has no name for. `unseen`: it was never
   * sent, or refused before a handler saw it.
   */
  private attributes(): Attributes {
    const { start, outcome } = this;
    const { method, endpoint } = start;
    const [address = ''] = endpoint.addresses;
    const colon = address.lastIndexOf(':');
    const attributes: Attributes = {
      'rpc.system.name': 'grpc',
      'rpc.method': nameOf(start),
      'server.address': address.slice(0, colon).replace(/^\[(.*)\]$/, '$1'),
      'server.port': Number(address.slice(colon + 1)),
      'tandem.replica': endpoint.id,
      'tandem.target': start.target,
      'tandem.target.priority': start.priority,
      'tandem.attempt.number': this.number,
      'tandem.attempt.reason': start.reason,
    };
    if (start.upstream !== '') attributes['tandem.upstream'] = start.upstream;
    if (outcome === undefined) return attributes;
    const { status, lost, sent, received } = outcome;
    const code = codeName(status.code);
    attributes['rpc.response.status_code'] = code;
    if (lost) attributes['tandem.attempt.lost'] = true;
    else if (status.code !== Code.OK) attributes['error.type'] = code;
    if (status.seenByPeer === 'no') attributes['tandem.attempt.unseen'] = true;
    if (method.requestStream || method.responseStream) {
      attributes['tandem.messages.sent'] = sent;
      attributes['tandem.messages.received'] = received;
    }
    return attributes;
  }

  /** A hedge that lost did nothing wrong. */
  private error(): string | undefined {
    if (this.outcome === undefined || this.outcome.lost) return undefined;
    const { code, details } = this.outcome.status;
    return code === Code.OK ? undefined : details;
  }
}

/** `helloworld.Greeter/SayHello` */
function nameOf({ method }: AttemptStart): string {
  return method.path.slice(1);
}
