import { createNoopMeter, DiagLogLevel, diag, type Meter, type MeterProvider } from '@opentelemetry/api';
import type { BatchSpanProcessor } from '@opentelemetry/sdk-trace';
import type { Logger } from './log.ts';

/** How long `stop()` waits for the last spans to leave. */
const stopTimeoutMs = 5_000;

export interface Tracing {
  readonly enabled: boolean;
  /** Spans that no collector will see, by what happened to them: `queue_full`, or the name of the exporter's error. */
  readonly dropped: ReadonlyMap<string, number>;
  /** Sends the spans that are left, within 5 seconds. Never rejects. */
  stop(): Promise<void>;
}

/** Tracing that is off. */
export const noTracing: Tracing = { enabled: false, dropped: new Map(), stop: async () => {} };

/**
 * Starts OpenTelemetry if the standard variables ask for it: an OTLP endpoint or an exporter is named, and neither
 * `OTEL_SDK_DISABLED=true` nor `OTEL_TRACES_EXPORTER=none`. Otherwise nothing of the SDK is loaded. `env` must be
 * `process.env`, which the SDK reads by itself: exporter (`otlp` or `console`), its protocol (by default `http/protobuf`),
 * sampler (by default all traces, following the parent), queue, limits and propagators (by default W3C) are as the
 * variables say. The queue is bounded: while the collector is away spans are dropped, and counted. Must have resolved before
 * anything imports `@grpc/grpc-js`, so that calls by clients of a handler's own have spans too, from instrumentation-grpc.
 * https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
 */
export async function startTracing(options: {
  readonly env: Env;
  readonly service: string;
  readonly podName: string;
  /** Told what the SDK has to say, such as a collector that cannot be reached. */
  readonly log?: Logger;
}): Promise<Tracing> {
  const { env, log } = options;
  if (!isWanted(env)) return noTracing;

  const { register } = await import('import-in-the-middle/register-hooks.mjs');
  register({ include: ['@grpc/grpc-js'] });
  const { GrpcInstrumentation } = await import('@opentelemetry/instrumentation-grpc');
  const instrumentations = [new GrpcInstrumentation()];
  const { NodeSDK } = await import('@opentelemetry/sdk-node');
  const { defaultResource, envDetector, resourceFromAttributes } = await import('@opentelemetry/resources');
  if (log !== undefined) setDiagnostics(log, env.OTEL_LOG_LEVEL);
  const dropped = new Map<string, number>();
  const sdk = new NodeSDK({
    instrumentations,
    // What the environment says of the resource is detected after this, and wins.
    resource: defaultResource().merge(
      resourceFromAttributes({ 'service.name': options.service, 'service.instance.id': options.podName }),
    ),
    resourceDetectors: [envDetector],
    spanProcessors: await createProcessors(env, dropped),
    // Metrics are Prometheus's and logs are pino's.
    metricReaders: [],
    logRecordProcessors: [],
  });
  // Where OTEL_LOG_LEVEL is set, the SDK has just taken the console for its log.
  if (log !== undefined) setDiagnostics(log, env.OTEL_LOG_LEVEL);
  sdk.start();
  return {
    enabled: true,
    dropped,
    async stop() {
      const timeout = Promise.withResolvers<never>();
      const timer = setTimeout(() => timeout.reject(new Error(`timed out after ${stopTimeoutMs} ms`)), stopTimeoutMs);
      try {
        await Promise.race([sdk.shutdown(), timeout.promise]);
      } catch (error) {
        log?.warn({ err: error }, 'the last spans could not be sent');
      }
      clearTimeout(timer);
    },
  };
}

/**
 * Takes instrumentation-grpc's wrappers off one object's methods: where we make the spans ourselves there must not be two.
 * Its own have the deprecated conventions, stay open when a client cancels, and cannot say why an attempt was made.
 */
export function withoutInstrumentation<T extends object>(instance: T, names: readonly (keyof T)[]): T {
  for (const name of names) {
    const { __original: original } = instance[name] as { readonly __original?: T[keyof T] };
    if (original !== undefined) instance[name] = original;
  }
  return instance;
}

type Env = Readonly<Record<string, string | undefined>>;

/** The processors that the SDK would make itself, but for the count: from the environment it makes them without. */
async function createProcessors(env: Env, dropped: Map<string, number>) {
  const { BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor } = await import('@opentelemetry/sdk-trace');
  const processors = [];
  for (const name of exportersOf(env)) {
    if (name === 'console') processors.push(new SimpleSpanProcessor({ exporter: new ConsoleSpanExporter() }));
    else if (name === 'otlp') {
      processors.push(
        new BatchSpanProcessor({
          exporter: await createExporter(env),
          selfObsMeterProvider: countDropped(dropped),
          ...batchLimits(env),
        }),
      );
    } else diag.warn(`OTEL_TRACES_EXPORTER ${name} must be otlp, console or none`);
  }
  return processors;
}

type BatchOptions = ConstructorParameters<typeof BatchSpanProcessor>[0];

async function createExporter(env: Env): Promise<BatchOptions['exporter']> {
  const protocol = env.OTEL_EXPORTER_OTLP_TRACES_PROTOCOL || env.OTEL_EXPORTER_OTLP_PROTOCOL || 'http/protobuf';
  switch (protocol) {
    case 'grpc':
      return new (await import('@opentelemetry/exporter-trace-otlp-grpc')).OTLPTraceExporter();
    case 'http/json':
      return new (await import('@opentelemetry/exporter-trace-otlp-http')).OTLPTraceExporter();
    default:
      if (protocol !== 'http/protobuf') diag.warn(`OTEL_EXPORTER_OTLP_PROTOCOL ${protocol}: using http/protobuf`);
      return new (await import('@opentelemetry/exporter-trace-otlp-proto')).OTLPTraceExporter();
  }
}

/** What is no positive number is left to the SDK's defaults: 2,048 spans, in batches of 512, each 5 s, within 30 s. */
function batchLimits(env: Env): Partial<BatchOptions> {
  const limits = {
    maxQueueSize: env.OTEL_BSP_MAX_QUEUE_SIZE,
    maxExportBatchSize: env.OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    scheduledDelayMillis: env.OTEL_BSP_SCHEDULE_DELAY,
    exportTimeoutMillis: env.OTEL_BSP_EXPORT_TIMEOUT,
  };
  return Object.fromEntries(
    Object.entries(limits).flatMap(([name, text]) => (Number(text) > 0 ? [[name, Number(text)]] : [])),
  );
}

/**
 * The processor's own count of what it has dealt with, less what went well.
 * https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/#metric-otelsdkprocessorspanprocessed
 */
function countDropped(dropped: Map<string, number>): MeterProvider {
  const meter = createNoopMeter();
  const createCounter: Meter['createCounter'] = (name, options) => {
    if (name !== 'otel.sdk.processor.span.processed') return meter.createCounter(name, options);
    return {
      add(spans, attributes: Readonly<Record<string, unknown>> = {}) {
        const error = attributes['error.type'];
        if (typeof error === 'string') dropped.set(error, (dropped.get(error) ?? 0) + spans);
      },
    };
  };
  const counting = Object.create(meter, { createCounter: { value: createCounter } }) as Meter;
  return { getMeter: () => counting };
}

/** The SDK's own messages, of its level WARN and above by default. Its errors are warnings here: they fail no call. */
function setDiagnostics(log: Logger, level = 'WARN'): void {
  const to =
    (name: 'warn' | 'info' | 'debug') =>
    (...parts: unknown[]) =>
      log[name]({ component: 'opentelemetry' }, parts.map(String).join(' '));
  diag.setLogger(
    { error: to('warn'), warn: to('warn'), info: to('info'), debug: to('debug'), verbose: to('debug') },
    {
      logLevel: DiagLogLevel[level.toUpperCase() as keyof typeof DiagLogLevel] ?? DiagLogLevel.WARN,
      suppressOverrideMessage: true,
    },
  );
}

function exportersOf(env: Env): readonly string[] {
  const names = (env.OTEL_TRACES_EXPORTER ?? '').split(',').map((name) => name.trim());
  const named = names.filter((name) => name !== '');
  return named.length === 0 ? ['otlp'] : named;
}

function isWanted(env: Env): boolean {
  if (env.OTEL_SDK_DISABLED?.trim().toLowerCase() === 'true') return false;
  if (exportersOf(env).includes('none')) return false;
  return Boolean(env.OTEL_TRACES_EXPORTER || env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT || env.OTEL_EXPORTER_OTLP_ENDPOINT);
}
