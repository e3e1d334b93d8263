import { DiagLogLevel, diag } from '@opentelemetry/api';
import type { Logger } from './log.ts';

/** How long `stop()` waits for the last spans to leave. */
const stopTimeoutMs = 5_000;

export interface Tracing {
  readonly enabled: boolean;
  /** Sends the spans that are left, within 5 seconds. Never rejects. */
  stop(): Promise<void>;
}

/**
 * Starts OpenTelemetry if the standard variables ask for it: an OTLP endpoint or an exporter is named, and neither
 * `OTEL_SDK_DISABLED=true` nor `OTEL_TRACES_EXPORTER=none`. Otherwise nothing of the SDK is loaded. Must have resolved before
 * anything imports `@grpc/grpc-js`. `env` must be `process.env`, which the SDK reads by itself: exporters, sampler (by default
 * all traces, following the parent), limits and propagators (by default W3C) are as the variables say.
 * https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
 */
export async function startTracing(options: {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly service: string;
  readonly podName: string;
  /** Told what the SDK has to say, such as a collector that cannot be reached. */
  readonly log?: Logger;
}): Promise<Tracing> {
  if (!isWanted(options.env)) return { enabled: false, stop: async () => {} };

  const { register } = await import('import-in-the-middle/register-hooks.mjs');
  register({ include: ['@grpc/grpc-js'] });
  const { NodeSDK } = await import('@opentelemetry/sdk-node');
  const { GrpcInstrumentation } = await import('@opentelemetry/instrumentation-grpc');
  const { defaultResource, envDetector, resourceFromAttributes } = await import('@opentelemetry/resources');
  const sdk = new NodeSDK({
    instrumentations: [new GrpcInstrumentation()],
    // What the environment says of the resource is detected after this, and wins.
    resource: defaultResource().merge(
      resourceFromAttributes({ 'service.name': options.service, 'service.instance.id': options.podName }),
    ),
    resourceDetectors: [envDetector],
    // Metrics are Prometheus's and logs are pino's.
    metricReaders: [],
    logRecordProcessors: [],
  });
  if (options.log !== undefined) setDiagnostics(options.log, options.env.OTEL_LOG_LEVEL);
  sdk.start();
  return {
    enabled: true,
    async stop() {
      const timeout = Promise.withResolvers<never>();
      const timer = setTimeout(() => timeout.reject(new Error(`timed out after ${stopTimeoutMs} ms`)), stopTimeoutMs);
      try {
        await Promise.race([sdk.shutdown(), timeout.promise]);
      } catch (error) {
        options.log?.warn({ err: error }, 'the last spans could not be sent');
      }
      clearTimeout(timer);
    },
  };
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

function isWanted(env: Readonly<Record<string, string | undefined>>): boolean {
  if (env.OTEL_SDK_DISABLED?.trim().toLowerCase() === 'true') return false;
  const exporters = env.OTEL_TRACES_EXPORTER?.split(',').map((name) => name.trim());
  if (exporters?.includes('none')) return false;
  return Boolean(env.OTEL_TRACES_EXPORTER || env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT || env.OTEL_EXPORTER_OTLP_ENDPOINT);
}
