export type AttributeValue = string | number | boolean;

/** A span as a collector or Jaeger knows it. */
export interface Span {
  /** `gateway`, and the name of its replica: `greeter a`. */
  readonly process: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string;
  readonly name: string;
  readonly kind: string;
  /** In microseconds since 1970. */
  readonly startUs: number;
  readonly attributes: ReadonlyMap<string, AttributeValue>;
}

/**
 * The spans of one trace, a line each, in the order of their start, children indented below their parent, with the
 * attributes that are named where a span has them.
 */
export function formatTree(spans: readonly Span[], traceId: string, attributes: readonly string[]): string[] {
  const ofTrace = spans.filter((span) => span.traceId === traceId).sort((a, b) => a.startUs - b.startUs);
  const known = new Set(ofTrace.map(({ spanId }) => spanId));
  const format = (span: Span): string =>
    [span.process, span.kind, span.name, ...attributes.flatMap((key) => span.attributes.get(key) ?? [])].join(' ');
  const below = (parentSpanId: string, indent: string): string[] =>
    ofTrace
      .filter((span) => span.parentSpanId === parentSpanId)
      .flatMap((span) => [`${indent}${format(span)}`, ...below(span.spanId, `${indent}  `)]);
  const roots = new Set(ofTrace.map((span) => span.parentSpanId).filter((id) => !known.has(id)));
  return [...roots].flatMap((id) => below(id, ''));
}

/** What a client sends along to have its trace found by that id. */
export function traceparent(traceId: string): Record<string, string> {
  return { traceparent: `00-${traceId}-b7ad6b7169203331-01` };
}
