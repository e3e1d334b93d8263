import type { Call, CallObserver, CallStart, CallStatus, Connection, ConnectionState } from '../../call/call.ts';
import { localStatus } from '../../call/status.ts';

/**
 * A connection whose answers a test gives by hand: a stand-in for a transport, where the test is about the order of
 * events that no real peer can be made to keep.
 */
export class ScriptedConnection implements Connection {
  readonly endpoint;
  state: ConnectionState = 'READY';
  lastError = '';
  inFlight = 0;
  readonly calls: ScriptedCall[] = [];

  constructor(id: string) {
    this.endpoint = { id, addresses: [id] };
  }

  start(start: CallStart, observer: CallObserver): Call {
    const call = new ScriptedCall(this.endpoint.id, start, observer);
    this.calls.push(call);
    return call;
  }

  close(): void {
    this.state = 'SHUTDOWN';
  }
}

export class ScriptedCall implements Call {
  readonly start: CallStart;
  readonly written: string[] = [];
  requested = 0;
  requestEnded = false;
  cancelled = false;
  writable = true;
  private readonly endpointId: string;
  private readonly observer: CallObserver;

  constructor(endpointId: string, start: CallStart, observer: CallObserver) {
    this.endpointId = endpointId;
    this.start = start;
    this.observer = observer;
  }

  request(messages: number): void {
    this.requested += messages;
  }

  write(message: Uint8Array, end: boolean): boolean {
    this.written.push(Buffer.from(message).toString());
    if (end) this.requestEnded = true;
    return this.writable;
  }

  end(): void {
    this.requestEnded = true;
  }

  cancel(code: number, details: string): void {
    this.cancelled = true;
    queueMicrotask(() => this.observer.onStatus(localStatus(code, details, 'maybe')));
  }

  headers(text: string): void {
    this.observer.onHeaders([['x-text', text]], this.endpointId);
  }

  message(text: string): void {
    this.observer.onMessage(Buffer.from(text));
  }

  becomeWritable(): void {
    this.observer.onWritable();
  }

  ends(status: Partial<CallStatus> & { readonly code: number }): void {
    this.observer.onStatus({ details: '', trailers: [], from: 'peer', seenByPeer: 'maybe', ...status });
  }
}
