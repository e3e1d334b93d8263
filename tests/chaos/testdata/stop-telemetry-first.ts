import { trace } from '@opentelemetry/api';

// Preloaded into a program, it makes of it one whose telemetry ends with the signal to stop, as with an SDK that listens
// to the signal by itself. A listener would not do: the program removes those of others.
const emit = process.emit.bind(process) as (...event: unknown[]) => boolean;
process.emit = ((...event: unknown[]) => {
  if (event[0] === 'SIGTERM') {
    const provider = trace.getTracerProvider() as { getDelegate?(): { shutdown?(): Promise<void> } };
    void provider.getDelegate?.().shutdown?.();
  }
  return emit(...event);
}) as typeof process.emit;
