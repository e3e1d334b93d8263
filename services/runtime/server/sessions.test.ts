import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { test } from 'node:test';
import * as grpc from '@grpc/grpc-js';
import { eventually, startServer } from './testing.ts';

const path = '/helloworld.Greeter/SayHello';
const greetings = { SayHello: async () => ({ message: 'Hello' }) };
const frameTypes = { data: 0, headers: 1, settings: 4, ping: 6, goaway: 7 };
const endStream = 1;
const endHeaders = 4;
const ack = 1;

/**
 * A client that speaks HTTP/2 by hand: Node's own stops as soon as it has read a GOAWAY, and this one calls once more, as if
 * the call had been on its way. Resolves with whether that call was answered.
 */
async function callBehindGoaway(port: number): Promise<boolean> {
  const socket = net.connect(port, '127.0.0.1');
  await once(socket, 'connect');
  socket.on('error', () => {});
  socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
  socket.write(frame(frameTypes.settings, 0, 0));
  socket.write(call(1));
  const answered = new Set<number>();
  let calledAgain = false;
  let buffered = Buffer.alloc(0);
  // A call that is refused at once would leave it waiting.
  socket.setTimeout(5_000, () => socket.destroy());
  for await (const chunk of socket) {
    buffered = Buffer.concat([buffered, chunk]);
    while (buffered.length >= 9 && buffered.length >= 9 + buffered.readUIntBE(0, 3)) {
      const size = 9 + buffered.readUIntBE(0, 3);
      const [type, flags, stream] = [buffered[3], buffered[4] ?? 0, buffered.readUInt32BE(5)];
      const payload = buffered.subarray(9, size);
      buffered = buffered.subarray(size);
      if (type === frameTypes.headers && (flags & endStream) !== 0) answered.add(stream);
      if (type === frameTypes.goaway && !calledAgain) {
        calledAgain = true;
        socket.write(call(3));
      }
      // In the order in which it came: behind the call.
      if (type === frameTypes.ping && (flags & ack) === 0) socket.write(frame(frameTypes.ping, ack, 0, payload));
    }
  }
  return answered.has(3);
}

function call(stream: number): Buffer {
  const headers = { ':method': 'POST', ':scheme': 'http', ':authority': 'localhost', ':path': path, te: 'trailers' };
  const block = Object.entries({ ...headers, 'content-type': 'application/grpc' }).flatMap(([name, value]) => [
    // HPACK: a literal that is not indexed.
    Buffer.from([0, name.length]),
    Buffer.from(name),
    Buffer.from([value.length]),
    Buffer.from(value),
  ]);
  const emptyMessage = Buffer.alloc(5);
  return Buffer.concat([
    frame(frameTypes.headers, endHeaders, stream, Buffer.concat(block)),
    frame(frameTypes.data, endStream, stream, emptyMessage),
  ]);
}

function frame(type: number, flags: number, stream: number, payload = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

test('a connection at its age still answers what was on its way', async () => {
  await using fixture = await startServer(greetings, { maxConnectionAgeMs: 50 });
  assert.equal(await callBehindGoaway(fixture.port), true);
});

test('so does a server that finishes', async () => {
  await using fixture = await startServer(greetings);
  const answered = callBehindGoaway(fixture.port);
  await eventually(() => assert.equal(fixture.server.counters()[path.slice(1)]?.ok, 1));
  await fixture.server.finish();
  assert.equal(await answered, true);
});

test('control: grpc-js alone leaves it unanswered', async (t) => {
  const server = new grpc.Server({ 'grpc.max_connection_age_ms': 50 });
  const same = (bytes: Buffer) => bytes;
  const codec = {
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  };
  server.addService(
    { SayHello: { path, requestStream: false, responseStream: false, ...codec } },
    { SayHello: (_call: unknown, reply: grpc.sendUnaryData<Buffer>) => reply(null, Buffer.alloc(0)) },
  );
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  t.after(() => server.forceShutdown());
  assert.equal(await callBehindGoaway(port), false);
});

test('connections are counted, and what they ended for', async () => {
  await using fixture = await startServer(greetings, { maxConnectionAgeMs: 50 });
  const counts = async () => {
    const text = await fixture.registry.metrics();
    const read = (sample: string) => Number(new RegExp(`^tandem_server_${sample} (\\d+)$`, 'm').exec(text)?.[1]);
    const closed = (reason: string) => read(`connections_closed_total\\{reason="${reason}"\\}`);
    return { open: read('open_connections'), age: closed('age'), drain: closed('drain'), client: closed('client') };
  };
  const becomes = (expected: object) => eventually(async () => assert.deepEqual(await counts(), expected));
  const silent = () => net.connect(fixture.port, '127.0.0.1').resume();
  const leaves = silent();
  silent();
  await becomes({ open: 2, age: 0, drain: 0, client: 0 });
  leaves.destroy();
  await becomes({ open: 1, age: 0, drain: 0, client: 1 });
  await callBehindGoaway(fixture.port);
  await becomes({ open: 1, age: 1, drain: 0, client: 1 });
  // One that says nothing does not hold it up.
  const startedMs = performance.now();
  await fixture.server.finish();
  assert.ok(performance.now() - startedMs < 5_000);
  await becomes({ open: 0, age: 1, drain: 1, client: 1 });
});

test('a client that acknowledges nothing holds a finishing server up for a second at most', async (t) => {
  const fixture = await startServer(greetings);
  t.after(() => fixture[Symbol.asyncDispose]());
  const socket = net.connect(fixture.port, '127.0.0.1').resume();
  t.after(() => socket.destroy());
  socket.write(
    Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(frameTypes.settings, 0, 0), call(1)]),
  );
  await eventually(() => assert.equal(fixture.server.counters()[path.slice(1)]?.ok, 1));
  const startedMs = performance.now();
  await fixture.server.finish();
  t.diagnostic(`finished after ${Math.round(performance.now() - startedMs)} ms`);
  assert.ok(performance.now() - startedMs < 5_000);
});
