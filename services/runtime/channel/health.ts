import type { Call, CallStart, Connection, Method } from '../call/call.ts';
import { Code } from '../call/status.ts';
import type { Health } from './events.ts';

const watchStart = startOf({
  path: '/grpc.health.v1.Health/Watch',
  requestStream: false,
  responseStream: true,
  idempotency: 'NO_SIDE_EFFECTS',
});

const checkStart = startOf({
  path: '/grpc.health.v1.Health/Check',
  requestStream: false,
  responseStream: false,
  idempotency: 'NO_SIDE_EFFECTS',
});

function startOf(method: Method): CallStart {
  return {
    method,
    metadata: [],
    deadlineMs: Number.POSITIVE_INFINITY,
    priority: 'high',
    context: undefined,
    avoid: [],
  };
}

const firstBackoffMs = 1_000;
const maxBackoffMs = 30_000;

/**
 * Watches the health service of one connection for as long as it is READY (gRFC A17). A server without the service,
 * which answers UNIMPLEMENTED, counts as serving. A Watch that ends otherwise is not serving until the next one answers.
 */
export class HealthWatch {
  private readonly connection: Connection;
  private readonly request: Uint8Array;
  private readonly onHealth: (health: Health) => void;
  private call: Call | undefined;
  private timer: NodeJS.Timeout | undefined;
  private backoffMs = firstBackoffMs;
  private stopped = false;

  /** `onHealth` never runs inside the constructor. */
  constructor(connection: Connection, serviceName: string, onHealth: (health: Health) => void) {
    this.connection = connection;
    this.request = encodeHealthCheckRequest(serviceName);
    this.onHealth = onHealth;
    this.watch();
  }

  get isOpen(): boolean {
    return this.call !== undefined;
  }

  /** Cancels the Watch, which would hold up the server's drain. */
  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
    this.call?.cancel(Code.CANCELLED, 'the connection is not in use');
  }

  private watch(): void {
    this.call = this.connection.start(watchStart, {
      onHeaders: () => {},
      onMessage: (message) => {
        if (this.stopped) return;
        this.backoffMs = firstBackoffMs;
        this.onHealth(isServing(message) ? 'serving' : 'not-serving');
        this.call?.request(1);
      },
      onWritable: () => {},
      onStatus: ({ code }) => {
        this.call = undefined;
        if (this.stopped) return;
        if (code === Code.UNIMPLEMENTED) return this.onHealth('serving');
        this.onHealth('not-serving');
        this.timer = setTimeout(() => this.watch(), this.backoffMs * (0.8 + 0.4 * Math.random()));
        this.timer.unref();
        this.backoffMs = Math.min(this.backoffMs * 1.6, maxBackoffMs);
      },
    });
    this.call.request(1);
    this.call.write(this.request, true);
  }
}

/** Whether the peer gives any answer to a health Check within that time; UNIMPLEMENTED is one. */
export function answers(connection: Connection, timeoutMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const call = connection.start(
      { ...checkStart, deadlineMs: performance.now() + timeoutMs },
      {
        onHeaders: () => {},
        onMessage: () => {},
        onWritable: () => {},
        onStatus: ({ from }) => resolve(from === 'peer'),
      },
    );
    call.request(1);
    call.write(encodeHealthCheckRequest(''), true);
  });
}

/** `grpc.health.v1.HealthCheckRequest { string service = 1 }` */
function encodeHealthCheckRequest(serviceName: string): Uint8Array {
  const name = Buffer.from(serviceName);
  if (name.length > 127) throw new Error(`health service name of ${name.length} bytes must be <= 127`);
  return Buffer.concat([Buffer.from([0x0a, name.length]), name]);
}

/** `grpc.health.v1.HealthCheckResponse { ServingStatus status = 1 }`, SERVING = 1. */
function isServing(message: Uint8Array): boolean {
  return message.length === 2 && message[0] === 0x08 && message[1] === 1;
}
