import { once } from 'node:events';
import http2 from 'node:http2';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';

export const replyHeaders = { ':status': 200, 'content-type': 'application/grpc+proto' };
export const end = { endStream: true };

export function replyWith(text: string): (stream: http2.ServerHttp2Stream) => void {
  return (stream) => {
    stream.respond(replyHeaders, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    stream.end(frame(text));
  };
}

/** One gRPC message on the wire: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md */
export function frame(text: string): Buffer {
  const body = Buffer.from(text);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}

export function onMessages(stream: http2.ServerHttp2Stream, onMessage: (text: string) => void): void {
  let buffered = Buffer.alloc(0);
  stream.on('data', (chunk: Buffer) => {
    buffered = Buffer.concat([buffered, chunk]);
    while (buffered.length >= 5 && buffered.length >= 5 + buffered.readUInt32BE(1)) {
      const size = 5 + buffered.readUInt32BE(1);
      onMessage(buffered.subarray(5, size).toString());
      buffered = buffered.subarray(size);
    }
  });
}

export interface Peer {
  readonly address: string;
  readonly port: number;
  readonly requests: { path: string; headers: http2.IncomingHttpHeaders; body: string }[];
  /** Open connections. */
  readonly sessions: number;
  readonly sessionsEver: number;
  stop(): Promise<void>;
}

export async function startPeer(
  t: TestContext,
  handle: (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => unknown,
  {
    host = '127.0.0.1',
    port = 0,
    reads = true,
    maxConcurrentStreams = 1_000,
    tls = undefined as http2.SecureServerOptions | undefined,
  } = {},
): Promise<Peer> {
  const sessions = new Set<http2.ServerHttp2Session>();
  let sessionsEver = 0;
  const requests: Peer['requests'] = [];
  const options = { settings: { maxConcurrentStreams } };
  const server = tls ? http2.createSecureServer({ ...options, ...tls }) : http2.createServer(options);
  server.on('session', (session) => {
    sessions.add(session);
    sessionsEver++;
    session.on('close', () => sessions.delete(session));
    session.on('error', () => {});
  });
  server.on('stream', (stream, headers) => {
    const request = { path: String(headers[':path']), headers, body: '' };
    requests.push(request);
    stream.on('error', () => {});
    if (reads) {
      onMessages(stream, (text) => {
        request.body += text;
      });
    }
    handle(stream, headers);
  });
  server.listen(port, host);
  await once(server, 'listening');
  const bound = (server.address() as AddressInfo).port;
  const stop = async () => {
    if (!server.listening) return;
    for (const session of sessions) session.destroy();
    server.close();
    await once(server, 'close');
  };
  t.after(stop);
  return {
    address: `127.0.0.1:${bound}`,
    port: bound,
    requests,
    get sessions() {
      return sessions.size;
    },
    get sessionsEver() {
      return sessionsEver;
    },
    stop,
  };
}
