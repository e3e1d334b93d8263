import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { WebSocket } from 'ws';
import { Code } from '#runtime/call/status.ts';
import type { CorsConfig } from '../edge-schema.ts';
import { createCors } from './cors.ts';
import { type FakeCall, startEdge } from './testing.ts';

const bookPath = '/v1/shelves/a/books/b';
const watchPath = '/v1/shelves/a/books:watch';
const app = 'https://app.example';
const cors: CorsConfig = {
  origins: [app, 'http://localhost:5173'],
  allowHeaders: ['x-api-key'],
  exposeHeaders: ['grpc-metadata-x-cost'],
  credentials: false,
  maxAge: 600_000,
};

function answer(call: FakeCall): void {
  call.headers([['served-by', 'pod-1']]);
  call.book('T');
  call.status(Code.OK);
}

function corsHeaders({ headers }: Response): Record<string, string> {
  const names = [...headers].filter(([name]) => name.startsWith('access-control-') || name === 'vary');
  return Object.fromEntries(names.map(([name, value]) => [name.replace('access-control-', ''), value]));
}

const allowed = { 'allow-origin': app, 'expose-headers': '*', vary: 'origin' };

describe('a page of another origin', () => {
  const replies: [
    what: string,
    path: string,
    init: { method?: string; body?: string; headers?: Record<string, string> },
    httpStatus: number,
  ][] = [
    ['a reply', bookPath, {}, 200],
    ['a stream', watchPath, {}, 200],
    ['an event stream', watchPath, { headers: { accept: 'text/event-stream' } }, 200],
    ['an error', '/no/such/path', {}, 404],
    [
      'a bad body',
      '/library.v1.Library/Echo',
      { method: 'POST', body: '{', headers: { 'content-type': 'application/json' } },
      400,
    ],
    ['a bad path', '/%ff', {}, 400],
  ];
  for (const [what, path, init, httpStatus] of replies) {
    it(`may read ${what} if it is allowed, and else may not`, async () => {
      await using edge = await startEdge(answer, { cors });
      const replyTo = (origin?: string) =>
        fetch(edge.url + path, { ...init, headers: { ...init.headers, ...(origin !== undefined && { origin }) } });
      const reply = await replyTo(app);
      assert.equal(reply.status, httpStatus);
      assert.deepEqual(corsHeaders(reply), allowed);
      for (const origin of ['https://evil.example', 'http://app.example', 'https://app.example.evil.example', 'null']) {
        assert.deepEqual(corsHeaders(await replyTo(origin)), { vary: 'origin' });
      }
      assert.deepEqual(corsHeaders(await replyTo()), { vary: 'origin' });
    });
  }

  it('is none of our business while CORS is off', async () => {
    await using edge = await startEdge(answer);
    assert.deepEqual(corsHeaders(await fetch(edge.url + bookPath, { headers: { origin: app } })), {});
    const preflight = { method: 'OPTIONS', headers: { origin: app, 'access-control-request-method': 'GET' } };
    assert.equal((await fetch(edge.url + bookPath, preflight)).status, 405);
  });

  it('may be of any origin where all are allowed, the same for all', async () => {
    await using edge = await startEdge(answer, { cors: { ...cors, origins: ['*'] } });
    for (const headers of [{ origin: 'https://any.example' }, {}] as Record<string, string>[]) {
      const reply = await fetch(edge.url + bookPath, { headers });
      assert.deepEqual(corsHeaders(reply), { 'allow-origin': '*', 'expose-headers': '*' });
    }
  });

  it('with credentials may read what is named', () => {
    const { headersFor } = createCors({ ...cors, credentials: true }, { request: [], reply: ['served-by'] });
    const headers = headersFor(app);
    assert.equal(headers['access-control-allow-credentials'], 'true');
    const exposed = headers['access-control-expose-headers']?.split(', ') ?? [];
    for (const name of ['x-request-id', 'x-trace-id', 'retry-after', 'served-by', 'grpc-metadata-x-cost']) {
      assert.ok(exposed.includes(name), name);
    }
    assert.ok(!exposed.includes('*'));
  });

  it('may open a WebSocket if it is allowed', async () => {
    await using edge = await startEdge(() => {}, { cors });
    const open = async (origin: string) => {
      const socket = new WebSocket(`ws://127.0.0.1:${edge.port}${watchPath}`, { origin });
      socket.on('error', () => {});
      const [event] = await Promise.race([
        once(socket, 'open').then(() => ['open']),
        once(socket, 'unexpected-response').then(([, { statusCode }]) => [statusCode]),
      ]);
      socket.terminate();
      return event;
    };
    assert.equal(await open(app), 'open');
    assert.equal(await open(`http://127.0.0.1:${edge.port}`), 'open');
    assert.equal(await open('https://evil.example'), 403);
  });
});

describe('a preflight', () => {
  const ask = (url: string, headers: Record<string, string>) =>
    fetch(url, { method: 'OPTIONS', headers: { origin: app, 'access-control-request-method': 'GET', ...headers } });

  it('is told what may be sent to a path that is served, and calls nothing', async () => {
    await using edge = await startEdge(answer, { cors });
    const reply = await ask(edge.url + bookPath, {
      'access-control-request-method': 'PATCH',
      'access-control-request-headers': 'authorization,cookie,grpc-metadata-tenant,x-api-key, X-Other',
    });
    assert.deepEqual([reply.status, await reply.text()], [204, '']);
    assert.deepEqual(corsHeaders(reply), {
      ...allowed,
      'allow-methods': 'PATCH',
      'allow-headers': 'authorization, grpc-metadata-tenant, x-api-key',
      'max-age': '600',
    });
    assert.match(reply.headers.get('x-request-id') ?? '', /./);
    assert.equal(edge.calls.length, 0);
  });

  it('of another origin, path or method is refused', async () => {
    await using edge = await startEdge(answer, { cors });
    const statusOf = async (path: string, headers: Record<string, string>) =>
      (await ask(edge.url + path, headers)).status;
    assert.equal(await statusOf(bookPath, { origin: 'https://evil.example' }), 403);
    assert.equal(await statusOf('/no/such/path', {}), 404);
    assert.equal(await statusOf(bookPath, { 'access-control-request-method': 'PUT' }), 405);
    assert.equal(await statusOf('/%ff', {}), 400);
  });

  it('is only what has an origin and asks for a method', async () => {
    await using edge = await startEdge(answer, { cors });
    const plain = await fetch(edge.url + bookPath, { method: 'OPTIONS', headers: { origin: app } });
    assert.deepEqual([plain.status, corsHeaders(plain)], [405, allowed]);
  });
});
