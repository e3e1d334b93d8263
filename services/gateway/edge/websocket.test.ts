import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import { type ClientOptions, WebSocket } from 'ws';
import { Code } from '#runtime/call/status.ts';
import { comeBackLater, statusOf } from './errors.ts';
import { exchangeRaw, type FakeCall, startEdge, until } from './testing.ts';
import { isSameOrigin } from './websocket.ts';

const discussPath = '/v1/shelves/a:discuss';
const watchPath = '/v1/shelves/a/books:watch';
const uploadPath = '/library.v1.Library/Upload';

/** A client, with what it has received. It is gone by the end of its scope. */
function open(port: number, path: string, options: ClientOptions = {}) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, options);
  const frames: unknown[] = [];
  let refusal: [httpStatus: number | undefined, code: unknown] | undefined;
  socket.on('message', (data: Buffer, isBinary) => {
    assert.equal(isBinary, false);
    frames.push(JSON.parse(data.toString()));
  });
  socket.on('error', () => {});
  socket.on('unexpected-response', (_request, response) => {
    const chunks: Buffer[] = [];
    response.on('data', (chunk: Buffer) => chunks.push(chunk));
    response.on('end', () => {
      const { code } = JSON.parse(Buffer.concat(chunks).toString());
      refusal = [response.statusCode, code];
      socket.terminate();
    });
  });
  const closed = new Promise<{ code: number; reason: string }>((resolve) => {
    socket.once('close', (code, reason) => resolve({ code, reason: reason.toString() }));
  });
  return {
    socket,
    frames,
    closed,
    opened: () => once(socket, 'open'),
    async refused() {
      await closed;
      return refusal;
    },
    [Symbol.asyncDispose]: async () => {
      socket.terminate();
      await closed;
    },
  };
}

/** Sends each request back at once. */
function discuss(call: FakeCall): void {
  let answered = 0;
  const timer = setInterval(() => {
    if (call.cancelled !== undefined) return clearInterval(timer);
    for (; answered < call.requests.length && call.credits > 0; answered++) call.book(call.titles[answered] ?? '');
    if (!call.requestsEnded || answered < call.requests.length) return;
    clearInterval(timer);
    call.status(Code.OK);
  }, 1);
}

describe('a WebSocket', () => {
  it('is a stream both ways, a message a frame, that an empty frame ends on one side', async () => {
    await using edge = await startEdge(discuss);
    await using client = open(edge.port, discussPath);
    await client.opened();
    client.socket.send('{"title":"A"}');
    await until(() => client.frames.length === 1, 'the first reply');
    client.socket.send('{"title":"Ü"}');
    client.socket.send('');
    assert.deepEqual(await client.closed, { code: 1000, reason: '' });
    assert.deepEqual(client.frames, [{ result: { title: 'A' } }, { result: { title: 'Ü' } }, { status: { code: 0 } }]);
    const [call] = edge.calls;
    assert.equal(call?.start.method.path, '/library.v1.Library/Discuss');
    assert.equal(call.start.deadlineMs, Infinity);
  });

  it('takes the path for its first message', async () => {
    await using edge = await startEdge(discuss);
    for (const path of [discussPath, '/v1/shelves/a/discussion?title=B']) {
      await using client = open(edge.port, path);
      await client.opened();
      for (const frame of ['{"status":"x"}', '{}', '']) client.socket.send(frame);
      await client.closed;
    }
    const bytes = edge.calls.map(({ requests }) => requests.map((request) => Buffer.from(request).toString('latin1')));
    assert.deepEqual(bytes, [
      ['\x1a\x01x\x0a\x09shelves/a', ''],
      ['\x1a\x01x\x0a\x09shelves/a\x12\x01B', ''],
    ]);
  });

  it('is a stream of replies to what the URL says', async () => {
    await using edge = await startEdge((call) => {
      call.book('A');
      call.status(Code.OK);
    });
    await using client = open(edge.port, watchPath);
    assert.deepEqual(await client.closed, { code: 1000, reason: '' });
    assert.deepEqual(client.frames, [{ result: { title: 'A' } }, { status: { code: 0 } }]);
    assert.equal(edge.calls[0]?.requests.length, 1);
    assert.equal(edge.calls[0].requestsEnded, true);
  });

  it('is a stream of replies to its first frame, or to an empty one', async () => {
    await using edge = await startEdge((call) => {
      call.book(call.titles.join());
      call.status(Code.OK);
    });
    for (const [frame, title] of [
      ['{"title":"A"}', 'A'],
      ['', ''],
    ] as const) {
      await using client = open(edge.port, '/v1/shelves/a:suggest');
      await client.opened();
      client.socket.send(frame);
      await client.closed;
      assert.deepEqual(client.frames, [{ result: title === '' ? {} : { title } }, { status: { code: 0 } }]);
    }
  });

  it('is a stream of requests with one reply', async () => {
    await using edge = await startEdge((call) => {
      const timer = setInterval(() => {
        if (call.cancelled !== undefined) return clearInterval(timer);
        if (!call.requestsEnded) return;
        clearInterval(timer);
        call.book(call.titles.join());
        call.status(Code.OK);
      }, 1);
    });
    await using client = open(edge.port, uploadPath);
    await client.opened();
    for (const frame of ['{"title":"A"}', '{"title":"B"}', '\n']) client.socket.send(frame);
    assert.equal((await client.closed).code, 1000);
    assert.deepEqual(client.frames, [{ result: { title: 'A,B' } }, { status: { code: 0 } }]);
  });

  it('passes the headers of its handshake on, and answers with the request id', async () => {
    await using edge = await startEdge(() => {});
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    await using client = open(edge.port, discussPath, {
      headers: { traceparent, authorization: 'Bearer x', 'x-request-id': 'mine-1', 'grpc-timeout': '1H' },
    });
    const [response] = await once(client.socket, 'upgrade');
    assert.equal(response.headers['x-request-id'], 'mine-1');
    assert.equal(response.headers['sec-websocket-extensions'], undefined);
    const [call] = edge.calls;
    assert.deepEqual(Object.fromEntries(call?.start.metadata ?? []), {
      'x-request-id': 'mine-1',
      authorization: 'Bearer x',
      traceparent,
    });
    assert.ok(Math.abs((call?.start.deadlineMs ?? 0) - performance.now() - 3_600_000) < 1_000);
  });

  const moving = statusOf(comeBackLater('moving', 1_000));
  const ends: [name: string, code: number, details: string, close: { code: number; reason: string }][] = [
    ['NOT_FOUND', Code.NOT_FOUND, 'no such shelf', { code: 4005, reason: 'NOT_FOUND: no such shelf' }],
    ['a code without words', Code.UNAUTHENTICATED, '', { code: 4016, reason: 'UNAUTHENTICATED' }],
    ['a code that is none', 99, 'x', { code: 4002, reason: 'UNKNOWN: x' }],
    ['UNAVAILABLE', Code.UNAVAILABLE, 'away', { code: 4014, reason: 'UNAVAILABLE: away' }],
    ['a long message', Code.ABORTED, 'ü'.repeat(100), { code: 4010, reason: `ABORTED: ${'ü'.repeat(57)}` }],
  ];
  for (const [name, code, details, close] of ends) {
    it(`ends with a status, a close code and a reason for ${name}`, async () => {
      await using edge = await startEdge((call) => call.status(code, { details }));
      await using client = open(edge.port, watchPath);
      assert.deepEqual(await client.closed, close);
      assert.deepEqual(client.frames, [{ status: { code, ...(details && { message: details }) } }]);
    });
  }

  it('ends with 1012 where the client shall come back', async () => {
    await using edge = await startEdge((call) =>
      call.status(moving.code, { details: moving.details, trailers: moving.trailers }),
    );
    await using client = open(edge.port, watchPath);
    assert.deepEqual(await client.closed, { code: 1012, reason: 'UNAVAILABLE: moving' });
  });

  it('is told to come back in a drain', async () => {
    await using edge = await startEdge((call) => call.book('A'));
    await using client = open(edge.port, watchPath);
    await until(() => client.frames.length === 1, 'the first reply');
    edge.server.drain(20);
    const closed = edge.server.close();
    assert.deepEqual(await client.closed, { code: 1012, reason: 'UNAVAILABLE: the gateway is shutting down' });
    assert.match(JSON.stringify(client.frames.at(-1)), /^\{"status":\{"code":14,.*RetryInfo/);
    await closed;
  });

  it('is cut when the server is told to cut', async () => {
    await using edge = await startEdge((call) => call.book('A'));
    await using client = open(edge.port, watchPath);
    await until(() => client.frames.length === 1, 'the first reply');
    const closed = edge.server.close();
    edge.server.destroy();
    assert.equal((await client.closed).code, 1006);
    await closed;
    await until(() => edge.calls[0]?.cancelled !== undefined, 'the cancellation');
  });

  const wrong: [name: string, path: string, frames: (string | Buffer)[], code: number, words: RegExp][] = [
    ['a binary frame', discussPath, [Buffer.from('{}')], 1003, /messages must be text frames/],
    ['broken JSON', discussPath, ['{"title":"A"}', '{'], 4003, /message 2: the body is not JSON/],
    ['a wrong field', discussPath, ['{"title":1}'], 4003, /message 1: title must be string, is 1/],
    ['a message after the end', discussPath, ['{}', '', '{}'], 4003, /no message may follow the last one/],
    ['a message too many', '/v1/shelves/a:suggest', ['{}', '{}'], 4003, /no message may follow the last one/],
    ['a message to a route without', watchPath, ['{}'], 4003, /no message may follow the last one/],
  ];
  for (const [name, path, frames, code, words] of wrong) {
    it(`ends with ${code} for ${name}`, async () => {
      await using edge = await startEdge(() => {});
      await using client = open(edge.port, path);
      await client.opened();
      for (const frame of frames) client.socket.send(frame);
      assert.equal((await client.closed).code, code);
      const { status } = client.frames.at(-1) as { status: { code: number; message: string } };
      assert.equal(status.code, Code.INVALID_ARGUMENT);
      assert.match(status.message, words);
      await until(() => edge.calls.every(({ cancelled }) => cancelled !== undefined), 'the cancellation');
    });
  }

  it('ends with 1009 at a message that is too long', async () => {
    await using edge = await startEdge(() => {}, { bodyLimitBytes: 1_000 });
    await using client = open(edge.port, discussPath);
    await client.opened();
    client.socket.send(`{"title":"${'x'.repeat(1_000)}"}`);
    assert.equal((await client.closed).code, 1009);
    await until(() => edge.calls[0]?.cancelled !== undefined, 'the cancellation');
    await until(() => edge.logLines.some((line) => line.includes('RESOURCE_EXHAUSTED')), 'the log line');
  });

  it('ends with 1007 for what is no UTF-8', async () => {
    await using edge = await startEdge(() => {});
    await using client = open(edge.port, discussPath);
    await client.opened();
    client.socket.send(Buffer.from([0xff]), { binary: false });
    assert.equal((await client.closed).code, 1007);
    await until(() => edge.calls[0]?.cancelled !== undefined, 'the cancellation');
  });

  it('is cancelled when its client closes it, or is gone', async () => {
    await using edge = await startEdge(() => {});
    for (const leave of ['close', 'terminate'] as const) {
      await using client = open(edge.port, discussPath);
      await client.opened();
      client.socket[leave]();
      await until(() => edge.calls.at(-1)?.cancelled?.details === 'the client went away', 'the cancellation');
      await client.closed;
    }
  });

  it('is one request to the metrics, with the code of its call', async () => {
    await using edge = await startEdge((call) => call.status(Code.NOT_FOUND));
    await using client = open(edge.port, `${watchPath}?pageSize=1`);
    await client.closed;
    await until(() => edge.logLines.length === 1, 'the log line');
    const { code, stream, grpcCode } = JSON.parse(edge.logLines[0] ?? '');
    assert.deepEqual({ code, stream, grpcCode }, { code: 101, stream: 'websocket', grpcCode: 'NOT_FOUND' });
    assert.match(
      await edge.registry.metrics(),
      /^http_server_request_duration_seconds_count\{method="GET",route="[^"]*:watch",code="101",grpc_code="NOT_FOUND",form="websocket"\} 1$/m,
    );
    assert.match(await edge.registry.metrics(), /^http_server_open_streams\{form="websocket"\} 0$/m);
  });

  it('that its client closed is counted as cancelled', async () => {
    await using edge = await startEdge(() => {});
    await using client = open(edge.port, discussPath);
    await client.opened();
    client.socket.close();
    await until(() => edge.logLines.length === 1, 'the log line');
    const { code, grpcCode } = JSON.parse(edge.logLines[0] ?? '');
    assert.deepEqual({ code, grpcCode }, { code: 101, grpcCode: 'CANCELLED' });
  });

  it('is held back by a slow reader, and goes on with it', async () => {
    const title = 'x'.repeat(10_000);
    const total = 3_000;
    let sent = 0;
    await using edge = await startEdge(
      (call) => {
        const timer = setInterval(() => {
          for (; call.credits > 0 && sent < total; sent++) call.book(title);
          if (sent < total && call.cancelled === undefined) return;
          clearInterval(timer);
          call.status(Code.OK);
        }, 1);
      },
      { streamHeartbeatMs: 10 },
    );
    await using client = open(edge.port, watchPath);
    await client.opened();
    client.socket.pause();
    let before = -1;
    await until(() => {
      const still = sent === before && sent > 0 && edge.calls[0]?.credits === 0;
      before = sent;
      return still;
    }, 'the stream to stand still');
    assert.ok(sent < total, `${sent} messages were sent to a reader that reads none`);
    client.socket.resume();
    assert.equal((await client.closed).code, 1000);
    assert.equal(client.frames.length, total + 1);
  });

  it('holds its client back while the replica is slow, and goes on with it', async () => {
    await using edge = await startEdge((call) => {
      call.writable = false;
    });
    await using client = open(edge.port, uploadPath);
    await client.opened();
    const frame = `{"title":"${'x'.repeat(10_000)}"}`;
    const total = 3_000;
    for (let sent = 0; sent < total; sent++) client.socket.send(frame);
    client.socket.send('');
    let before = -1;
    await until(() => {
      const still = client.socket.bufferedAmount === before && before > 1_000_000;
      before = client.socket.bufferedAmount;
      return still;
    }, 'the client to be held back');
    const [call] = edge.calls as [FakeCall];
    // What came with the first one in a chunk of the connection is taken too.
    assert.ok(call.requests.length <= 30, `${call.requests.length} messages were taken`);
    call.takeMore();
    await until(() => call.requestsEnded, 'the end');
    assert.equal(call.requests.length, total);
    assert.equal(client.socket.bufferedAmount, 0);
    call.status(Code.OK);
    assert.equal((await client.closed).code, 1000);
  });

  it('finds a peer that is gone without a word', async () => {
    await using edge = await startEdge(() => {}, { streamHeartbeatMs: 20 });
    await using silent = open(edge.port, discussPath, { autoPong: false });
    await using alive = open(edge.port, discussPath);
    await Promise.all([silent.opened(), alive.opened()]);
    assert.equal((await silent.closed).code, 1006);
    await until(() => edge.calls.filter(({ cancelled }) => cancelled).length === 1, 'the cancellation');
    assert.equal(alive.socket.readyState, WebSocket.OPEN);
  });

  it('ends when it has stood still for the idle timeout, though its peer is alive', async () => {
    await using edge = await startEdge(() => {}, { streamIdleTimeoutMs: 150, streamHeartbeatMs: 20 });
    await using client = open(edge.port, discussPath);
    assert.deepEqual(await client.closed, { code: 4004, reason: 'DEADLINE_EXCEEDED: the stream was idle for 150 ms' });
  });
});

describe('a handshake', () => {
  const refused: [name: string, path: string, options: ClientOptions, httpStatus: number, code: number][] = [
    ['an unknown path', '/nope', {}, 404, 5],
    ['a bad percent-encoding', '/v1/%zz:discuss', {}, 400, 3],
    ['a bad query', `${watchPath}?nope=1`, {}, 400, 3],
    ['a bad timeout', discussPath, { headers: { 'grpc-timeout': '1x' } }, 400, 3],
    ['reserved metadata', discussPath, { headers: { 'grpc-metadata-host': 'x' } }, 400, 3],
    ['another origin', discussPath, { origin: 'https://evil.example' }, 403, 7],
    ['a page without an origin of its own', discussPath, { origin: 'null' }, 403, 7],
  ];
  for (const [name, path, options, httpStatus, code] of refused) {
    it(`is refused with ${httpStatus} for ${name}`, async () => {
      await using edge = await startEdge(() => {});
      await using client = open(edge.port, path, options);
      assert.deepEqual(await client.refused(), [httpStatus, code]);
      assert.equal(edge.calls.length, 0);
      await until(() => edge.logLines.length === 1, 'the log line');
    });
  }

  it('is refused with 503 where as many streams are open as may be', async () => {
    await using edge = await startEdge(() => {}, { maxStreams: 1 });
    await using first = open(edge.port, discussPath);
    await first.opened();
    await using second = open(edge.port, discussPath);
    assert.deepEqual(await second.refused(), [503, Code.RESOURCE_EXHAUSTED]);
    first.socket.close();
    await first.closed;
    await using third = open(edge.port, discussPath);
    await third.opened();
  });

  const raw: [name: string, headers: string, message: string][] = [
    ['without a key', 'sec-websocket-version: 13', 'Missing or invalid Sec-WebSocket-Key header'],
    [
      'of an old version',
      'sec-websocket-version: 7\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==',
      'Missing or invalid Sec-WebSocket-Version header',
    ],
  ];
  for (const [name, headers, message] of raw) {
    it(`${name} is refused with 400`, async () => {
      await using edge = await startEdge(() => {});
      const head = `GET ${discussPath} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n`;
      const reply = await exchangeRaw(edge.port, `${head}${headers}\r\n\r\n`);
      assert.match(reply, /^HTTP\/1.1 400 [^]*\r\nsec-websocket-version: 13\r\n/i);
      assert.ok(reply.endsWith(JSON.stringify({ code: Code.INVALID_ARGUMENT, message })), reply);
      assert.equal(edge.calls.length, 0);
    });
  }

  it('to what is no stream, or to another protocol, is answered like any request', async () => {
    await using edge = await startEdge((call) => {
      call.book('A');
      call.status(Code.OK);
    });
    for (const [path, protocol] of [
      ['/v1/shelves/a/books/b', 'websocket'],
      [watchPath, 'h2c'],
    ] as const) {
      const client = connect(edge.port, '127.0.0.1');
      let received = '';
      client.setEncoding('latin1').on('data', (chunk) => {
        received += chunk;
      });
      client.write(`GET ${path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: ${protocol}\r\n\r\n`);
      await until(() => received.includes('"title":"A"'), 'the reply');
      assert.match(received, /^HTTP\/1.1 200 /);
      client.destroy();
    }
  });

  it('chooses no subprotocol but for a token', async () => {
    await using edge = await startEdge(() => {});
    for (const protocols of ['graphql-ws', 'bearer', 'bearer, a, b']) {
      const client = new WebSocket(`ws://127.0.0.1:${edge.port}${discussPath}`, protocols.split(', '));
      const [error] = await once(client, 'error');
      assert.match((error as Error).message, /no subprotocol/);
    }
  });

  it('takes the token of a browser, which has no place for headers, as a subprotocol', async () => {
    await using edge = await startEdge(() => {});
    const client = new WebSocket(`ws://127.0.0.1:${edge.port}${discussPath}`, ['bearer', 'a.b-c_d.e']);
    await once(client, 'open');
    assert.equal(client.protocol, 'bearer');
    await until(() => edge.calls.length === 1, 'the call');
    assert.equal(Object.fromEntries(edge.calls[0]?.start.metadata ?? [])['authorization'], 'Bearer a.b-c_d.e');
    client.terminate();
    await once(client, 'close');
  });
});

describe('the origin of a page', () => {
  const cases: [origin: string, host: string | undefined, same: boolean][] = [
    ['http://a.example', 'a.example', true],
    ['https://a.example', 'A.example', true],
    ['https://a.example', 'a.example:443', true],
    ['http://localhost:8080', 'localhost:8080', true],
    ['http://localhost:8081', 'localhost:8080', false],
    ['https://a.example.evil.example', 'a.example', false],
    ['https://b.example', 'a.example', false],
    ['https://a.example@b.example', 'a.example', false],
    ['null', 'null', false],
    ['null', undefined, false],
    ['', 'a.example', false],
  ];
  for (const [origin, host, same] of cases) {
    it(`${origin} is ${same ? '' : 'not '}the same as that of ${host}`, () => {
      assert.equal(isSameOrigin(origin, host), same);
    });
  }
});
