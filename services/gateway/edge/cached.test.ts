import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { Registry } from 'prom-client';
import type { Metadata } from '#runtime/call/call.ts';
import { Code, RpcError } from '#runtime/call/status.ts';
import type { CachePolicy } from '../policy-schema.ts';
import { createCache } from '../stages/cache.ts';
import { routesOf } from '../transcoding/routes.ts';
import { createCachedServe } from './cached.ts';
import { statusOf } from './errors.ts';
import type { Exchange } from './exchange.ts';
import { descriptors, type FakeCall, startEdge, until } from './testing.ts';

const path = '/v1/shelves/a/books/1';

function policyFor(cache: Partial<CachePolicy> = {}) {
  const policy = { ttl: 60_000, staleWhileRevalidate: 0, staleIfError: 0, key: [], ...cache };
  return [{ name: [{ service: 'library.v1.Library', method: 'GetBook' }], cache: policy }];
}

/** Replies with a book whose title counts the calls. */
function answer(this: { calls: number }, call: FakeCall): void {
  call.headers([['served-by', 'pod']]);
  call.book(`${++this.calls}`);
  call.status(Code.OK);
}

function counting() {
  const counter = { calls: 0 };
  return answer.bind(counter);
}

const get = (edge: { url: string }, headers: Record<string, string> = {}, target = path) =>
  fetch(edge.url + target, { headers });

/** With If-None-Match, fetch() says no-cache unless something is said. */
const anyAge = 'max-age=3600';

/** The status, the title or error, and the Cache-Status of a reply. */
async function seen(response: Response): Promise<[status: number, title: string, cacheStatus: string | null]> {
  const text = await response.text();
  const { title, message } = (text === '' ? {} : JSON.parse(text)) as { title?: string; message?: string };
  return [response.status, title ?? message ?? '', response.headers.get('cache-status')];
}

/** Moves the clock that ages are read from. Timers stay as they are. */
function clock(t: TestContext) {
  const now = performance.now.bind(performance);
  let aheadMs = 0;
  t.mock.method(performance, 'now', () => now() + aheadMs);
  return { pass: (ms: number) => (aheadMs += ms) };
}

describe('a reply in the cache', () => {
  it('is given again as it was, with its age and how it was come by', async (t) => {
    const { pass } = clock(t);
    await using edge = await startEdge(counting(), { policies: policyFor({ staleIfError: 30_000 }) });
    const first = await get(edge);
    assert.deepEqual(await seen(first), [200, '1', 'tandem; fwd=uri-miss; stored; ttl=59']);
    assert.equal(first.headers.get('age'), null);
    pass(10_000);
    const second = await get(edge);
    assert.deepEqual(await seen(second), [200, '1', 'tandem; hit; ttl=49']);
    assert.equal(second.headers.get('age'), '10');
    for (const { headers } of [first, second]) {
      assert.equal(headers.get('content-type'), 'application/json; charset=utf-8');
      assert.equal(headers.get('cache-control'), 'public, max-age=60, stale-if-error=30');
      assert.equal(headers.get('vary'), 'authorization');
      assert.equal(headers.get('served-by'), 'pod');
      assert.match(headers.get('etag') ?? '', /^"[\w-]{22}"$/);
    }
    assert.equal(edge.calls.length, 1);
  });

  it('is not given for another request, nor after its time', async (t) => {
    const { pass } = clock(t);
    await using edge = await startEdge(counting(), { policies: policyFor() });
    await get(edge);
    assert.deepEqual(await seen(await get(edge, {}, '/v1/shelves/a/books/2')), [
      200,
      '2',
      'tandem; fwd=uri-miss; stored; ttl=59',
    ]);
    pass(60_000);
    assert.deepEqual(await seen(await get(edge)), [200, '3', 'tandem; fwd=stale; stored; ttl=59']);
  });

  it('is the same through each route of its method', async () => {
    await using edge = await startEdge(counting(), { policies: policyFor() });
    await get(edge);
    const other = await get(edge, {}, '/v1/books/shelves/a/books/1:find');
    assert.deepEqual(await seen(other), [200, '1', 'tandem; hit; ttl=59']);
    const link = await fetch(`${edge.url}/v1/links/x`, { method: 'LINK', headers: { 'if-none-match': '*' } });
    assert.deepEqual([link.status, link.headers.get('etag')], [200, null]);
    assert.equal(edge.calls.length, 2);
  });

  it('differs by the metadata that the key names, and depends on no other', async () => {
    await using edge = await startEdge(counting(), { policies: policyFor({ key: ['accept-language', 'tenant'] }) });
    const swedish = { 'accept-language': 'sv', 'grpc-metadata-tenant': 'a', 'grpc-metadata-other': 'x' };
    const first = await get(edge, swedish);
    assert.deepEqual(await seen(first), [200, '1', 'tandem; fwd=miss; stored; ttl=59']);
    assert.equal(first.headers.get('vary'), 'authorization, accept-language, grpc-metadata-tenant');
    assert.deepEqual(await seen(await get(edge, { ...swedish, 'accept-language': 'fi' })), [
      200,
      '2',
      'tandem; fwd=miss; stored; ttl=59',
    ]);
    assert.deepEqual(await seen(await get(edge, { 'accept-language': 'sv', 'grpc-metadata-tenant': 'b' })), [
      200,
      '3',
      'tandem; fwd=miss; stored; ttl=59',
    ]);
    assert.deepEqual(await seen(await get(edge, { ...swedish, 'grpc-metadata-other': 'y' })), [
      200,
      '1',
      'tandem; hit; ttl=59',
    ]);
    const names = edge.calls.map(({ start }) => start.metadata.map(([name]) => name).sort());
    assert.deepEqual(names[0], ['accept-language', 'tenant', 'x-request-id']);
  });

  it('is not for those who say who they are, unless the key does', async () => {
    const authorization = 'Bearer a';
    {
      await using edge = await startEdge(counting(), { policies: policyFor() });
      await get(edge);
      const personal = await get(edge, { authorization });
      assert.deepEqual(await seen(personal), [200, '2', 'tandem; fwd=bypass']);
      assert.equal(personal.headers.get('cache-control'), 'no-store');
      assert.deepEqual(await seen(await get(edge)), [200, '1', 'tandem; hit; ttl=59']);
    }
    await using edge = await startEdge(counting(), { policies: policyFor({ key: ['authorization'] }) });
    await get(edge, { authorization });
    const own = await get(edge, { authorization });
    assert.deepEqual(await seen(own), [200, '1', 'tandem; hit; ttl=59']);
    assert.equal(own.headers.get('cache-control'), 'private, max-age=60');
    assert.equal((await seen(await get(edge, { authorization: 'Bearer b' })))[1], '2');
    assert.equal((await seen(await get(edge)))[1], '3');
  });

  it('is shared by those whose claims are the same, where the key names what a claim is passed as', () => {
    const sent: Metadata[] = [];
    const library = descriptors.methods.find(({ method }) => method.path.endsWith('/GetBook'));
    const [route = assert.fail('no route')] = routesOf(library ?? assert.fail('no GetBook'));
    const serve = createCachedServe({
      route,
      types: descriptors.types,
      cache: createCache({ maxBytes: 1_048_576, registry: new Registry() }),
      policy: { ttl: 60_000, staleWhileRevalidate: 0, staleIfError: 0, key: ['x-user-id'] },
      methodTimeoutMs: undefined,
      next: {
        start({ metadata }) {
          sent.push(metadata);
          return { request() {}, write: () => true, end() {}, cancel() {} };
        },
      },
    });
    /** Whether the cache takes a request with a token, as the pipeline hands it over. */
    const takes = (authorization: string, claimed: Metadata) => {
      const exchange = {
        headers: { authorization },
        identity: { claims: {}, metadata: claimed },
        observation: {},
        reply: { raw: { once() {} }, headers() {} },
        segments: ['v1', 'shelves', 'a', 'books', '1'],
        query: '',
        body: '',
      } as unknown as Exchange;
      const metadata: Metadata = [['authorization', authorization], ...claimed];
      const deadlineMs = performance.now() + 60_000;
      return serve(exchange, {
        method: route.service.method,
        metadata,
        deadlineMs,
        priority: 'high',
        context: undefined,
        avoid: [],
      });
    };
    assert.ok(takes('Bearer 1', [['x-user-id', 'ann']]));
    assert.ok(takes('Bearer 2', [['x-user-id', 'ann']]));
    assert.ok(takes('Bearer 3', [['x-user-id', 'bob']]));
    assert.ok(!takes('Bearer 4', []), 'a token without the claim');
    assert.ok(!takes('Bearer 5', [['x-tenant', 'a']]), 'with another one');
    assert.deepEqual(sent, [[['x-user-id', 'ann']], [['x-user-id', 'bob']]]);
  });

  it('is told by its ETag alone to who has it', async () => {
    await using edge = await startEdge(counting(), { policies: policyFor() });
    const etag = (await get(edge)).headers.get('etag') ?? '';
    for (const named of [etag, `W/${etag}`, `"x", ${etag}`, '*']) {
      const response = await get(edge, { 'if-none-match': named, 'cache-control': anyAge });
      assert.deepEqual(await seen(response), [304, '', 'tandem; hit; ttl=59']);
      assert.equal(response.headers.get('etag'), etag);
      assert.equal(response.headers.get('cache-control'), 'public, max-age=60');
      assert.equal(response.headers.get('vary'), 'authorization');
      assert.equal(response.headers.get('content-type'), null);
    }
    assert.equal((await get(edge, { 'if-none-match': '"x"', 'cache-control': anyAge })).status, 200);
    const forwarded = await get(edge, { 'if-none-match': '*', 'cache-control': 'no-cache' });
    assert.deepEqual(await seen(forwarded), [304, '', 'tandem; fwd=request; stored; ttl=59']);
  });
});

describe("the client's Cache-Control", () => {
  const cases: [header: string, afterMs: number, status: number, title: string, cacheStatus: string][] = [
    ['no-cache', 10_000, 200, '2', 'tandem; fwd=request; stored; ttl=59'],
    ['no-store', 10_000, 200, '2', 'tandem; fwd=bypass'],
    ['max-age=20', 10_000, 200, '1', 'tandem; hit; ttl=49'],
    ['max-age=5', 10_000, 200, '2', 'tandem; fwd=request; stored; ttl=59'],
    ['max-age=90', 70_000, 200, '2', 'tandem; fwd=stale; stored; ttl=59'],
    ['max-age=90, max-stale=20', 70_000, 200, '1', 'tandem; hit; ttl=-11'],
    ['min-fresh=40', 10_000, 200, '1', 'tandem; hit; ttl=49'],
    ['min-fresh=55', 10_000, 200, '2', 'tandem; fwd=request; stored; ttl=59'],
    ['max-stale=20', 70_000, 200, '1', 'tandem; hit; ttl=-11'],
    ['max-stale=5', 70_000, 200, '2', 'tandem; fwd=stale; stored; ttl=59'],
    ['max-stale', 700_000, 200, '1', 'tandem; hit; ttl=-641'],
    ['only-if-cached', 10_000, 200, '1', 'tandem; hit; ttl=49'],
    [
      'only-if-cached',
      70_000,
      504,
      'no reply is stored that would do, and the request wants no other',
      'tandem; detail=only-if-cached',
    ],
  ];
  for (const [header, afterMs, ...expected] of cases) {
    it(`${header}, after ${afterMs / 1_000} s`, async (t) => {
      const { pass } = clock(t);
      await using edge = await startEdge(counting(), { policies: policyFor() });
      await get(edge);
      pass(afterMs);
      assert.deepEqual(await seen(await get(edge, { 'cache-control': header })), expected);
    });
  }

  it('no-store leaves nothing behind', async () => {
    await using edge = await startEdge(counting(), { policies: policyFor() });
    await get(edge, { 'cache-control': 'no-store' });
    assert.deepEqual(await seen(await get(edge)), [200, '2', 'tandem; fwd=uri-miss; stored; ttl=59']);
  });
});

describe("the upstream's metadata", () => {
  for (const cacheControl of ['no-store', 'private', 'max-age=0']) {
    it(`cache-control: ${cacheControl} keeps a reply out of the store`, async () => {
      let calls = 0;
      await using edge = await startEdge(
        (call) => {
          call.headers([['cache-control', cacheControl]]);
          call.book(`${++calls}`);
          call.status(Code.OK);
        },
        { policies: policyFor() },
      );
      const first = await get(edge);
      assert.deepEqual(await seen(first), [200, '1', 'tandem; fwd=uri-miss']);
      assert.equal(first.headers.get('cache-control'), 'no-store');
      assert.deepEqual(await seen(await get(edge)), [200, '2', 'tandem; fwd=uri-miss']);
    });
  }

  it('cache-control: max-age shortens the time of the policy, and never makes it longer', async () => {
    const maxAges = ['7', '700'];
    await using edge = await startEdge(
      (call) => {
        call.headers([['cache-control', `max-age=${maxAges.shift()}`]]);
        call.book('1');
        call.status(Code.OK);
      },
      { policies: policyFor() },
    );
    assert.equal((await get(edge)).headers.get('cache-control'), 'public, max-age=7');
    assert.equal((await get(edge, {}, '/v1/shelves/a/books/2')).headers.get('cache-control'), 'public, max-age=60');
  });

  it('sets no cookie for all', async () => {
    await using edge = await startEdge(
      (call) => {
        call.headers([['set-cookie', 'a=1']]);
        call.book('1');
        call.status(Code.OK);
      },
      { policies: policyFor() },
    );
    assert.deepEqual((await get(edge)).headers.get('grpc-metadata-set-cookie'), null);
  });
});

describe('an error', () => {
  const unavailable = statusOf(new RpcError(Code.UNAVAILABLE, 'gone'));

  it('is not kept', async () => {
    const results = [Code.NOT_FOUND, Code.OK];
    await using edge = await startEdge(
      (call) => {
        call.headers([['served-by', 'pod']]);
        const code = results.shift() ?? Code.OK;
        if (code === Code.OK) call.book('1');
        call.status(code, { details: 'none' });
      },
      { policies: policyFor() },
    );
    const failed = await get(edge);
    assert.deepEqual(await seen(failed), [404, 'none', 'tandem; fwd=uri-miss']);
    assert.equal(failed.headers.get('cache-control'), 'no-store');
    assert.equal(failed.headers.get('served-by'), 'pod');
    assert.deepEqual(await seen(await get(edge)), [200, '1', 'tandem; fwd=uri-miss; stored; ttl=59']);
  });

  it('of a reply that is no message is not kept either', async () => {
    const replies = [Uint8Array.of(255), Uint8Array.of()];
    await using edge = await startEdge(
      (call) => {
        call.message(replies.shift() ?? Uint8Array.of());
        call.status(Code.OK);
      },
      { policies: policyFor() },
    );
    assert.deepEqual(await seen(await get(edge)), [500, 'internal error', 'tandem; fwd=uri-miss']);
    assert.deepEqual(await seen(await get(edge)), [200, '', 'tandem; fwd=uri-miss; stored; ttl=59']);
  });

  it('has what is stale in its place, where the policy allows that for so long and the client does not forbid it', async (t) => {
    const { pass } = clock(t);
    let isDown = false;
    const ok = counting();
    await using edge = await startEdge((call) => (isDown ? call.status(Code.UNAVAILABLE, unavailable) : ok(call)), {
      policies: policyFor({ staleIfError: 60_000 }),
    });
    await get(edge);
    isDown = true;
    pass(90_000);
    const stale = await get(edge);
    assert.deepEqual(await seen(stale), [
      200,
      '1',
      'tandem; fwd=stale; fwd-status=503; ttl=-31; detail=stale-if-error',
    ]);
    assert.equal(stale.headers.get('age'), '90');
    assert.deepEqual(await seen(await get(edge, { 'cache-control': 'no-cache' })), [503, 'gone', 'tandem; fwd=stale']);
    pass(31_000);
    assert.deepEqual(await seen(await get(edge)), [503, 'gone', 'tandem; fwd=stale']);
  });

  it("of the request's own making has not", async (t) => {
    const { pass } = clock(t);
    const codes: number[] = [Code.OK, Code.NOT_FOUND];
    await using edge = await startEdge(
      (call) => {
        call.message(Uint8Array.of());
        call.status(codes.shift() ?? Code.OK);
      },
      { policies: policyFor({ staleIfError: 60_000 }) },
    );
    await get(edge);
    pass(61_000);
    assert.equal((await get(edge)).status, 404);
  });
});

describe('while a stale reply may be given', () => {
  it('it is, and one call fetches it again that no client can end', async (t) => {
    const { pass } = clock(t);
    const held: FakeCall[] = [];
    const ok = counting();
    await using edge = await startEdge((call) => (edge.calls.length === 1 ? ok(call) : void held.push(call)), {
      policies: policyFor({ staleWhileRevalidate: 30_000 }),
      timeoutMs: 3_000,
    });
    await get(edge);
    pass(70_000);
    for (let i = 0; i < 3; i++) assert.deepEqual(await seen(await get(edge)), [200, '1', 'tandem; hit; ttl=-11']);
    await until(() => held.length === 1, 'the refresh');
    const [refresh] = held as [FakeCall];
    assert.equal(edge.calls.length, 2);
    assert.ok(Math.abs(refresh.start.deadlineMs - performance.now() - 3_000) < 1_000);
    assert.equal(refresh.cancelled, undefined);
    ok(refresh);
    assert.deepEqual(await seen(await get(edge)), [200, '2', 'tandem; hit; ttl=59']);
    const text = await edge.registry.metrics();
    assert.match(
      text,
      /^tandem_cache_refreshes_total\{grpc_method="library.v1.Library\/GetBook",grpc_status="OK"\} 1$/m,
    );
  });

  it('a refresh that fails leaves it there, and the next request tries again', async (t) => {
    const { pass } = clock(t);
    const ok = counting();
    await using edge = await startEdge((call) => (edge.calls.length === 1 ? ok(call) : call.status(Code.UNAVAILABLE)), {
      policies: policyFor({ staleWhileRevalidate: 30_000 }),
    });
    await get(edge);
    pass(70_000);
    for (let calls = 2; calls < 5; calls++) {
      assert.deepEqual(await seen(await get(edge)), [200, '1', 'tandem; hit; ttl=-11']);
      await until(() => edge.calls.length === calls, 'the refresh');
    }
  });

  it('closing ends the refresh, and begins none', async (t) => {
    const { pass } = clock(t);
    const ok = counting();
    await using edge = await startEdge((call) => edge.calls.length === 1 && ok(call), {
      policies: policyFor({ staleWhileRevalidate: 30_000 }),
    });
    await get(edge);
    pass(70_000);
    await get(edge);
    await until(() => edge.calls.length === 2, 'the refresh');
    edge.cache.close();
    assert.equal(edge.calls[1]?.cancelled?.code, Code.CANCELLED);
    assert.deepEqual(await seen(await get(edge)), [200, '1', 'tandem; hit; ttl=-11']);
    assert.equal(edge.calls.length, 2);
  });
});

describe('what is seen of it', () => {
  it('each answer is counted and logged by how it came about', async () => {
    await using edge = await startEdge(counting(), { policies: policyFor() });
    for (const cacheControl of ['', '', 'no-cache', 'no-store']) {
      await (await get(edge, cacheControl === '' ? {} : { 'cache-control': cacheControl })).text();
    }
    await until(() => edge.logLines.length >= 4, 'the log');
    const logged = edge.logLines.map((line) => JSON.parse(line) as Record<string, unknown>);
    assert.deepEqual(
      logged.map(({ cache, replica, grpcCode }) => [cache, replica, grpcCode]),
      [
        ['miss', 'replica-1', 'OK'],
        ['hit', undefined, undefined],
        ['requested', 'replica-1', 'OK'],
        ['bypass', 'replica-1', 'OK'],
      ],
    );
    const text = await edge.registry.metrics();
    for (const [outcome, count] of [
      ['miss', 1],
      ['hit', 1],
      ['requested', 1],
      ['bypass', 1],
      ['collapsed', 0],
    ]) {
      const line = `tandem_cache_lookups_total{grpc_method="library.v1.Library/GetBook",outcome="${outcome}"} ${count}`;
      assert.ok(text.includes(line), line);
    }
    assert.match(text, /^tandem_cache_entries 1$/m);
    assert.match(text, /^tandem_cache_calls 0$/m);
  });
});
