import type { ServerHttp2Session } from 'node:http2';
import type { Socket } from 'node:net';
import { Counter, Gauge, type Registry } from 'prom-client';

/** How long a client may take to say that it has read a GOAWAY. */
const acknowledgeTimeoutMs = 1_000;

/** GOAWAY with NO_ERROR and the highest stream id: every call that the client has begun is still served (RFC 9113, 6.8). */
const goawayFrame = Buffer.from([0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);

/** What a connection ended for. `client`: it left, or the network broke. */
const closeReasons = ['age', 'drain', 'client'] as const;

/** A session shows the properties of its socket, this one too, but lets nobody write to it. */
const connection = Symbol('connection');

interface Connection {
  reason: (typeof closeReasons)[number];
  readonly writeGoaway: () => void;
}

/** The HTTP/2 sessions of a server, counted, and sent away in an order in which no call is lost. */
export interface Sessions {
  /**
   * To be called for each socket before it becomes a session. To one of TLS nothing is written: behind Node's back two writes
   * at a time would end the process. Its session closes as grpc-js does it, which a client may have to answer with another try.
   */
  adopt(socket: Socket, options: { readonly isTls: boolean }): void;
  /** To be called for each call: a session counts from its first one. Undefined: it is gone already. */
  add(session: ServerHttp2Session | undefined): void;
  /**
   * Asks every client to connect anew for its next calls. Resolves once each has read it and all that it began before has
   * arrived, or after 1 s; from then on the sessions can be closed without losing a call.
   */
  sendGoaway(): Promise<void>;
}

/**
 * Ends sessions at about `maxAgeMs`, so that clients that know of no new replicas find them (gRFC A9). Node's own GOAWAY is no
 * use for it: once it is sent, nghttp2 stops to read while no call is in flight, and what was on its way is lost; grpc-js
 * (1.14) closes the session as well. Here a GOAWAY that takes nothing back is written to the socket behind Node's back (each
 * of its writes is whole frames), and the session closes when the client has acknowledged a ping that followed.
 */
export function createSessions({
  maxAgeMs,
  graceMs,
  registry,
}: {
  readonly maxAgeMs: number;
  readonly graceMs: number;
  readonly registry: Registry;
}): Sessions {
  const sessions = new Map<ServerHttp2Session, NodeJS.Timeout>();
  const open = new Set<Connection>();
  registry.registerMetric(
    new Gauge({
      name: 'tandem_server_open_connections',
      help: 'Connections of clients that are open',
      registers: [],
      collect() {
        this.set(open.size);
      },
    }),
  );
  const closed = new Counter({
    name: 'tandem_server_connections_closed_total',
    help: 'Connections that have closed, by why: age, drain, or client, which left',
    labelNames: ['reason'],
    registers: [registry],
  });
  for (const reason of closeReasons) closed.inc({ reason }, 0);

  async function retire(session: ServerHttp2Session): Promise<void> {
    await goaway(session, 'age');
    if (session.destroyed) return;
    session.close();
    sessions.set(session, setTimeout(() => session.destroy(), graceMs).unref());
  }

  return {
    adopt(socket, { isTls }) {
      const one: Connection = {
        reason: 'client',
        writeGoaway: () => void (isTls || socket.write(goawayFrame)),
      };
      Object.defineProperty(socket, connection, { value: one });
      open.add(one);
      socket.once('close', () => {
        open.delete(one);
        closed.inc({ reason: one.reason });
      });
    },
    add(session) {
      if (session === undefined || sessions.has(session) || session.closed || session.destroyed) return;
      // Spread, so that clients that came together do not come back together.
      const ageMs = maxAgeMs * (0.9 + 0.2 * Math.random());
      sessions.set(session, setTimeout(() => void retire(session), ageMs).unref());
      session.once('close', () => {
        clearTimeout(sessions.get(session));
        sessions.delete(session);
      });
    },
    async sendGoaway() {
      // Those that never had a call are no sessions, and go as well.
      for (const one of open) one.reason = 'drain';
      await Promise.all([...sessions.keys()].map((session) => goaway(session, 'drain')));
    },
  };
}

/** HTTP/2 keeps the order of frames: the answer to a ping behind the GOAWAY comes behind all that was sent before. */
function goaway(session: ServerHttp2Session, reason: Connection['reason']): Promise<void> {
  return new Promise((resolve) => {
    if (session.closed || session.destroyed) return resolve();
    const timer = setTimeout(resolve, acknowledgeTimeoutMs);
    const acknowledged = () => {
      clearTimeout(timer);
      resolve();
    };
    session.once('close', acknowledged);
    const one = (session.socket as Socket & { readonly [connection]: Connection })[connection];
    one.reason = reason;
    one.writeGoaway();
    // An error of the ping is that the session closes.
    session.ping(acknowledged);
  });
}
