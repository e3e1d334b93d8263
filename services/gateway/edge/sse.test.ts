import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import { Code } from '#runtime/call/status.ts';
import { comeBackLater, statusOf } from './errors.ts';
import { type FakeCall, startEdge, until } from './testing.ts';

const watchPath = '/v1/shelves/a/books:watch';
const events = { accept: 'text/event-stream' };

interface Event {
  readonly event: string;
  readonly data: string;
  readonly id: string | undefined;
  readonly retry: string | undefined;
}

/** The events of a stream, as the standard reads them; comments are left out. */
function parseEvents(text: string): Event[] {
  assert.ok(text.endsWith('\n\n'), text);
  return text
    .slice(0, -2)
    .split('\n\n')
    .filter((block) => block !== ':')
    .map((block) => {
      const fields = new Map(block.split('\n').map((line) => /^(\w+): (.*)$/.exec(line)?.slice(1) as [string, string]));
      const field = (name: string) => fields.get(name);
      return { event: field('event') ?? 'message', data: field('data') ?? '', id: field('id'), retry: field('retry') };
    });
}

async function readEvents(url: string, headers: Record<string, string> = events): Promise<Event[]> {
  const reply = await fetch(url, { headers });
  assert.deepEqual([reply.status, reply.headers.get('content-type')], [200, 'text/event-stream']);
  return parseEvents(await reply.text());
}

describe('a stream of events', () => {
  it('is one event a message, and a status at its end', async () => {
    await using edge = await startEdge((call) => {
      call.headers([['served-by', 'pod-1']]);
      call.book('A\nB');
      call.book('C');
      call.status(Code.OK);
    });
    const reply = await fetch(edge.url + watchPath, { headers: events });
    assert.equal(reply.headers.get('content-type'), 'text/event-stream');
    assert.equal(reply.headers.get('cache-control'), 'no-store');
    assert.equal(reply.headers.get('served-by'), 'pod-1');
    assert.equal(
      await reply.text(),
      'data: {"title":"A\\nB"}\n\ndata: {"title":"C"}\n\nid: end\nevent: status\ndata: {"code":0}\n\n',
    );
  });

  const accepts: [accept: string, contentType: string][] = [
    ['text/event-stream', 'text/event-stream'],
    ['Text/Event-Stream; charset=utf-8, */*;q=0.1', 'text/event-stream'],
    ['application/x-ndjson;q=0.5, text/event-stream;q=0.6', 'text/event-stream'],
    ['application/x-ndjson, text/event-stream', 'application/x-ndjson'],
    ['text/event-stream;q=0', 'application/x-ndjson'],
    ['*/*', 'application/x-ndjson'],
    ['application/json', 'application/x-ndjson'],
  ];
  for (const [accept, contentType] of accepts) {
    it(`is ${contentType} for Accept: ${accept}`, async () => {
      await using edge = await startEdge((call) => call.status(Code.OK));
      const reply = await fetch(edge.url + watchPath, { headers: { accept } });
      assert.equal(reply.headers.get('content-type'), contentType);
      await reply.text();
    });
  }

  it('sends an EventSource that comes back after the end away for good', async () => {
    await using edge = await startEdge((call) => call.status(Code.OK));
    const [end] = await readEvents(edge.url + watchPath);
    const again = await fetch(edge.url + watchPath, { headers: { ...events, 'last-event-id': end?.id ?? '' } });
    assert.equal(again.status, 204);
    assert.equal(edge.calls.length, 1);
  });

  it('is an HTTP error if it fails before its first message', async () => {
    await using edge = await startEdge((call) => call.status(Code.NOT_FOUND, { details: 'no such shelf' }));
    const reply = await fetch(edge.url + watchPath, { headers: events });
    assert.deepEqual([reply.status, await reply.json()], [404, { code: 5, message: 'no such shelf' }]);
  });

  it('ends with the status of a later failure, for good', async () => {
    await using edge = await startEdge((call) => {
      call.book('A');
      call.status(Code.ABORTED, { details: 'changed' });
    });
    const end = (await readEvents(edge.url + watchPath)).at(-1);
    assert.deepEqual(end, { event: 'status', data: '{"code":10,"message":"changed"}', id: 'end', retry: undefined });
  });

  it('lets an EventSource come back while the service is unavailable', async () => {
    await using edge = await startEdge((call) => call.status(Code.UNAVAILABLE, { details: 'x', from: 'local' }));
    assert.deepEqual(await readEvents(edge.url + watchPath), [
      { event: 'status', data: '{"code":14,"message":"the service is unavailable"}', id: undefined, retry: undefined },
    ]);
  });

  it('says when to come back where the service does', async () => {
    const { code, details, trailers } = statusOf(comeBackLater('moving', 1_500));
    await using edge = await startEdge((call) => call.status(code, { details, trailers }));
    const [end] = await readEvents(edge.url + watchPath);
    assert.equal(end?.retry, '1500');
  });

  it('tells each reader in a drain to come back, not all at once', async () => {
    await using edge = await startEdge(() => {});
    const readers = 10;
    const ends = Promise.all(Array.from({ length: readers }, () => readEvents(edge.url + watchPath)));
    await until(() => edge.calls.length === readers, 'the streams');
    edge.server.drain(50);
    const retries = (await ends).map(([end]) => {
      assert.equal(end?.event, 'status');
      assert.match(end.data, /^\{"code":14,"message":"the gateway is shutting down",.*RetryInfo/);
      assert.equal(end.id, undefined);
      return Number(end.retry);
    });
    assert.ok(retries.every((retry) => retry >= 500 && retry <= 2_500));
    assert.ok(new Set(retries).size > 1, String(retries));
  });

  it('shows that it is alive while it is silent, from its beginning', async () => {
    await using edge = await startEdge(() => {}, { streamHeartbeatMs: 20 });
    const reply = await fetch(edge.url + watchPath, { headers: events });
    let text = '';
    const reading = (async () => {
      for await (const chunk of reply.body ?? []) text += Buffer.from(chunk).toString();
    })();
    await until(() => text.startsWith(':\n\n:\n\n'), 'two comments');
    edge.calls[0]?.book('A');
    edge.calls[0]?.status(Code.NOT_FOUND);
    await reading;
    assert.deepEqual(
      parseEvents(text).map(({ data }) => data),
      ['{"title":"A"}', '{"code":5}'],
    );
  });

  it('ends when it has stood still for the idle timeout, whatever it said to show that it is alive', async () => {
    await using edge = await startEdge((call) => call.book('A'), { streamIdleTimeoutMs: 100, streamHeartbeatMs: 20 });
    const end = (await readEvents(edge.url + watchPath)).at(-1);
    assert.match(end?.data ?? '', /^\{"code":4,"message":"the stream was idle for 100 ms"\}$/);
  });

  it('is cancelled when its reader goes away', async () => {
    await using edge = await startEdge((call) => call.book('A'));
    const abort = new AbortController();
    await fetch(edge.url + watchPath, { headers: events, signal: abort.signal });
    abort.abort();
    await until(() => edge.calls[0]?.cancelled?.code === Code.CANCELLED, 'the cancellation');
  });

  it('is held back by a slow reader, and goes on with it', async () => {
    const title = 'x'.repeat(10_000);
    const total = 3_000;
    let sent = 0;
    await using edge = await startEdge(
      (call: FakeCall) => {
        const timer = setInterval(() => {
          for (; call.credits > 0 && sent < total; sent++) call.book(title);
          if (sent < total && call.cancelled === undefined) return;
          clearInterval(timer);
          call.status(Code.OK);
        }, 1);
      },
      { streamHeartbeatMs: 5 },
    );
    const client = connect(edge.port, '127.0.0.1');
    client.write(`GET ${watchPath} HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\nconnection: close\r\n\r\n`);
    client.pause();
    let before = -1;
    await until(() => {
      const still = sent === before && sent > 0 && edge.calls[0]?.credits === 0;
      before = sent;
      return still;
    }, 'the stream to stand still');
    assert.ok(sent < total, `${sent} messages were sent to a reader that reads none`);
    let tail = '';
    client.on('data', (chunk: Buffer) => {
      tail = (tail + chunk.toString('latin1')).slice(-100);
    });
    client.resume();
    await once(client, 'close');
    assert.equal(sent, total);
    assert.match(tail, /event: status\ndata: \{"code":0\}\n\n\r\n0\r\n\r\n$/);
  });
});
