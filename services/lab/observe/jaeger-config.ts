/** The ports of a Jaeger on loopback. */
export interface JaegerPorts {
  /** For OTLP over HTTP. */
  readonly otlpHttp: number;
  /** For OTLP over gRPC. 0, the default, is any free port. */
  readonly otlpGrpc?: number;
  /** For its pages and its API. */
  readonly query: number;
}

/** What Jaeger 2 reads as its configuration: traces in memory, the last `maxTraces`. */
export function jaegerConfig({ otlpHttp, otlpGrpc = 0, query }: JaegerPorts, maxTraces: number): string {
  const at = (port: number) => ({ endpoint: `127.0.0.1:${port}` });
  return JSON.stringify({
    service: {
      extensions: ['jaeger_storage', 'jaeger_query'],
      pipelines: { traces: { receivers: ['otlp'], exporters: ['jaeger_storage_exporter'] } },
      telemetry: { metrics: { level: 'none' }, logs: { level: 'error' } },
    },
    extensions: {
      jaeger_query: { storage: { traces: 'memory' }, grpc: at(0), http: at(query) },
      jaeger_storage: { backends: { memory: { memory: { max_traces: maxTraces } } } },
    },
    receivers: { otlp: { protocols: { grpc: at(otlpGrpc), http: at(otlpHttp) } } },
    exporters: { jaeger_storage_exporter: { trace_storage: 'memory' } },
  });
}
