import { createRequire } from 'node:module';
import { isSpanContextValid, trace } from '@opentelemetry/api';
import { type DestinationStream, destination, type Logger, pino, stdTimeFunctions } from 'pino';

export type { Level, Logger } from 'pino';

/** Named one by one: a wildcard would cost each line 8 µs. */
const secretPaths = ['', 'headers', 'metadata', 'req.headers'].flatMap((parent) => [
  ...['authorization', 'cookie'].map((key) => (parent === '' ? key : `${parent}.${key}`)),
  ...['proxy-authorization', 'set-cookie', 'x-api-key'].map((key) => `${parent}["${key}"]`),
]);

/**
 * The log of a program: a JSON object a line, or coloured text where `auto` finds a terminal. Times are ISO 8601, since
 * people read these lines too. Written synchronously, so that the last line before an exit is not lost. Its level can be
 * set while it runs, and its children follow.
 */
export function createLog(options: {
  readonly service: string;
  readonly podName: string;
  readonly level: string;
  readonly format: 'auto' | 'json' | 'pretty';
  readonly stdout: { readonly fd: number; readonly isTTY?: boolean };
}): Logger {
  const pretty = options.format === 'pretty' || (options.format === 'auto' && options.stdout.isTTY === true);
  const children: Logger[] = [];
  const log = pino(
    {
      level: options.level,
      base: { service: options.service, pod: options.podName },
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      mixin: activeSpan,
      redact: { paths: secretPaths, censor: '***' },
      onChild: (child) => void children.push(child as Logger),
    },
    pretty ? prettyStream(options.stdout) : destination({ fd: options.stdout.fd, sync: true }),
  );
  log.on('level-change', (level) => {
    // A child's change is heard here again.
    for (const child of children) if (child.level !== level) child.level = level;
  });
  return log;
}

/** Links a line to its trace. Without tracing there is never an active span. */
function activeSpan(): object {
  const context = trace.getActiveSpan()?.spanContext();
  if (context === undefined || !isSpanContextValid(context)) return {};
  return { trace_id: context.traceId, span_id: context.spanId };
}

/** Loaded here and not at the top: in production nothing needs it. */
function prettyStream(stdout: { readonly fd: number; readonly isTTY?: boolean }): DestinationStream {
  const { build } = createRequire(import.meta.url)('pino-pretty') as typeof import('pino-pretty');
  return build({
    destination: stdout.fd,
    sync: true,
    colorize: stdout.isTTY === true,
    translateTime: 'SYS:HH:MM:ss.l',
    ignore: 'service,pod',
    messageFormat: '{service} {msg}',
  });
}
