import assert from 'node:assert/strict';
import { type IncomingMessage, request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { fastify } from 'fastify';
import { ConfigError } from '#runtime/process/config.ts';
import { readDescriptors } from '../descriptors.ts';
import type { Exchange, ServedRoute } from '../edge/exchange.ts';
import { createRouteTable, routesOf } from '../transcoding/routes.ts';
import { createDocumentation } from './documentation.ts';
import { addPages, createPage } from './pages.ts';

const descriptors = readDescriptors(fileURLToPath(new URL('../../../proto/descriptors.binpb', import.meta.url)));
const routes = descriptors.methods.flatMap(routesOf);

/** The greeter's routes, which serve nothing here, with others instead of their templates. */
function tableOf(templates: readonly string[] = []) {
  const [first] = routes;
  assert.ok(first);
  const all = [
    ...routes,
    ...templates.flatMap((get) => routesOf({ ...first.service, rule: { get } })),
    ...routesOf({ ...first.service, rule: { post: '/docs' } }),
  ];
  return createRouteTable<ServedRoute>(all.map((route) => ({ route, serve: () => assert.fail('a route is asked') })));
}

describe('documentation', () => {
  let loads = 0;
  const counted = createPage({ path: '/counted', contentType: 'text/plain', load: async () => `${++loads}` });
  const lost = createPage({ path: '/lost', contentType: 'text/plain', load: async () => assert.fail('not there') });
  const table = addPages(tableOf(), [...createDocumentation(descriptors, routes), counted, lost]);
  const app = fastify();
  app.all('/*', (request, reply) => {
    const match = table.match(request.method, request.url);
    if (match.served === undefined) return reply.code(404).send(match.allow);
    match.served.serve({ headers: request.headers, reply } as Exchange);
    return undefined;
  });
  let url = '';
  before(async () => {
    await app.listen({ host: '127.0.0.1', port: 0 });
    url = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`;
  });
  after(() => app.close());

  it('is a page that finds all it needs on this host, and may use nothing else', async () => {
    const page = await fetch(`${url}/docs`);
    assert.equal(page.status, 200);
    assert.match(page.headers.get('content-type') ?? '', /^text\/html/);
    assert.match(page.headers.get('content-security-policy') ?? '', /default-src 'none'; script-src 'self';/);
    const html = await page.text();
    assert.doesNotMatch(html, /https?:|<script>|style=/);
    const files = [...html.matchAll(/(?:src|href)="(?!data:)([^"]+)"/g)].map(([, file = '']) => file);
    assert.deepEqual(files, ['docs/swagger-ui.css', 'openapi.json', 'docs/swagger-ui-bundle.js', 'docs/start.js']);
    for (const file of files) {
      const reply = await fetch(new URL(file, `${url}/docs`));
      assert.equal(reply.status, 200, file);
      assert.equal(reply.headers.get('x-content-type-options'), 'nosniff');
      assert.ok((await reply.text()).length > 100, file);
    }
    const script = await (await fetch(`${url}/docs/start.js`)).text();
    assert.match(script, /url: 'openapi.json',.*validatorUrl: null,/s);
  });

  it('is the document, which is made once and asked for again by its ETag', async () => {
    const first = await fetch(`${url}/openapi.json`);
    assert.equal(first.headers.get('content-type'), 'application/json');
    assert.equal(first.headers.get('cache-control'), 'no-cache');
    assert.equal(((await first.json()) as { openapi: string }).openapi, '3.1.1');
    const etag = first.headers.get('etag') ?? '';
    assert.match(etag, /^W\/"[\w-]{22}"$/);
    for (const [ifNoneMatch, status] of [
      [etag, 304],
      [`"x", ${etag}`, 304],
      ['*', 304],
      ['W/"x"', 200],
    ] as const) {
      const again = await fetch(`${url}/openapi.json`, { headers: { 'if-none-match': ifNoneMatch } });
      assert.equal(again.status, status, ifNoneMatch);
      assert.equal(again.headers.get('etag'), etag);
      await again.body?.cancel();
    }
  });

  it('makes a page when it is asked for, and once', async () => {
    assert.equal(loads, 0);
    for (let i = 0; i < 3; i++) assert.equal(await (await fetch(`${url}/counted`)).text(), '1');
  });

  it('is an error where a page cannot be made', async () => {
    assert.equal((await fetch(`${url}/lost`)).status, 500);
  });

  it('is compressed for those who take it', async () => {
    const encodings: [accept: string | undefined, encoding: string | undefined][] = [
      [undefined, undefined],
      ['gzip', 'gzip'],
      ['br;q=1.0, GZIP;q=0.5', 'gzip'],
      ['br, gzip;q=0', undefined],
      ['gzip; q=0.000', undefined],
      ['x-gzip, identity', undefined],
    ];
    for (const [accept, encoding] of encodings) {
      const headers = accept === undefined ? {} : { 'accept-encoding': accept };
      const reply = await new Promise<IncomingMessage>((resolve, reject) => {
        httpRequest(`${url}/docs/swagger-ui.css`, { headers }, resolve).on('error', reject).end();
      });
      assert.equal(reply.headers['content-encoding'], encoding, accept);
      assert.equal(reply.headers.vary, 'accept-encoding');
      reply.resume();
    }
  });

  it('answers HEAD, and leaves other methods to the routes', async () => {
    const head = await fetch(`${url}/docs`, { method: 'HEAD' });
    assert.deepEqual([head.status, await head.text()], [200, '']);
    assert.equal(table.match('POST', '/docs').served?.route.httpMethod, 'POST');
    assert.deepEqual(table.match('DELETE', '/openapi.json'), { served: undefined, allow: ['GET'] });
    assert.ok(table.match('GET', '/v1/hello/x').served);
  });

  it('stops the start for routes in its way', () => {
    assert.throws(
      () => addPages(tableOf(['/docs', '/{name=**}']), createDocumentation(descriptors, routes)),
      (error) => {
        assert.ok(error instanceof ConfigError);
        assert.deepEqual(error.problems.slice(0, 2), [
          'GET /{name=**} of helloworld.Greeter/SayHello takes /openapi.json, where the documentation is: set DOCS=disabled',
          'GET /docs of helloworld.Greeter/SayHello takes /docs, where the documentation is: set DOCS=disabled',
        ]);
        return true;
      },
    );
    assert.ok(addPages(tableOf(['/docs', '/{name=**}']), []).match('GET', '/docs').served);
  });
});
