/**
 * node:http and node:http2 with the frames of gRPC made by hand: the limit of Node's own parts.
 *
 * Has: a session for each backend, in turn, opened again once it has closed; a deadline; an HTTP status for a failed call.
 * Has not: anything else of a gRPC client, such as waiting for a connection, retries or compression.
 */
import { createServer, type ServerResponse } from 'node:http';
import { type ClientHttp2Session, connect, constants, type IncomingHttpHeaders } from 'node:http2';
import type { AddressInfo } from 'node:net';

const { BACKENDS = '127.0.0.1:50051' } = process.env;
const prefix = '/v1/hello/';
const timeoutMs = 2_000;
const headerBytes = 5;

/** As a list of names and values, which Node sends as it is. */
const requestHeaders = Object.entries({
  ':method': 'POST',
  ':scheme': 'http',
  ':authority': 'greeter',
  ':path': '/helloworld.Greeter/SayHello',
  'content-type': 'application/grpc',
  te: 'trailers',
  'grpc-timeout': `${timeoutMs}m`,
}).flat();

const backends = BACKENDS.split(',');
const sessions: (ClientHttp2Session | undefined)[] = backends.map(() => undefined);
let turn = 0;

function nextSession(): ClientHttp2Session {
  const index = turn++ % backends.length;
  const session = sessions[index];
  if (session && !session.closed && !session.destroyed) return session;
  const opened = connect(`http://${backends[index]}`);
  opened.on('error', () => {}); // its streams tell
  return (sessions[index] = opened);
}

const server = createServer((request, response) => {
  const { method, url = '' } = request;
  if (method !== 'GET' || !url.startsWith(prefix)) {
    reply(response, 404, '{"error":"not found"}');
    return;
  }
  let name: string;
  try {
    name = decodeURIComponent(url.slice(prefix.length));
  } catch {
    reply(response, 400, '{"error":"malformed path"}');
    return;
  }
  sayHello(name, response);
});

function sayHello(name: string, response: ServerResponse): void {
  const stream = nextSession().request(requestHeaders);
  let received: Buffer | undefined;
  let grpcStatus = '';
  let timedOut = false;
  const readStatus = (headers: IncomingHttpHeaders) => {
    grpcStatus = (headers['grpc-status'] as string | undefined) ?? grpcStatus;
  };
  stream.setTimeout(timeoutMs, () => {
    timedOut = true;
    stream.close(constants.NGHTTP2_CANCEL);
  });
  stream.on('response', readStatus); // a call that fails at once has its trailers there
  stream.on('trailers', readStatus);
  stream.on('data', (chunk: Buffer) => {
    received = received === undefined ? chunk : Buffer.concat([received, chunk]);
  });
  stream.on('end', () => {
    if (grpcStatus === '0' && received !== undefined) reply(response, 200, JSON.stringify(decodeReply(received)));
  });
  stream.on('error', () => {}); // 'close' follows
  stream.on('close', () => {
    if (response.headersSent) return;
    if (timedOut || grpcStatus === '4') reply(response, 504, '{"error":"deadline exceeded"}');
    else if (grpcStatus === '' || grpcStatus === '14') reply(response, 503, '{"error":"unavailable"}');
    else reply(response, 500, '{"error":"failed"}');
  });
  stream.end(encodeRequest(name));
}

function reply(response: ServerResponse, code: number, body: string): void {
  response.writeHead(code, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }).end(body);
}

/** The frame of a `HelloRequest`: a flag, the length in 4 bytes, then field 1 with its length as a varint. */
function encodeRequest(name: string): Buffer {
  const nameBytes = Buffer.byteLength(name);
  const messageBytes = 1 + varintBytes(nameBytes) + nameBytes;
  const frame = Buffer.allocUnsafe(headerBytes + messageBytes);
  frame[0] = 0;
  frame.writeUInt32BE(messageBytes, 1);
  frame[headerBytes] = 0x0a;
  let at = headerBytes + 1;
  let rest = nameBytes;
  for (; rest > 0x7f; rest >>>= 7) frame[at++] = (rest & 0x7f) | 0x80;
  frame[at++] = rest;
  frame.write(name, at);
  return frame;
}

function varintBytes(value: number): number {
  let bytes = 1;
  for (let rest = value >>> 7; rest > 0; rest >>>= 7) bytes++;
  return bytes;
}

/** The frame of a `HelloReply`: field 1. */
function decodeReply(frame: Buffer): { message: string } {
  if (frame[headerBytes] !== 0x0a) return { message: '' };
  let at = headerBytes + 1;
  let length = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = frame[at++] ?? 0;
    length |= (byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  return { message: frame.toString('utf8', at, at + length) };
}

server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: (server.address() as AddressInfo).port })));
