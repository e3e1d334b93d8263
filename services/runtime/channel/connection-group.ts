import type { Call, CallObserver, CallStart, Connection, ConnectionState, Endpoint, Transport } from '../call/call.ts';

/** Makes of a transport one that opens `size` connections to each endpoint and shares its calls out among them. */
export function createConnectionGroups(transport: Transport, size: number): Transport {
  if (size === 1) return transport;
  return (endpoint, onState) => new ConnectionGroup(transport, size, endpoint, onState);
}

/** The best state that one of the members has is the state of the group. */
const bestFirst: readonly ConnectionState[] = ['READY', 'CONNECTING', 'IDLE', 'TRANSIENT_FAILURE', 'SHUTDOWN'];

class ConnectionGroup implements Connection {
  readonly endpoint: Endpoint;
  private readonly first: Connection;
  private readonly members: readonly Connection[];
  private lastState: ConnectionState = 'IDLE';

  constructor(transport: Transport, size: number, endpoint: Endpoint, onState: (state: ConnectionState) => void) {
    this.endpoint = endpoint;
    const connect = () =>
      transport(endpoint, () => {
        if (this.state === this.lastState) return;
        this.lastState = this.state;
        onState(this.lastState);
      });
    this.first = connect();
    this.members = [this.first, ...Array.from({ length: size - 1 }, connect)];
  }

  get state(): ConnectionState {
    return bestFirst.find((state) => this.members.some((member) => member.state === state)) ?? 'IDLE';
  }

  get lastError(): string {
    return this.members.find(({ lastError }) => lastError !== '')?.lastError ?? '';
  }

  get inFlight(): number {
    return this.members.reduce((sum, { inFlight }) => sum + inFlight, 0);
  }

  start(start: CallStart, observer: CallObserver): Call {
    let best: Connection | undefined;
    for (const member of this.members) {
      if (member.state !== 'READY') continue;
      if (best === undefined || member.inFlight < best.inFlight) best = member;
    }
    // The group was picked as ready a moment ago: the first member says what has become of it.
    return (best ?? this.first).start(start, observer);
  }

  close(graceMs: number): void {
    for (const member of this.members) member.close(graceMs);
  }
}
