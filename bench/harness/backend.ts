import { createServer, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';
import process from 'node:process';

/*
 * node bench/harness/backend.ts, with REPLICAS (3)
 *
 * Replicas of `helloworld.Greeter` on so many ports of one process, for as little as Node's own parts allow: it is the
 * gateway that is measured. Tells `{"port":…,"replica0":…,"replica1":…}`.
 */
const replicas = Number(process.env['REPLICAS'] ?? 3);
const replyHead = { ':status': 200, 'content-type': 'application/grpc+proto' };
const serving = Buffer.from([0, 0, 0, 0, 2, 0x08, 1]);

const ports = await Promise.all(Array.from({ length: replicas }, listen));
process.stdout.write(
  `${JSON.stringify({ port: ports[0], ...Object.fromEntries(ports.map((port, index) => [`replica${index}`, port])) })}\n`,
);
process.once('SIGTERM', () => process.exit());

function listen(): Promise<number> {
  const server = createServer({ settings: { maxConcurrentStreams: 10_000 } });
  server.on('stream', answer);
  const { promise, resolve } = Promise.withResolvers<number>();
  server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port));
  return promise;
}

function answer(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
  stream.on('error', () => {}); // A caller that left.
  const { ':path': path = '' } = headers;
  if (path === '/grpc.health.v1.Health/Watch') {
    // It stays open, as long as its caller is there.
    stream.respond(replyHead, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.close());
    return void stream.write(serving);
  }
  let request: Buffer | undefined;
  stream.on('data', (chunk: Buffer) => {
    request = request === undefined ? chunk : Buffer.concat([request, chunk]);
  });
  stream.on('end', () => {
    stream.respond(replyHead, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    const name = nameIn(request);
    if (path.endsWith('/SayHello')) return void stream.end(greeting(name));
    if (path.endsWith('/SayHelloStreamReply')) return writeMany(stream, greeting(name), countIn(request));
    // Health, asked once.
    stream.end(serving);
  });
}

function writeMany(stream: ServerHttp2Stream, frame: Buffer, count: number): void {
  let left = count;
  const write = () => {
    while (left > 0 && !stream.destroyed) {
      left--;
      if (left === 0) return void stream.end(frame);
      if (!stream.write(frame)) return void stream.once('drain', write);
    }
  };
  write();
}

/** `string name = 1` of the first message, shorter than 128 bytes. */
function nameIn(frame: Buffer | undefined): Buffer {
  if (frame === undefined || frame[5] !== 0x0a) return Buffer.alloc(0);
  return frame.subarray(7, 7 + (frame[6] ?? 0));
}

/** `int32 reply_count = 2` behind the name. Defaults to 10. */
function countIn(frame: Buffer | undefined): number {
  if (frame === undefined) return 10;
  let at = frame[5] === 0x0a ? 7 + (frame[6] ?? 0) : 5;
  if (frame[at] !== 0x10) return 10;
  let value = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = frame[++at] ?? 0;
    value |= (byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
}

/** `string message = 1` in a frame of gRPC. */
function greeting(name: Buffer): Buffer {
  const length = 6 + name.length;
  const frame = Buffer.allocUnsafe(7 + length);
  frame[0] = 0;
  frame.writeUInt32BE(2 + length, 1);
  frame[5] = 0x0a;
  frame[6] = length;
  frame.write('Hello ', 7, 'latin1');
  name.copy(frame, 13);
  return frame;
}
