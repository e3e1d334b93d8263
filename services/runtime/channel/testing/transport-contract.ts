import assert from 'node:assert/strict';
import { once } from 'node:events';
import http2 from 'node:http2';
import net, { type AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import type { Metadata, Method, Transport } from '../../call/call.ts';
import { getBytes, getText } from '../../call/metadata.ts';
import { Code } from '../../call/status.ts';
import { startCall } from './call.ts';
import { end, frame, onMessages, replyHeaders, replyWith, startPeer } from './http2-peer.ts';
import { settled, until } from './until.ts';

/** Fast settings, so that the suite does not wait for production's timeouts. */
export interface ContractTimeouts {
  readonly silentAcceptTimeoutMs: number;
  readonly maxReconnectBackoffMs: number;
}

const graceMs = 5_000;

/**
 * What every transport keeps, over real sockets against an HTTP/2 peer that speaks gRPC's frames by hand, so that it
 * can misbehave in each way that a replica can.
 */
export function transportContract(name: string, createTransport: (timeouts: ContractTimeouts) => Transport): void {
  const transport = createTransport({ silentAcceptTimeoutMs: 200, maxReconnectBackoffMs: 200 });
  const contract = (promise: string, run: (t: TestContext) => Promise<void>) => {
    void test(`${name}: ${promise}`, { timeout: 20_000 }, run);
  };

  contract('brings headers, one message and the status with trailers, in this order', async (t) => {
    const peer = await startPeer(t, (stream) => {
      stream.respond({ ...replyHeaders, 'served-by': 'a', 'x-bytes-bin': 'AQI=' }, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0', 'x-end': 'yes' }));
      stream.end(frame('pong'));
    });
    const connection = await connect(t, transport, peer.address);
    const call = startCall(connection, unary);
    assert.deepEqual(call.log, [], 'nothing is called inside start()');
    call.call.request(1);
    call.call.write(Uint8Array.from(Buffer.from('ping')), true);
    const status = await call.status;
    assert.deepEqual(call.log, ['headers', 'message pong', 'status OK']);
    assert.equal(getText(call.headers, 'served-by'), 'a');
    assert.deepEqual([...(getBytes(call.headers, 'x-bytes-bin') ?? [])], [1, 2]);
    assert.equal(call.endpointId, peer.address);
    assert.equal(getText(status.trailers, 'x-end'), 'yes');
    assert.deepEqual([peer.requests[0]?.path, peer.requests[0]?.body], ['/contract.Service/Unary', 'ping']);
  });

  contract('sends metadata and the deadline', async (t) => {
    const peer = await startPeer(t, replyWith('pong'));
    const connection = await connect(t, transport, peer.address);
    const metadata: Metadata = [
      ['x-text', 'one'],
      ['x-text', 'two'],
      ['x-bytes-bin', Buffer.from([1, 2])],
    ];
    const call = startCall(connection, unary, { metadata, deadlineMs: performance.now() + graceMs });
    call.call.request(1);
    call.call.write(Buffer.from('ping'), true);
    await call.status;
    const headers = peer.requests[0]?.headers ?? {};
    assert.equal(headers['x-text'], 'one, two');
    assert.equal(headers['x-bytes-bin'], 'AQI=');
    assert.match(String(headers['grpc-timeout']), /^\d+[mSu]$/);
  });

  contract('tells the status that the peer sent from one made here', async (t) => {
    const peer = await startPeer(t, (stream) => {
      stream.respond({ ...replyHeaders, 'grpc-status': '5', 'grpc-message': 'no such%20thing', 'x-why': 'gone' }, end);
    });
    const connection = await connect(t, transport, peer.address);
    const call = startCall(connection, unary);
    call.call.write(Buffer.from('ping'), true);
    const status = await call.status;
    assert.deepEqual([status.code, status.details, status.from], [Code.NOT_FOUND, 'no such thing', 'peer']);
    assert.equal(getText(status.trailers, 'x-why'), 'gone');
  });

  contract('delivers no more messages than were requested, and holds the peer back', async (t) => {
    const total = 20_000;
    let written = 0;
    const peer = await startPeer(t, async (stream) => {
      stream.respond(replyHeaders, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
      for (; written < total; written++) if (!stream.write(frame('x'.repeat(1_000)))) await once(stream, 'drain');
      stream.end();
    });
    const connection = await connect(t, transport, peer.address);
    const call = startCall(connection, serverStream);
    call.call.write(Buffer.from('go'), true);
    call.call.request(3);
    await until(() => call.messages === 3);
    await settled(() => written);
    assert.equal(call.messages, 3);
    assert.ok(written < total / 10, `the peer wrote ${written} of ${total} messages for three requested`);
    call.call.request(total);
    assert.equal((await call.status).code, Code.OK);
    assert.equal(call.messages, total);
  });

  contract('gives the status of a stream only after its last message', async (t) => {
    const peer = await startPeer(t, (stream) => {
      stream.respond(replyHeaders, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '9', 'grpc-message': 'late' }));
      stream.write(Buffer.concat([frame('1'), frame('2')]));
      stream.end(frame('3'));
    });
    const connection = await connect(t, transport, peer.address);
    const call = startCall(connection, serverStream);
    call.call.write(Buffer.from('go'), true);
    call.call.request(1);
    await until(() => call.messages === 1);
    call.call.request(1);
    await until(() => call.messages === 2);
    call.call.request(5);
    await call.status;
    assert.deepEqual(call.log, ['headers', 'message 1', 'message 2', 'message 3', 'status FAILED_PRECONDITION']);
  });

  contract('streams both ways at the same time', async (t) => {
    const peer = await startPeer(t, (stream) => {
      stream.respond(replyHeaders, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
      onMessages(stream, (text) => stream.write(frame(`echo ${text}`)));
      stream.on('end', () => stream.end());
    });
    const connection = await connect(t, transport, peer.address);
    const call = startCall(connection, bidi);
    call.call.request(10);
    call.call.write(Buffer.from('1'), false);
    await until(() => call.messages === 1);
    call.call.write(Buffer.from('2'), false);
    await until(() => call.messages === 2);
    call.call.end();
    await call.status;
    assert.deepEqual(call.log, ['headers', 'message echo 1', 'message echo 2', 'status OK']);
  });

  contract('holds a writer back while the peer does not read', async (t) => {
    const peer = await startPeer(
      t,
      (stream) => {
        stream.respond(replyHeaders, { waitForTrailers: true });
        stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
        setTimeout(() => stream.on('data', () => {}).on('end', () => stream.end(frame('done'))), 200);
      },
      { reads: false },
    );
    const connection = await connect(t, transport, peer.address);
    const call = startCall(connection, clientStream);
    call.call.request(1);
    const message = Buffer.alloc(64 * 1024);
    let writes = 0;
    do writes++;
    while (call.call.write(message, false) && writes < 1_000);
    assert.ok(writes < 1_000, 'write() never returned false');
    await until(() => call.log.includes('writable'));
    call.call.end();
    assert.equal((await call.status).code, Code.OK);
  });

  contract('cancels at the peer, and ends once with the status it was given', async (t) => {
    let cancelled = false;
    const peer = await startPeer(t, (stream) => {
      stream.respond(replyHeaders);
      stream.write(frame('1'));
      stream.on('close', () => {
        cancelled = stream.rstCode === http2.constants.NGHTTP2_CANCEL;
      });
    });
    const connection = await connect(t, transport, peer.address);
    const call = startCall(connection, serverStream);
    call.call.write(Buffer.from('go'), true);
    call.call.request(1);
    await until(() => call.messages === 1);
    call.call.cancel(Code.ABORTED, 'not needed');
    call.call.cancel(Code.CANCELLED, 'again');
    assert.ok(!call.log.includes('status ABORTED'), 'not inside cancel()');
    const status = await call.status;
    await until(() => cancelled);
    assert.deepEqual([status.code, status.details, status.from], [Code.ABORTED, 'not needed', 'local']);
    assert.equal(call.log.filter((line) => line.startsWith('status')).length, 1);
  });

  contract('does not end the requests of a call that it cancels', async (t) => {
    const ends: string[] = [];
    const peer = await startPeer(t, (stream) => {
      // Node tells a reset as an end too, but by then it knows the code.
      stream.on('end', () => ends.push(stream.rstCode === http2.constants.NGHTTP2_NO_ERROR ? 'end' : 'reset'));
      stream.on('close', () => ends.push('closed'));
    });
    const connection = await connect(t, transport, peer.address);
    for (const method of [clientStream, bidi]) {
      const call = startCall(connection, method);
      call.call.write(Buffer.from('half'), false);
      await until(() => peer.requests.at(-1)?.body === 'half');
      call.call.cancel(Code.CANCELLED, 'the client went away');
      await until(() => ends.includes('closed'));
      assert.ok(!ends.includes('end'), String(ends));
      ends.length = 0;
      peer.requests.length = 0;
    }
  });

  contract('can be cancelled before the request was written', async (t) => {
    const peer = await startPeer(t, replyWith('pong'));
    const connection = await connect(t, transport, peer.address);
    const call = startCall(connection, unary);
    call.call.cancel(Code.CANCELLED, 'changed my mind');
    const status = await call.status;
    assert.deepEqual([status.code, status.seenByPeer], [Code.CANCELLED, 'no']);
    assert.equal(peer.requests.length, 0);
  });

  contract('ends a call at its deadline, even when nobody reads', async (t) => {
    const peer = await startPeer(t, (stream) => {
      stream.respond(replyHeaders);
      stream.write(Buffer.concat([frame('1'), frame('2')]));
    });
    const connection = await connect(t, transport, peer.address);
    const call = startCall(connection, serverStream, { deadlineMs: performance.now() + 150 });
    call.call.write(Buffer.from('go'), true);
    const status = await call.status;
    assert.deepEqual([status.code, status.from, call.messages], [Code.DEADLINE_EXCEEDED, 'local', 0]);
  });

  contract('knows that a refused call was not seen', async (t) => {
    const peer = await startPeer(t, (stream) => stream.close(http2.constants.NGHTTP2_REFUSED_STREAM));
    const connection = await connect(t, transport, peer.address);
    const call = startCall(connection, unary);
    call.call.write(Buffer.from('ping'), true);
    const status = await call.status;
    assert.deepEqual([status.code, status.from, status.seenByPeer], [Code.UNAVAILABLE, 'local', 'no']);
  });

  contract('knows that a call above the last stream of a GOAWAY was not seen', async (t) => {
    const peer = await startPeer(t, (stream) => {
      stream.session?.goaway(http2.constants.NGHTTP2_NO_ERROR, 0);
      stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
    });
    const connection = await connect(t, transport, peer.address);
    const call = startCall(connection, unary);
    call.call.write(Buffer.from('ping'), true);
    assert.equal((await call.status).seenByPeer, 'no');
  });

  contract('does not know whether a call on a lost connection was seen', async (t) => {
    const peer = await startPeer(t, (stream) => stream.session?.destroy());
    const connection = await connect(t, transport, peer.address);
    const call = startCall(connection, unary);
    call.call.write(Buffer.from('ping'), true);
    const status = await call.status;
    assert.deepEqual([status.code, status.from, status.seenByPeer], [Code.UNAVAILABLE, 'local', 'maybe']);
  });

  contract('takes a connection that its peer ended for an error of its own for UNAVAILABLE', async (t) => {
    const peer = await startPeer(t, (stream) =>
      stream.session?.goaway(http2.constants.NGHTTP2_INTERNAL_ERROR, 2 ** 31 - 1),
    );
    const connection = await connect(t, transport, peer.address);
    const call = startCall(connection, unary);
    call.call.write(Buffer.from('ping'), true);
    const status = await call.status;
    assert.deepEqual([status.code, status.from, status.seenByPeer], [Code.UNAVAILABLE, 'local', 'maybe']);
  });

  for (const [how, code] of [
    ['without trailers', http2.constants.NGHTTP2_NO_ERROR],
    ['by a cancellation of the peer', http2.constants.NGHTTP2_CANCEL],
  ] as const) {
    contract(`takes a stream that ended ${how} for UNAVAILABLE`, async (t) => {
      const peer = await startPeer(t, (stream) => {
        stream.respond(replyHeaders);
        stream.write(frame('1'), () => stream.close(code));
      });
      const connection = await connect(t, transport, peer.address);
      const call = startCall(connection, serverStream);
      call.call.write(Buffer.from('go'), true);
      call.call.request(5);
      const status = await call.status;
      assert.deepEqual([status.code, status.from, status.seenByPeer], [Code.UNAVAILABLE, 'local', 'maybe']);
    });
  }

  contract('reads compressed messages in their order, no longer ones than others', async (t) => {
    const long = 'x'.repeat(5 * 1024 * 1024);
    const peer = await startPeer(t, (stream) => {
      stream.respond({ ...replyHeaders, 'grpc-encoding': 'gzip' }, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
      stream.write(Buffer.concat([compressed('1'), frame('2'), compressed('3')]));
      stream.end(peer.requests.length === 1 ? undefined : compressed(long));
    });
    const connection = await connect(t, transport, peer.address);
    const call = startCall(connection, serverStream);
    call.call.request(10);
    call.call.write(Buffer.from('go'), true);
    await call.status;
    assert.deepEqual(call.log, ['headers', 'message 1', 'message 2', 'message 3', 'status OK']);
    assert.match(String(peer.requests[0]?.headers['grpc-accept-encoding']), /\bgzip\b/);
    const tooLong = startCall(connection, serverStream);
    tooLong.call.request(10);
    tooLong.call.write(Buffer.from('go'), true);
    assert.deepEqual([(await tooLong.status).code, tooLong.messages], [Code.RESOURCE_EXHAUSTED, 3]);
  });

  for (const [what, bytes] of [
    ['no message', Buffer.alloc(0)],
    ['two messages', Buffer.concat([frame('1'), frame('2')])],
  ] as const) {
    contract(`takes ${what} where there should be one for a method that is not implemented so`, async (t) => {
      const peer = await startPeer(t, (stream) => {
        stream.respond(replyHeaders, { waitForTrailers: true });
        stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
        stream.end(bytes);
      });
      const connection = await connect(t, transport, peer.address);
      const call = startCall(connection, unary);
      call.call.request(1);
      call.call.write(Buffer.from('ping'), true);
      const status = await call.status;
      assert.deepEqual([status.code, status.from], [Code.UNIMPLEMENTED, 'local']);
    });
  }

  contract('fails a call whose metadata HTTP/2 cannot carry, and goes on', async (t) => {
    const peer = await startPeer(t, replyWith('pong'));
    const connection = await connect(t, transport, peer.address);
    const bad = startCall(connection, unary, { metadata: [['x-bad', 'line\nbreak']] });
    bad.call.write(Buffer.from('ping'), true);
    assert.equal((await bad.status).code, Code.INTERNAL);
    const good = startCall(connection, unary);
    good.call.request(1);
    good.call.write(Buffer.from('ping'), true);
    assert.equal((await good.status).code, Code.OK);
  });

  contract('follows the connection: READY, lost, READY again', async (t) => {
    const peer = await startPeer(t, replyWith('pong'));
    const connection = await connect(t, transport, peer.address);
    assert.deepEqual(connection.states.at(-1), 'READY');
    await peer.stop();
    await until(() => connection.state === 'TRANSIENT_FAILURE');
    assert.match(connection.states.at(-1) ?? '', /^TRANSIENT_FAILURE .*127\.0\.0\.1/);
    await startPeer(t, replyWith('pong'), { port: peer.port });
    await until(() => connection.state === 'READY');
    assert.equal(connection.lastError, '');
  });

  contract('drops a peer that accepts and says nothing', async (t) => {
    const silent = net.createServer(() => {});
    silent.listen(0, '127.0.0.1');
    await once(silent, 'listening');
    t.after(() => silent.close());
    const address = `127.0.0.1:${(silent.address() as AddressInfo).port}`;
    const connection = observe(t, transport, [address]);
    await until(() => connection.state === 'TRANSIENT_FAILURE');
  });

  contract('reaches an endpoint at the address that answers', async (t) => {
    const peer = await startPeer(t, replyWith('pong'));
    const unused = await startPeer(t, replyWith('pong'));
    await unused.stop();
    const connection = observe(t, transport, [unused.address, peer.address]);
    await until(() => connection.state === 'READY');
  });

  contract('lets calls finish when it is closed, and takes no further one', async (t) => {
    const release = Promise.withResolvers<void>();
    const peer = await startPeer(t, async (stream) => {
      await release.promise;
      replyWith('pong')(stream);
    });
    const connection = await connect(t, transport, peer.address);
    const running = startCall(connection, unary);
    running.call.request(1);
    running.call.write(Buffer.from('ping'), true);
    await until(() => peer.requests.length === 1);
    connection.close(graceMs);
    const late = startCall(connection, unary);
    late.call.write(Buffer.from('ping'), true);
    const refused = await late.status;
    assert.deepEqual([refused.code, refused.seenByPeer], [Code.UNAVAILABLE, 'no']);
    assert.notEqual(connection.state, 'SHUTDOWN');
    release.resolve();
    assert.equal((await running.status).code, Code.OK);
    await until(() => connection.state === 'SHUTDOWN');
  });

  contract('cancels what is left after the grace', async (t) => {
    const peer = await startPeer(t, () => {});
    const connection = await connect(t, transport, peer.address);
    const call = startCall(connection, unary);
    call.call.write(Buffer.from('ping'), true);
    await until(() => peer.requests.length === 1);
    connection.close(50);
    const status = await call.status;
    assert.deepEqual([status.code, status.seenByPeer], [Code.UNAVAILABLE, 'maybe']);
    await until(() => connection.state === 'SHUTDOWN');
  });
}

const unary = method('Unary', false, false);
const serverStream = method('ServerStream', false, true);
const clientStream = method('ClientStream', true, false);
const bidi = method('Bidi', true, true);

function method(name: string, requestStream: boolean, responseStream: boolean): Method {
  return { path: `/contract.Service/${name}`, requestStream, responseStream, idempotency: 'UNKNOWN' };
}

function observe(t: TestContext, transport: Transport, addresses: readonly string[]) {
  /** With the reason that was known when the state was told. */
  const states: string[] = [];
  const connection = transport({ id: addresses.at(-1) ?? '', addresses }, (state) =>
    states.push(`${state} ${connection.lastError}`.trim()),
  );
  t.after(() => connection.close(0));
  return Object.assign(connection, { states });
}

async function connect(t: TestContext, transport: Transport, address: string) {
  const connection = observe(t, transport, [address]);
  assert.deepEqual(connection.states, [], 'no state is told inside the transport itself');
  await until(() => connection.state === 'READY');
  return connection;
}

/** A frame of gRPC whose message is compressed. */
function compressed(text: string): Buffer {
  const message = gzipSync(text);
  const head = Buffer.from([1, 0, 0, 0, 0]);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}
