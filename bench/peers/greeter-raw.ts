/**
 * A greeter on node:http2 by hand: the limit of Node's own parts.
 *
 * Has: both calls, backpressure of the stream, frames that come in pieces. Has not: anything else of a gRPC server, such
 * as deadlines, compression, errors of handlers or reply_interval.
 */
import { constants, createServer, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';

const replyHeaders = { ':status': 200, 'content-type': 'application/grpc' };
const trailers = { 'grpc-status': '0' };
const unimplemented = { ...replyHeaders, 'grpc-status': '12' };
const headerBytes = 5;

const server = createServer();
server.on('stream', (stream, { ':path': path }) => {
  // A client that goes resets its stream: that is no error of ours.
  stream.on('error', () => {});
  if (path === '/helloworld.Greeter/SayHello') onRequest(stream, sayHello);
  else if (path === '/helloworld.Greeter/SayHelloStreamReply') onRequest(stream, sayHelloStreamReply);
  else stream.respond(unimplemented, { endStream: true });
});

interface Request {
  readonly name: string;
  readonly replyCount: number;
}

function onRequest(stream: ServerHttp2Stream, handle: (stream: ServerHttp2Stream, request: Request) => void): void {
  let received: Buffer | undefined;
  stream.on('data', (chunk: Buffer) => {
    received = received === undefined ? chunk : Buffer.concat([received, chunk]);
  });
  stream.on('end', () => {
    if (received === undefined || received.length < headerBytes) stream.close(constants.NGHTTP2_PROTOCOL_ERROR);
    else handle(stream, decodeRequest(received));
  });
}

function sayHello(stream: ServerHttp2Stream, { name }: Request): void {
  stream.respond(replyHeaders, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers(trailers));
  stream.end(encodeReply(`Hello ${name}`));
}

function sayHelloStreamReply(stream: ServerHttp2Stream, { name, replyCount }: Request): void {
  stream.respond(replyHeaders, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers(trailers));
  const message = `Hello ${name}`;
  let left = replyCount || 10;
  const send = () => {
    while (left > 0 && !stream.destroyed) {
      left--;
      if (!stream.write(encodeReply(message)) && left > 0) {
        stream.once('drain', send);
        return;
      }
    }
    stream.end();
  };
  send();
}

/** The frame of a `HelloReply`: a flag, the length in 4 bytes, then field 1 with its length as a varint. */
function encodeReply(message: string): Buffer {
  const textBytes = Buffer.byteLength(message);
  const lengthBytes = varintBytes(textBytes);
  const frame = Buffer.allocUnsafe(headerBytes + 1 + lengthBytes + textBytes);
  frame[0] = 0;
  frame.writeUInt32BE(1 + lengthBytes + textBytes, 1);
  frame[headerBytes] = 0x0a;
  let at = headerBytes + 1;
  for (let rest = textBytes; ; rest >>>= 7) {
    if (rest < 0x80) {
      frame[at++] = rest;
      break;
    }
    frame[at++] = (rest & 0x7f) | 0x80;
  }
  frame.write(message, at);
  return frame;
}

function varintBytes(value: number): number {
  let bytes = 1;
  for (let rest = value >>> 7; rest > 0; rest >>>= 7) bytes++;
  return bytes;
}

/** `HelloRequest` is on the wire a `HelloStreamRequest` without its other fields: name = 1, reply_count = 2. */
function decodeRequest(frame: Buffer): Request {
  let name = '';
  let replyCount = 0;
  let at = headerBytes;
  const varint = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = frame[at++] ?? 0;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < frame.length) {
    const tag = varint();
    const value = varint(); // a length or, of reply_count, the value
    if (tag === 0x10) {
      replyCount = value;
      continue;
    }
    if (tag === 0x0a) name = frame.toString('utf8', at, at + value);
    at += value;
  }
  return { name, replyCount };
}

server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: (server.address() as AddressInfo).port })));
