import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, type ClientRequest, type IncomingMessage, request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import { Code } from '#runtime/call/status.ts';
import { closeOf, exchangeRaw, type FakeCall, startEdge, until } from './testing.ts';

const uploadPath = '/library.v1.Library/Upload';
const discussPath = '/v1/shelves/a:discuss';
const ndjson = { 'content-type': 'application/x-ndjson' };

/** Answers once the requests have ended, with their titles. */
function collect(call: FakeCall): void {
  const timer = setInterval(() => {
    if (call.cancelled !== undefined) return clearInterval(timer);
    if (!call.requestsEnded) return;
    clearInterval(timer);
    call.headers([['served-by', 'pod-1']]);
    call.book(call.titles.join());
    call.status(Code.OK);
  }, 1);
}

function upload(port: number, path: string, agent?: Agent): { sent: ClientRequest; reply: Promise<IncomingMessage> } {
  const sent = httpRequest({ host: '127.0.0.1', port, path, method: 'POST', headers: ndjson, ...(agent && { agent }) });
  const reply = once(sent, 'response').then(([response]) => response as IncomingMessage);
  reply.catch(() => {});
  sent.on('error', () => {});
  sent.flushHeaders();
  return { sent, reply };
}

describe('a stream of requests', () => {
  it('is a line a message, and gets one reply', async () => {
    await using edge = await startEdge(collect);
    const body = '{"title":"A"}\n\n{"title":"B"}\r\n  {"title":"Ü"}';
    const reply = await fetch(edge.url + uploadPath, { method: 'POST', headers: ndjson, body });
    assert.deepEqual([reply.status, await reply.json()], [200, { title: 'A,B,Ü' }]);
    assert.match(reply.headers.get('content-type') ?? '', /^application\/json/);
    assert.equal(reply.headers.get('served-by'), 'pod-1');
    assert.equal(edge.calls[0]?.start.deadlineMs, Infinity);
  });

  it('may be empty', async () => {
    await using edge = await startEdge(collect);
    for (const init of [{ headers: ndjson, body: '' }, { headers: ndjson, body: '\n \n' }, {}]) {
      const reply = await fetch(edge.url + uploadPath, { method: 'POST', ...init });
      assert.deepEqual([reply.status, await reply.json()], [200, {}]);
    }
  });

  it('hands each message over as its line ends, in whatever pieces it comes', async () => {
    await using edge = await startEdge(collect);
    const { sent, reply } = upload(edge.port, uploadPath);
    const [call] = await (async () => {
      for (const piece of ['{"ti', 'tle":"A', '"}\n{"title":"B"}\n{"t']) {
        sent.write(piece);
        await new Promise((resolve) => setImmediate(resolve));
      }
      await until(() => edge.calls[0]?.requests.length === 2, 'two messages');
      return edge.calls;
    })();
    assert.equal(call?.requestsEnded, false);
    sent.end('itle":"C"}\n');
    assert.equal(await text(await reply), '{"title":"A,B,C"}');
  });

  it('outlasts the time that any other request has to come', async () => {
    await using edge = await startEdge(collect, { requestTimeoutMs: 100 });
    const { sent, reply } = upload(edge.port, uploadPath);
    sent.write('{"title":"A"}\n');
    await until(() => edge.calls.length === 1, 'the call');
    const slow =
      'POST /library.v1.Library/Echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{';
    assert.match(await exchangeRaw(edge.port, slow), /^HTTP\/1.1 408 /);
    sent.end('{"title":"B"}\n');
    assert.equal(await text(await reply), '{"title":"A,B"}');
  });

  it('is held back by a slow replica, and goes on with it', async () => {
    await using edge = await startEdge((call) => {
      call.writable = false;
    });
    const line = `{"title":"${'x'.repeat(1_000)}"}\n`;
    const total = 20_000;
    const { sent, reply } = upload(edge.port, uploadPath);
    let written = 0;
    const writeMore = () => {
      while (written < total) {
        written++;
        if (!sent.write(line)) return void sent.once('drain', writeMore);
      }
    };
    writeMore();
    await until(() => edge.calls.length === 1, 'the call');
    const [call] = edge.calls as [FakeCall];
    let before = -1;
    await until(() => {
      const still = written === before && written > 0;
      before = written;
      return still;
    }, 'the client to be held back');
    assert.equal(call.requests.length, 2);
    assert.ok(written < total, 'the client could send all');
    call.takeMore();
    await until(() => written === total, 'the rest to be sent');
    sent.end();
    await until(() => call.requestsEnded, 'the end');
    assert.equal(call.requests.length, total);
    call.book('done');
    call.status(Code.OK);
    assert.equal(await text(await reply), '{"title":"done"}');
  });

  const bad: [name: string, body: string | Buffer, words: RegExp][] = [
    ['broken JSON', '{"title":"A"}\n{"title"\n', /^message 2: the body is not JSON/],
    ['a wrong field', '{"title":"A"}\n{"title":1}\n', /^message 2: title must be string, is 1$/],
    ['no object', '[]\n', /^message 1: the body must be an object/],
    ['bad UTF-8', Buffer.from([0x22, 0xff, 0x22, 0x0a]), /^a line must be UTF-8$/],
    ['a long line', `{"title":"${'x'.repeat(2_000)}"}\n`, /^a line must be <= 1000 bytes$/],
    ['a long line without an end', `{"title":"${'x'.repeat(2_000)}`, /^a line must be <= 1000 bytes$/],
  ];
  for (const [name, body, words] of bad) {
    it(`is refused for ${name}, and the connection stays`, async () => {
      await using edge = await startEdge(() => {}, { bodyLimitBytes: 1_000 });
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      for (let round = 0; round < 2; round++) {
        const { sent, reply } = upload(edge.port, uploadPath, agent);
        sent.end(body);
        const response = await reply;
        const { code, message } = JSON.parse(await text(response));
        assert.deepEqual([response.statusCode, code], [400, 3]);
        assert.match(message, words);
      }
      agent.destroy();
      for (const call of edge.calls) assert.ok(call.cancelled);
    });
  }

  const refused: [name: string, path: string, init: RequestInit, httpStatus: number, words: RegExp][] = [
    [
      'JSON',
      uploadPath,
      { method: 'POST', body: '{}', headers: { 'content-type': 'application/json' } },
      415,
      /x-ndjson/,
    ],
    ['text', uploadPath, { method: 'POST', body: '{}' }, 415, /x-ndjson/],
    [
      'NDJSON for one message',
      '/library.v1.Library/Echo',
      { method: 'POST', body: '{}', headers: ndjson },
      415,
      /json$/,
    ],
    ['a query', `${discussPath}?title=x`, { method: 'POST', headers: ndjson, body: '{}' }, 400, /title/],
    ['GET', '/v1/shelves/a/discussion', {}, 426, /by WebSocket/],
  ];
  for (const [name, path, init, httpStatus, words] of refused) {
    it(`is ${httpStatus} for ${name}`, async () => {
      await using edge = await startEdge(() => {});
      const reply = await fetch(edge.url + path, init);
      const { message } = (await reply.json()) as { message: string };
      assert.equal(reply.status, httpStatus, message);
      assert.match(message, words);
      assert.equal(edge.calls.length, 0);
    });
  }

  it('gets its reply before its end, and the connection closes if it goes on', async () => {
    await using edge = await startEdge((call) => call.status(Code.FAILED_PRECONDITION, { details: 'enough' }));
    const { sent, reply } = upload(edge.port, uploadPath);
    sent.write('{"title":"A"}\n');
    const response = await reply;
    assert.deepEqual([response.statusCode, await text(response)], [400, '{"code":9,"message":"enough"}']);
    const closed = closeOf(sent);
    const timer = setInterval(() => sent.write('{"title":"A"}\n'), 20);
    await closed;
    clearInterval(timer);
  });

  it('that was cut is no end', async () => {
    await using edge = await startEdge(() => {});
    for (const end of ['destroy', 'resetAndDestroy', 'end'] as const) {
      const client = connect(edge.port, '127.0.0.1');
      client.on('error', () => {});
      client.write(
        `POST ${uploadPath} HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n`,
      );
      client.write('e\r\n{"title":"A"}\n\r\n');
      const calls = edge.calls.length + 1;
      await until(() => edge.calls.length === calls, 'the call');
      client[end]();
      const call = edge.calls.at(-1);
      await until(() => call?.cancelled !== undefined, 'the cancellation');
      assert.equal(call?.requestsEnded, false);
      client.destroy();
    }
  });

  it('ends when it has stood still for the idle timeout, however it drips', async () => {
    await using edge = await startEdge(() => {}, { streamIdleTimeoutMs: 200 });
    const { sent, reply } = upload(edge.port, uploadPath);
    sent.write('{"title":"A"}\n');
    const timer = setInterval(() => sent.write(' '), 20);
    const response = await reply.finally(() => clearInterval(timer));
    assert.deepEqual(
      [response.statusCode, await text(response)],
      [504, '{"code":4,"message":"the stream was idle for 200 ms"}'],
    );
    sent.destroy();
  });

  it('is told to come back in a drain', async () => {
    await using edge = await startEdge(() => {});
    const { sent, reply } = upload(edge.port, uploadPath);
    sent.write('{"title":"A"}\n');
    await until(() => edge.calls.length === 1, 'the call');
    edge.server.drain(0);
    const response = await reply;
    assert.equal(response.statusCode, 503);
    assert.match(response.headers['retry-after'] ?? '', /^[123]$/);
    await text(response);
    sent.destroy();
  });
});

describe('streams both ways', () => {
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

  it('are NDJSON in both, at the same time', async () => {
    await using edge = await startEdge(discuss);
    const { sent, reply } = upload(edge.port, discussPath);
    sent.write('{"title":"A"}\n');
    const response = await reply;
    const received: string[] = [];
    response.setEncoding('utf8').on('data', (chunk: string) => received.push(chunk));
    await until(() => received.length === 1, 'the first reply');
    sent.end('{"title":"B"}\n');
    await once(response, 'end');
    assert.equal(received.join(''), '{"result":{"title":"A"}}\n{"result":{"title":"B"}}\n{"status":{"code":0}}\n');
  });

  it('end with a status at a request that is wrong', async () => {
    await using edge = await startEdge(discuss);
    const { sent, reply } = upload(edge.port, discussPath);
    sent.write('{"title":"A"}\n');
    const response = await reply;
    sent.end('{');
    assert.match(
      await text(response),
      /^\{"result":.*\n\{"status":\{"code":3,"message":"message 2: the body is not JSON/,
    );
  });

  it('are cut, without a word in between, where what comes is no HTTP any more', async () => {
    await using edge = await startEdge(discuss);
    const head = `POST ${discussPath} HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n`;
    const client = connect(edge.port, '127.0.0.1');
    let received = '';
    client.setEncoding('latin1').on('data', (chunk) => {
      received += chunk;
    });
    client.on('error', () => {});
    client.write(`${head}e\r\n{"title":"A"}\n\r\n`);
    await until(() => received.includes('result'), 'the first reply');
    client.write('zz\r\n');
    await closeOf(client);
    assert.equal(received.match(/HTTP\/1\.1/g)?.length, 1, received);
    assert.doesNotMatch(received, /status/);
    await until(() => edge.calls[0]?.cancelled !== undefined, 'the cancellation');
    assert.match(await exchangeRaw(edge.port, 'zz\r\n\r\n'), /^HTTP\/1.1 400 /);
  });
});

describe('the number of open streams', () => {
  it('is bounded', async () => {
    await using edge = await startEdge((call) => call.book('A'), { maxStreams: 2 });
    const watch = () => fetch(`${edge.url}/v1/shelves/a/books:watch`);
    const open = [await watch(), await watch()];
    assert.match(await edge.registry.metrics(), /^http_server_open_streams\{form="ndjson"\} 2$/m);
    const refused = await watch();
    assert.deepEqual(
      [refused.status, refused.headers.get('retry-after'), await refused.json()],
      [
        503,
        '1',
        {
          code: 8,
          message: '2 streams are open, the most that this gateway takes',
          details: [{ '@type': 'type.googleapis.com/google.rpc.RetryInfo', retryDelay: '1s' }],
        },
      ],
    );
    assert.equal(edge.calls.length, 2);
    edge.calls[0]?.status(Code.OK);
    await open[0]?.text();
    assert.equal((await watch()).status, 200);
    assert.match(await edge.registry.metrics(), /^http_server_open_streams\{form="ndjson"\} 2$/m);
  });
});
