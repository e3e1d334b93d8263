import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import { create, createRegistry, fromJson, type JsonValue, toBinary } from '@bufbuild/protobuf';
import { badRequest } from '#runtime/call/details.ts';
import { Code } from '#runtime/call/status.ts';
import { google, statusSchema } from '../google.ts';
import { errorWith, retryInfo, statusOf } from './errors.ts';
import { descriptors, exchangeRaw, type FakeCall, startEdge, until } from './testing.ts';

const bookPath = '/v1/shelves/a/books/b';
const watchPath = '/v1/shelves/a/books:watch';
const echoPath = '/library.v1.Library/Echo';
const json = { 'content-type': 'application/json' };

function answer(call: FakeCall): void {
  call.headers([['served-by', 'pod-1']]);
  call.book('T');
  call.status(Code.OK);
}

describe('a call with one reply', () => {
  it('is a JSON body with the headers of the call', async () => {
    await using edge = await startEdge((call) => {
      call.headers([
        ['served-by', 'pod-1'],
        ['x-seen', 'a'],
        ['x-seen', 'b'],
        ['x-bytes-bin', Uint8Array.of(0, 255)],
        ['content-type', 'application/grpc'],
        ['grpc-accept-encoding', 'gzip'],
      ]);
      call.book('T');
      call.status(Code.OK, { trailers: [['x-cost', '1']] });
    });
    const reply = await fetch(edge.url + bookPath);
    assert.equal(reply.status, 200);
    assert.deepEqual(await reply.json(), { title: 'T' });
    assert.match(reply.headers.get('content-type') ?? '', /^application\/json/);
    assert.equal(reply.headers.get('served-by'), 'pod-1');
    const passed = [...reply.headers].filter(([name]) => name.startsWith('grpc-'));
    assert.deepEqual(passed, [
      ['grpc-metadata-x-bytes-bin', 'AP8='],
      ['grpc-metadata-x-cost', '1'],
      ['grpc-metadata-x-seen', 'a, b'],
    ]);
    const [call] = edge.calls;
    assert.equal(call?.start.method.path, '/library.v1.Library/GetBook');
    assert.equal(call.credits, 0);
  });

  it('carries metadata, a request id and a deadline', async () => {
    await using edge = await startEdge(answer);
    const before = performance.now();
    const reply = await fetch(edge.url + bookPath, {
      headers: {
        'grpc-timeout': '500m',
        'grpc-metadata-tenant': 'blue',
        'grpc-metadata-key-bin': 'AP8',
        authorization: 'Bearer x',
        traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
        cookie: 'a=b',
        'x-request-id': 'mine-1',
      },
    });
    assert.equal(reply.headers.get('x-request-id'), 'mine-1');
    const [call] = edge.calls;
    assert.ok(call);
    assert.ok(call.start.deadlineMs > before + 400 && call.start.deadlineMs < performance.now() + 500);
    const metadata = Object.fromEntries(call.start.metadata);
    assert.deepEqual(metadata, {
      'x-request-id': 'mine-1',
      authorization: 'Bearer x',
      'accept-language': '*',
      traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
      tenant: 'blue',
      'key-bin': Buffer.from([0, 255]),
    });
  });

  it('has the id of the trace that it belongs to', async () => {
    await using edge = await startEdge(answer);
    const traceIdOf = async (path: string, traceparent: string) =>
      (await fetch(edge.url + path, { headers: { traceparent } })).headers.get('x-trace-id');
    const traceId = '0af7651916cd43dd8448eb211c80319c';
    for (const path of [bookPath, watchPath, '/no/such/path']) {
      assert.equal(await traceIdOf(path, `00-${traceId}-b7ad6b7169203331-01`), traceId);
    }
    for (const traceparent of [`00-${'0'.repeat(32)}-b7ad6b7169203331-01`, `${traceId}-x`]) {
      assert.match((await traceIdOf(bookPath, traceparent)) ?? '', /^(?!0af765|0{32})[0-9a-f]{32}$/);
    }
  });

  it('makes a request id where the client has none that is fit to log', async () => {
    await using edge = await startEdge(answer);
    for (const given of ['', 'a b', 'x'.repeat(129), '"><script>']) {
      const reply = await fetch(edge.url + bookPath, { headers: { 'x-request-id': given } });
      assert.match(reply.headers.get('x-request-id') ?? '', /^[0-9a-f-]{36}$/);
    }
  });

  it('answers HEAD without a body', async () => {
    await using edge = await startEdge(answer);
    const reply = await fetch(edge.url + bookPath, { method: 'HEAD' });
    assert.deepEqual([reply.status, await reply.text(), reply.headers.get('content-length')], [200, '', '13']);
  });

  it('takes a custom HTTP method', async () => {
    await using edge = await startEdge(answer);
    const reply = await fetch(`${edge.url}/v1/links/x`, { method: 'LINK' });
    assert.equal(reply.status, 200);
  });

  it('is cancelled at once when the client goes away', async () => {
    await using edge = await startEdge(() => {});
    const client = httpRequest(edge.url + bookPath).on('error', () => {});
    client.end();
    await until(() => edge.calls[0]?.request !== undefined, 'the call');
    client.destroy();
    await until(() => edge.calls[0]?.cancelled !== undefined, 'the cancellation');
    assert.deepEqual(edge.calls[0]?.cancelled, {
      code: Code.CANCELLED,
      details: 'the client went away',
      trailers: [],
      from: 'local',
      seenByPeer: 'maybe',
    });
    await until(() => edge.observer.counters()['GET /v1/{name=shelves/*/books/*} 499'] === 1, 'the count');
  });

  it('is an error without the words of what failed here', async () => {
    await using edge = await startEdge((call) => call.message(Uint8Array.of(0xff, 0xff)));
    const reply = await fetch(edge.url + bookPath);
    assert.deepEqual([reply.status, await reply.json()], [500, { code: 13, message: 'internal error' }]);
    assert.ok(edge.logLines.some((line) => line.includes('"code":500') && line.includes('"level":40')));
  });

  it('is INTERNAL if OK comes without a message', async () => {
    await using edge = await startEdge((call) => call.status(Code.OK));
    assert.equal((await fetch(edge.url + bookPath)).status, 500);
  });
});

describe('an error of the upstream', () => {
  const httpStatuses: [code: keyof typeof Code, httpStatus: number][] = [
    ['CANCELLED', 499],
    ['UNKNOWN', 500],
    ['INVALID_ARGUMENT', 400],
    ['DEADLINE_EXCEEDED', 504],
    ['NOT_FOUND', 404],
    ['ALREADY_EXISTS', 409],
    ['PERMISSION_DENIED', 403],
    ['RESOURCE_EXHAUSTED', 429],
    ['FAILED_PRECONDITION', 400],
    ['ABORTED', 409],
    ['OUT_OF_RANGE', 400],
    ['UNIMPLEMENTED', 501],
    ['INTERNAL', 500],
    ['UNAVAILABLE', 503],
    ['DATA_LOSS', 500],
    ['UNAUTHENTICATED', 401],
  ];
  it('has the HTTP status of its code', async () => {
    let code: number = Code.OK;
    await using edge = await startEdge((call) => call.status(code, { details: 'words' }));
    for (const [name, httpStatus] of httpStatuses) {
      code = Code[name];
      const reply = await fetch(edge.url + bookPath);
      assert.deepEqual([name, reply.status, await reply.json()], [name, httpStatus, { code, message: 'words' }]);
    }
    code = 99;
    assert.equal((await fetch(edge.url + bookPath)).status, 500);
  });

  it('keeps its details but for stack traces, and says when to come back', async () => {
    const details = [
      { '@type': 'type.googleapis.com/google.rpc.RetryInfo', retryDelay: '1.500s' },
      { '@type': 'type.googleapis.com/google.rpc.ErrorInfo', reason: 'QUOTA', domain: 'x', metadata: { a: 'b' } },
      { '@type': 'type.googleapis.com/library.v1.Book', title: 'T' },
    ];
    const trace = {
      '@type': 'type.googleapis.com/google.rpc.DebugInfo',
      stackEntries: ['at /srv/secret.ts'],
      detail: 'secret',
    };
    const known = encodeStatus([...details, trace]);
    await using edge = await startEdge((call) =>
      call.status(Code.RESOURCE_EXHAUSTED, { details: 'slower', trailers: [['grpc-status-details-bin', known]] }),
    );
    const reply = await fetch(edge.url + bookPath);
    assert.equal(reply.headers.get('retry-after'), '2');
    assert.deepEqual(await reply.json(), { code: 8, message: 'slower', details });
  });

  it('shows a detail of an unknown type as bytes, and forgets what is no status', async () => {
    const any = { typeUrl: 'type.googleapis.com/x.Y', value: Uint8Array.of(8, 1) };
    const status = toBinary(statusSchema, create(statusSchema, { details: [any] }));
    const replies = [status, Uint8Array.of(255)];
    await using edge = await startEdge((call) =>
      call.status(Code.ABORTED, { trailers: [['grpc-status-details-bin', replies.shift() ?? status]] }),
    );
    const body = async () => (await fetch(edge.url + bookPath)).json();
    assert.deepEqual(await body(), { code: 10, details: [{ '@type': 'type.googleapis.com/x.Y', value: 'CAE=' }] });
    assert.deepEqual(await body(), { code: 10 });
  });

  it('that was made in this process keeps its words to the log', async () => {
    await using edge = await startEdge((call) =>
      call.status(Code.UNAVAILABLE, { details: 'connect ECONNREFUSED 10.0.0.7', from: 'local' }),
    );
    const reply = await fetch(edge.url + bookPath);
    assert.deepEqual([reply.status, await reply.json()], [503, { code: 14, message: 'the service is unavailable' }]);
    assert.ok(edge.logLines.some((line) => line.includes('10.0.0.7')));
  });

  it('looks the same from badRequest() as from any server', async () => {
    const { code, details, metadata } = badRequest([{ field: 'name', description: 'is taken' }]);
    await using edge = await startEdge((call) => call.status(code, { details, trailers: metadata }));
    assert.deepEqual(await (await fetch(edge.url + bookPath)).json(), {
      code: 3,
      message: 'name is taken',
      details: [
        {
          '@type': 'type.googleapis.com/google.rpc.BadRequest',
          fieldViolations: [{ field: 'name', description: 'is taken' }],
        },
      ],
    });
  });
});

describe('a request that goes nowhere', () => {
  const deep = `{"child":${'['.repeat(100_000)}`;
  const cases: [name: string, path: string, init: RequestInit, httpStatus: number, code: number, words: RegExp][] = [
    ['an unknown path', '/nope', {}, 404, 5, /no route/],
    ['the root', '/', {}, 404, 5, /no route/],
    ['a wrong method', bookPath, { method: 'PUT' }, 405, 12, /takes GET, PATCH, not PUT/],
    ['OPTIONS', bookPath, { method: 'OPTIONS' }, 405, 12, /takes GET, PATCH/],
    ['a bad percent-encoding', '/v1/shelves/%zz/books/b', {}, 400, 3, /percent-encoded/],
    ['a path that is no UTF-8', '/v1/shelves/%ff/books/b', {}, 400, 3, /percent-encoded/],
    ['a form', echoPath, { method: 'POST', body: new URLSearchParams({ a: 'b' }) }, 415, 3, /content-type/],
    ['text', echoPath, { method: 'POST', body: '{}' }, 415, 3, /content-type/],
    [
      'a bad media type',
      echoPath,
      { method: 'POST', body: '{}', headers: { 'content-type': 'x' } },
      415,
      3,
      /content-type/,
    ],
    ['broken JSON', echoPath, { method: 'POST', body: '{', headers: json }, 400, 3, /not JSON/],
    ['deep JSON', echoPath, { method: 'POST', body: deep, headers: json }, 400, 3, /nested deeper than 100/],
    ['bad UTF-8', echoPath, { method: 'POST', body: Buffer.from([0x22, 0xff, 0x22]), headers: json }, 400, 3, /UTF-8/],
    [
      'a prototype key',
      echoPath,
      { method: 'POST', body: '{"__proto__":{}}', headers: json },
      400,
      3,
      /__proto__ is not a field/,
    ],
    ['a long body', echoPath, { method: 'POST', body: `"${'x'.repeat(300_000)}"`, headers: json }, 413, 8, /too large/],
    [
      'a body on GET by PATCH',
      `${bookPath}?x=1`,
      { method: 'PATCH', body: '{}', headers: json },
      400,
      3,
      /x is not a field/,
    ],
    ['a bad timeout', bookPath, { headers: { 'grpc-timeout': '1x' } }, 400, 3, /grpc-timeout must be/],
    ['a timeout of nothing', bookPath, { headers: { 'grpc-timeout': '0S' } }, 400, 3, /grpc-timeout must be/],
    ['reserved metadata', bookPath, { headers: { 'grpc-metadata-grpc-status': '0' } }, 400, 3, /reserved/],
    ['hop-by-hop metadata', bookPath, { headers: { 'grpc-metadata-connection': 'x' } }, 400, 3, /reserved/],
    ['metadata that is no key', bookPath, { headers: { 'grpc-metadata-a$b': 'x' } }, 400, 3, /must be of 0-9 a-z/],
    ['metadata that is not ASCII', bookPath, { headers: { 'grpc-metadata-a': '\xff' } }, 400, 3, /printable ASCII/],
    ['bytes that are no base64', bookPath, { headers: { 'grpc-metadata-a-bin': '*' } }, 400, 3, /base64/],
  ];
  for (const [name, path, init, httpStatus, code, words] of cases) {
    it(`is ${httpStatus} for ${name}`, async () => {
      await using edge = await startEdge(answer, { bodyLimitBytes: 200_000 });
      const reply = await fetch(edge.url + path, init);
      const body = (await reply.json()) as { code: number; message: string };
      assert.deepEqual([reply.status, body.code], [httpStatus, code]);
      assert.match(body.message, words);
      assert.ok(reply.headers.get('x-request-id'));
      assert.equal(edge.calls.length, 0);
    });
  }

  it('names the methods that a path takes', async () => {
    await using edge = await startEdge(answer);
    const reply = await fetch(edge.url + bookPath, { method: 'DELETE' });
    assert.equal(reply.headers.get('allow'), 'GET, PATCH');
  });

  const raw: [name: string, text: string, head: RegExp][] = [
    ['no HTTP', 'HELO example.org\r\n\r\n', /^HTTP\/1.1 400 /],
    ['an unknown method', 'FOO / HTTP/1.1\r\nhost: x\r\n\r\n', /^HTTP\/1.1 400 /],
    ['a long head', `GET / HTTP/1.1\r\nhost: x\r\na: ${'x'.repeat(20_000)}\r\n\r\n`, /^HTTP\/1.1 431 /],
    ['a long path', `GET /${'x'.repeat(20_000)} HTTP/1.1\r\nhost: x\r\n\r\n`, /^HTTP\/1.1 431 /],
    [
      'two lengths',
      'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab',
      /^HTTP\/1.1 400 /,
    ],
    [
      'length and chunks',
      'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
      /^HTTP\/1.1 400 /,
    ],
    ['no host', 'GET / HTTP/1.1\r\n\r\n', /^HTTP\/1.1 400 /],
  ];
  for (const [name, text, head] of raw) {
    it(`is refused with a status for ${name}`, async () => {
      await using edge = await startEdge(answer);
      const reply = await exchangeRaw(edge.port, text);
      assert.match(reply, head);
      assert.equal(edge.calls.length, 0);
      assert.equal((await fetch(edge.url + bookPath)).status, 200);
    });
  }

  it('is counted where it is none, and so are connections', async () => {
    await using edge = await startEdge(() => {});
    const sample = async (name: string) =>
      Number(new RegExp(`^http_server_${name} (\\d+)$`, 'm').exec(await edge.registry.metrics())?.[1]);
    const waiting = connect(edge.port, '127.0.0.1', () => waiting.write(`GET ${bookPath} HTTP/1.1\r\nhost: x\r\n\r\n`));
    await until(() => edge.calls.length === 1, 'the call');
    assert.equal(await sample('open_connections'), 1);
    waiting.destroy();
    await until(() => edge.calls[0]?.cancelled !== undefined, 'the cancellation');
    assert.equal(await sample('open_connections'), 0);
    await exchangeRaw(edge.port, 'HELO example.org\r\n\r\n');
    await exchangeRaw(edge.port, `GET /${'x'.repeat(20_000)} HTTP/1.1\r\nhost: x\r\n\r\n`);
    assert.equal(await sample('refused_connections_total\\{code="400"\\}'), 1);
    assert.equal(await sample('refused_connections_total\\{code="431"\\}'), 1);
  });
});

describe('a stream of replies', () => {
  it('is NDJSON with a status at its end', async () => {
    await using edge = await startEdge((call) => {
      call.headers([['served-by', 'pod-1']]);
      call.book('A');
      call.book('B');
      call.status(Code.OK);
    });
    const reply = await fetch(edge.url + watchPath);
    assert.equal(reply.status, 200);
    assert.equal(reply.headers.get('content-type'), 'application/x-ndjson');
    assert.equal(reply.headers.get('served-by'), 'pod-1');
    assert.ok(reply.headers.get('x-request-id'));
    assert.equal(await reply.text(), '{"result":{"title":"A"}}\n{"result":{"title":"B"}}\n{"status":{"code":0}}\n');
    assert.equal(edge.calls[0]?.start.deadlineMs, Infinity);
  });

  it('may be empty', async () => {
    await using edge = await startEdge((call) => call.status(Code.OK));
    assert.equal(await (await fetch(edge.url + watchPath)).text(), '{"status":{"code":0}}\n');
  });

  it('is an HTTP error if it fails before its first message', async () => {
    await using edge = await startEdge((call) => {
      call.headers([['served-by', 'pod-1']]);
      call.status(Code.NOT_FOUND, { details: 'no such shelf' });
    });
    const reply = await fetch(edge.url + watchPath);
    assert.deepEqual([reply.status, await reply.json()], [404, { code: 5, message: 'no such shelf' }]);
    assert.equal(reply.headers.get('served-by'), 'pod-1');
  });

  it('ends with the status of a later failure', async () => {
    await using edge = await startEdge((call) => {
      call.book('A');
      call.status(Code.INTERNAL, { details: 'socket hang up', from: 'local' });
    });
    const lines = (await (await fetch(edge.url + watchPath)).text()).split('\n');
    assert.equal(lines[1], '{"status":{"code":13,"message":"internal error"}}');
  });

  it('ends with INTERNAL at a message that cannot be read, and cancels the call', async () => {
    await using edge = await startEdge((call) => {
      call.book('A');
      call.message(Uint8Array.of(0xff));
    });
    assert.match(
      await (await fetch(edge.url + watchPath)).text(),
      /\n\{"status":\{"code":13,"message":"internal error"\}\}\n$/,
    );
    assert.ok(edge.calls[0]?.cancelled);
  });

  it('honours Grpc-Timeout as its deadline', async () => {
    await using edge = await startEdge((call) => call.status(Code.OK));
    await fetch(edge.url + watchPath, { headers: { 'grpc-timeout': '1H' } });
    assert.ok(Math.abs((edge.calls[0]?.start.deadlineMs ?? 0) - performance.now() - 3_600_000) < 1_000);
  });

  it('ends when it has stood still for the idle timeout', async () => {
    await using edge = await startEdge((call) => call.book('A'), { streamIdleTimeoutMs: 100 });
    const text = await (await fetch(edge.url + watchPath)).text();
    assert.match(text, /\{"status":\{"code":4,"message":"the stream was idle for 100 ms"\}\}\n$/);
    assert.ok(edge.calls[0]?.cancelled);
  });

  it('is held back by a slow reader, and goes on with it', async () => {
    const title = 'x'.repeat(10_000);
    const total = 3_000;
    let sent = 0;
    await using edge = await startEdge((call) => {
      const timer = setInterval(() => {
        for (; call.credits > 0 && sent < total; sent++) call.book(title);
        if (sent < total && call.cancelled === undefined) return;
        clearInterval(timer);
        call.status(Code.OK);
      }, 1);
    });
    const client = connect(edge.port, '127.0.0.1');
    client.write(`GET ${watchPath} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`);
    client.pause();
    let before = -1;
    // Kernel buffers take some; then nothing moves.
    await until(() => {
      const still = sent === before && sent > 0 && edge.calls[0]?.credits === 0;
      before = sent;
      return still;
    }, 'the stream to stand still');
    assert.ok(sent < total, `${sent} messages were sent to a reader that reads none`);
    let received = 0;
    let tail = '';
    client.on('data', (chunk: Buffer) => {
      received += chunk.length;
      tail = (tail + chunk.toString('latin1')).slice(-100);
    });
    client.resume();
    await once(client, 'close');
    assert.equal(sent, total);
    assert.ok(received > total * title.length);
    assert.match(tail, /\{"status":\{"code":0\}\}\n\r\n0\r\n\r\n$/);
  });

  it('is cancelled when its reader goes away', async () => {
    await using edge = await startEdge((call) => call.book('A'));
    const abort = new AbortController();
    const reply = await fetch(edge.url + watchPath, { signal: abort.signal });
    assert.equal(reply.status, 200);
    abort.abort();
    await until(() => edge.calls[0]?.cancelled !== undefined, 'the cancellation');
    assert.equal(edge.calls[0]?.cancelled?.code, Code.CANCELLED);
  });
});

describe('deadlines', () => {
  const cases: [name: string, timeoutMs: number | undefined, header: string | undefined, expectedMs: number][] = [
    ['2 s by default', undefined, undefined, 2_000],
    ["the method's timeout", 700, undefined, 700],
    ['the header over it', 700, '900m', 900],
    ['at most 10 s by header', undefined, '1H', 10_000],
    ['at most 10 s by timeout', 60_000, undefined, 10_000],
  ];
  for (const [name, timeoutMs, header, expectedMs] of cases) {
    it(`are ${name}`, async () => {
      await using edge = await startEdge(answer, timeoutMs === undefined ? {} : { timeoutMs });
      const started = performance.now();
      await fetch(edge.url + bookPath, { headers: header === undefined ? {} : { 'grpc-timeout': header } });
      const left = (edge.calls[0]?.start.deadlineMs ?? 0) - started;
      assert.ok(left >= expectedMs && left < expectedMs + 500, `${left} ms`);
    });
  }
});

describe('a drain', () => {
  it('serves on and asks each connection to close', async () => {
    await using edge = await startEdge(answer);
    const before = await fetch(edge.url + bookPath);
    assert.equal(before.headers.get('connection'), 'keep-alive');
    assert.equal(before.headers.get('keep-alive'), 'timeout=75');
    edge.server.drain(0);
    for (const path of [bookPath, '/nope', watchPath]) {
      assert.equal((await fetch(edge.url + path)).headers.get('connection'), 'close');
    }
  });

  it('tells streams to come back, those too that begin meanwhile', async () => {
    await using edge = await startEdge((call) => call.book('A'));
    const early = await fetch(edge.url + watchPath);
    edge.server.drain(50);
    const late = await fetch(edge.url + watchPath);
    for (const stream of [early, late]) {
      const last = (await stream.text()).trimEnd().split('\n').at(-1) ?? '';
      assert.match(
        last,
        /^\{"status":\{"code":14,"message":"the gateway is shutting down","details":\[\{"@type":"type.googleapis.com\/google.rpc.RetryInfo","retryDelay":"[012]\.\d+s"\}\]\}\}$/,
      );
    }
    assert.ok(edge.calls.every(({ cancelled }) => cancelled !== undefined));
  });

  it('closes once the requests in flight have their replies', async () => {
    const held: FakeCall[] = [];
    await using edge = await startEdge((call) => held.push(call));
    const inFlight = fetch(edge.url + bookPath);
    await until(() => held.length === 1, 'the call');
    edge.server.drain(0);
    let closed = false;
    const closing = edge.server.close().then(() => {
      closed = true;
    });
    await assert.rejects(fetch(edge.url + bookPath));
    assert.equal(closed, false);
    answer(held[0] as FakeCall);
    const reply = await inFlight;
    assert.deepEqual([reply.status, reply.headers.get('connection')], [200, 'close']);
    await closing;
  });

  it('does not wait for connections that have asked for nothing', async () => {
    await using edge = await startEdge(answer);
    const silent = connect(edge.port, '127.0.0.1');
    await once(silent, 'connect');
    const used = connect(edge.port, '127.0.0.1');
    used.write(`GET ${bookPath} HTTP/1.1\r\nhost: x\r\n\r\n`);
    await once(used, 'data');
    const started = performance.now();
    await edge.server.close();
    assert.ok(performance.now() - started < 2_000);
    for (const socket of [silent, used]) socket.destroy();
  });

  it('cuts what is left when it is told to', async () => {
    await using edge = await startEdge(() => {});
    const inFlight = fetch(edge.url + bookPath);
    const failed = assert.rejects(inFlight);
    await until(() => edge.calls.length === 1, 'the call');
    const closing = edge.server.close();
    edge.server.destroy();
    await Promise.all([closing, failed]);
    await until(() => edge.calls[0]?.cancelled !== undefined, 'the cancellation');
  });
});

describe('an overload of the gateway itself', () => {
  const details = [retryInfo(2_000)];
  const refusal = statusOf(errorWith(Code.UNAVAILABLE, 'overloaded', details));
  const cors = {
    origins: ['https://shop.example'],
    allowHeaders: [],
    exposeHeaders: [],
    credentials: false,
    maxAge: 60,
  };

  it('refuses a request once its head is read, and tells and counts it as any other', async () => {
    await using edge = await startEdge(answer, { refusal, cors });
    const headers = { 'x-request-id': 'r-1', origin: 'https://shop.example' };
    const reply = await fetch(edge.url + bookPath, { headers });
    assert.equal(reply.status, 503);
    assert.deepEqual(await reply.json(), {
      code: Code.UNAVAILABLE,
      message: 'overloaded',
      details: [{ '@type': 'type.googleapis.com/google.rpc.RetryInfo', retryDelay: '2s' }],
    });
    const shown = ['retry-after', 'content-type', 'x-request-id', 'access-control-allow-origin'];
    assert.deepEqual(
      shown.map((name) => reply.headers.get(name)),
      ['2', 'application/json; charset=utf-8', 'r-1', 'https://shop.example'],
    );
    assert.match(reply.headers.get('x-trace-id') ?? '', /^[\da-f]{32}$/);
    await until(() => edge.logLines.length > 0, 'the log line');
    assert.deepEqual(edge.observer.counters(), { 'GET /v1/{name=shelves/*/books/*} 503': 1 });
    assert.equal(edge.calls.length, 0);
  });

  it('reads past a body that nobody wanted, and goes on with the connection', async () => {
    await using edge = await startEdge(answer, { refusal });
    const body = '{"title":"T"}';
    const post = `POST ${echoPath} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n`;
    const received = await exchangeRaw(edge.port, `${post}\r\n${body}${post}Connection: close\r\n\r\n${body}`);
    assert.equal(received.match(/HTTP\/1\.1 503 /g)?.length, 2, received);
  });

  it('cuts off who goes on sending such a body', async () => {
    await using edge = await startEdge(answer, { refusal });
    const post = `POST ${echoPath} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{`;
    assert.match(await exchangeRaw(edge.port, post), /^HTTP\/1\.1 503 /);
  });

  it('lets streams, preflights and what has no route go on', async () => {
    await using edge = await startEdge(answer, { refusal, cors });
    const statusOfRequest = async (path: string, init?: RequestInit) => (await fetch(edge.url + path, init)).status;
    const preflight = {
      method: 'OPTIONS',
      headers: { origin: 'https://shop.example', 'access-control-request-method': 'GET' },
    };
    assert.equal(await statusOfRequest(watchPath), 200);
    assert.equal(await statusOfRequest(bookPath, preflight), 204);
    assert.equal(await statusOfRequest('/nowhere'), 404);
    assert.equal(await statusOfRequest(bookPath, { method: 'DELETE' }), 405);
  });

  it('asks connections to close in a drain', async () => {
    await using edge = await startEdge(answer, { refusal });
    edge.server.drain(0);
    assert.equal((await fetch(edge.url + bookPath)).headers.get('connection'), 'close');
  });
});

describe('what is seen', () => {
  it('are requests by route and code, and never the paths of the clients', async () => {
    await using edge = await startEdge(answer);
    for (const path of [bookPath, '/v1/shelves/x/books/y', '/nope', '/other']) await fetch(edge.url + path);
    await until(() => Object.values(edge.observer.counters()).reduce((a, b) => a + b, 0) === 4, 'the counts');
    assert.deepEqual(edge.observer.counters(), { 'GET /v1/{name=shelves/*/books/*} 200': 2, '404': 2 });
    const metrics = await edge.registry.metrics();
    assert.match(
      metrics,
      /^http_server_request_duration_seconds_count\{method="GET",route="\/v1\/\{name=shelves\/\*\/books\/\*\}",code="200",grpc_code="OK",form=""\} 2$/m,
    );
    assert.match(
      metrics,
      /^http_server_request_duration_seconds_count\{method="",route="",code="404",grpc_code="NOT_FOUND",form=""\} 2$/m,
    );
  });

  it('is one log line a request, without the query', async () => {
    await using edge = await startEdge(answer);
    await fetch(`${edge.url}${bookPath}?token=secret`);
    await until(() => edge.logLines.length > 0, 'the line');
    const line = JSON.parse(edge.logLines[0] ?? '');
    assert.deepEqual(
      [line.msg, line.method, line.path, line.route, line.code, line.grpcCode],
      ['request', 'GET', bookPath, '/v1/{name=shelves/*/books/*}', 400, 'INVALID_ARGUMENT'],
    );
    assert.ok(!edge.logLines.join('').includes('secret"'));
  });
});

function encodeStatus(details: JsonValue[]): Uint8Array {
  const registry = createRegistry(descriptors.types, google);
  return toBinary(statusSchema, fromJson(statusSchema, { details }, { registry }));
}
