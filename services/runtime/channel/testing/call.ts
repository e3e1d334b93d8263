import type { Call, CallObserver, Caller, CallStart, CallStatus, Metadata, Method } from '../../call/call.ts';
import { codeName } from '../../call/status.ts';

/** A call that records what comes back, in order. */
export interface RecordedCall {
  readonly call: Call;
  /** `headers`, `message <text>` (the first ten), `writable`, `status <NAME>`. */
  readonly log: readonly string[];
  readonly headers: Metadata;
  readonly endpointId: string;
  readonly messages: number;
  readonly status: Promise<CallStatus>;
}

export function startCall(caller: Caller, method: Method, overrides: Partial<CallStart> = {}): RecordedCall {
  const recorder = new Recorder();
  recorder.call = caller.start(
    {
      method,
      metadata: [],
      deadlineMs: Number.POSITIVE_INFINITY,
      priority: 'high',
      context: undefined,
      avoid: [],
      ...overrides,
    },
    recorder,
  );
  return recorder as Recorder & { call: Call };
}

class Recorder implements CallObserver {
  call: Call | undefined;
  readonly log: string[] = [];
  headers: Metadata = [];
  endpointId = '';
  messages = 0;
  readonly status: Promise<CallStatus>;
  private readonly ended = Promise.withResolvers<CallStatus>();

  constructor() {
    this.status = this.ended.promise;
  }

  onHeaders(metadata: Metadata, endpointId: string): void {
    this.log.push('headers');
    this.headers = metadata;
    this.endpointId = endpointId;
  }

  onMessage(message: Uint8Array): void {
    this.messages++;
    if (this.messages <= 10) this.log.push(`message ${Buffer.from(message).toString()}`);
  }

  onWritable(): void {
    this.log.push('writable');
  }

  onStatus(status: CallStatus): void {
    this.log.push(`status ${codeName(status.code)}`);
    this.ended.resolve(status);
  }
}
