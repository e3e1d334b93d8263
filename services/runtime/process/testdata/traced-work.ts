// A program that makes spans, as many as SPANS says, each in one before it; prints what it loaded of OpenTelemetry, logs
// from inside the first, and tells at the end what was dropped.
import { registerHooks } from 'node:module';
import { trace } from '@opentelemetry/api';
import { createLog } from '../log.ts';
import { startTracing } from '../tracing.ts';

const loaded = new Set<string>();
registerHooks({
  resolve(specifier, context, next) {
    loaded.add(specifier);
    return next(specifier, context);
  },
});

const log = createLog({ service: 'fixture', podName: 'pod-1', level: 'info', format: 'json', stdout: process.stdout });
const tracing = await startTracing({ env: process.env, service: 'fixture', podName: 'pod-1', log });
log.info({ enabled: tracing.enabled, sdk: loaded.has('@opentelemetry/sdk-node') }, 'started');

const tracer = trace.getTracer('fixture');
tracer.startActiveSpan('outer', (span) => {
  log.info('working');
  for (let i = 1; i < Number(process.env.SPANS ?? 2); i++) tracer.startSpan('inner').end();
  span.end();
});

const stopStartedMs = performance.now();
await tracing.stop();
log.info({ stopMs: performance.now() - stopStartedMs, dropped: Object.fromEntries(tracing.dropped) }, 'stopped');
process.exit(0);
