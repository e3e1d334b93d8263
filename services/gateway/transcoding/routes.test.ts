import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ConfigError } from '#runtime/process/config.ts';
import type { HttpRule, ServiceMethod } from '../descriptors.ts';
import { createRouteTable, routesOf } from './routes.ts';

/** A method of a service `s.S` with a rule; nothing here looks at its messages. */
function methodOf(name: string, rule: HttpRule | undefined, responseStream = false): ServiceMethod {
  const method = { path: `/s.S/${name}`, requestStream: false, responseStream, idempotency: 'UNKNOWN' } as const;
  return { method, rule } as ServiceMethod;
}

function tableOf(rules: Record<string, HttpRule | undefined>, streams: string[] = []) {
  const routes = Object.entries(rules).flatMap(([name, rule]) =>
    routesOf(methodOf(name, rule, streams.includes(name))),
  );
  const table = createRouteTable(routes.map((route) => ({ route })));
  return (httpMethod: string, path: string) => {
    const match = table.match(httpMethod, path);
    return match.served === undefined
      ? match.allow.join(',')
      : match.served.route.service.method.path.slice('/s.S/'.length);
  };
}

describe('routes', () => {
  it('are all the bindings of a rule', () => {
    const rule: HttpRule = {
      get: '/a',
      responseBody: 'r',
      additionalBindings: [
        { put: '/b', body: '*' },
        { custom: { kind: 'LINK', path: '/c' }, body: 'x' },
      ],
    };
    assert.deepEqual(
      routesOf(methodOf('M', rule)).map((r) => [r.httpMethod, r.template.text, r.body, r.responseBody]),
      [
        ['GET', '/a', '', 'r'],
        ['PUT', '/b', '*', ''],
        ['LINK', '/c', 'x', ''],
      ],
    );
  });

  it('give a method without annotation POST of its gRPC path', () => {
    const [route] = routesOf(methodOf('M', undefined));
    assert.deepEqual([route?.httpMethod, route?.template.text, route?.body], ['POST', '/s.S/M', '*']);
  });

  const badRules: [rule: HttpRule, why: RegExp][] = [
    [{}, /must have a method and a path/],
    [{ custom: { kind: 'X' } }, /must have a method and a path/],
    [{ get: '/a', body: '*' }, /GET \/a must not have a body/],
    [{ get: 'a' }, /must begin with \//],
    [{ custom: { kind: 'FROB', path: '/a' } }, /FROB \/a has a method that this server cannot read: one of .*, LINK, /],
    [{ custom: { kind: 'get', path: '/a' } }, /get \/a has a method/],
    [{ custom: { kind: 'CONNECT', path: '/a' } }, /CONNECT \/a has a method/],
    [{ get: '/a', additionalBindings: [{ get: '/b', additionalBindings: [] }] }, /must not have additional_bindings/],
  ];
  for (const [rule, why] of badRules) {
    it(`refuse ${JSON.stringify(rule)}`, () => {
      assert.throws(() => routesOf(methodOf('M', rule)), why);
    });
  }
});

describe('route table', () => {
  const match = tableOf(
    {
      Hello: { get: '/v1/hello/{name}' },
      Stream: { get: '/v1/hello/{name}/stream' },
      World: { get: '/v1/hello/world' },
      Collect: { post: '/v1/hello:collect', body: '*' },
      Post: { post: '/v1/hello', body: '*' },
      Shelf: { get: '/v1/{name=shelves/*}' },
      Rest: { get: '/v1/{path=**}' },
      RestVerb: { get: '/v1/{path=**}:do' },
      Any: { custom: { kind: '*', path: '/any' } },
      AnyGet: { get: '/any' },
      Bare: undefined,
    },
    ['Stream'],
  );
  const cases: [request: string, found: string][] = [
    ['GET /v1/hello/you', 'Hello'],
    ['GET /v1/hello/world', 'World'],
    ['GET /v1/hello/w%6Frld', 'World'],
    ['GET /v1/hello/you/stream', 'Stream'],
    ['GET /v1/hello/world/stream', 'Stream'],
    ['POST /v1/hello:collect', 'Collect'],
    ['POST /v1/hello', 'Post'],
    ['GET /v1/hello', 'Rest'],
    ['GET /v1/hello/', 'Rest'],
    ['GET /v1/shelves/1', 'Shelf'],
    ['GET /v1/shelves/1/2', 'Rest'],
    ['GET /v1', 'Rest'],
    ['GET /v1/a/b:do', 'RestVerb'],
    ['GET /v1/hello/x:do', 'RestVerb'],
    ['GET /v1/hello/x%3Ado', 'Hello'],
    ['GET /v1/hello/x:other', 'Hello'],
    ['GET /any', 'AnyGet'],
    ['DELETE /any', 'Any'],
    ['POST /s.S/Bare', 'Bare'],
    ['HEAD /v1/hello/you', 'Hello'],
    ['PUT /v1/hello', 'GET,POST'],
    ['PUT /v1/hello/you', 'GET'],
    ['POST /v1/hello:other', 'GET'],
    ['GET /s.S/Bare', 'POST'],
    ['GET /', ''],
    ['GET //v1/hello/you', ''],
    ['OPTIONS *', ''],
    ['GET http://x/v1/hello/you', ''],
    ['GET /V1/hello/you', ''],
  ];
  for (const [request, found] of cases) {
    it(`takes ${request} to ${found || 'nothing'}`, () => {
      const [httpMethod = '', path = ''] = request.split(' ');
      assert.equal(match(httpMethod, path), found);
    });
  }

  it('does not answer HEAD with a stream', () => {
    assert.equal(tableOf({ S: { get: '/s' } }, ['S'])('HEAD', '/s'), 'GET');
  });

  it('refuses a bad percent-encoding', () => {
    assert.throws(() => match('GET', '/v1/%zz'), URIError);
  });

  it('lists every pair of routes that no request could tell apart', () => {
    assert.throws(
      () =>
        tableOf({
          A: { get: '/v1/{a}/x' },
          B: { get: '/v1/{b=*}/x' },
          C: { post: '/v1/{a}/x' },
          D: { get: '/v1/x/{p=**}:go' },
          E: { get: '/v1/x/**:go' },
        }),
      (error) => {
        assert.ok(error instanceof ConfigError);
        assert.deepEqual(error.problems, [
          'GET /v1/{b=*}/x of s.S/B conflicts with GET /v1/{a}/x of s.S/A',
          'GET /v1/x/**:go of s.S/E conflicts with GET /v1/x/{p=**}:go of s.S/D',
        ]);
        return true;
      },
    );
  });

  it('takes a long path in time', () => {
    const table = tableOf({ A: { get: '/a/*/a/*/a/*/b' }, B: { get: '/*/a/*/a/*/a/c' }, C: { get: '/{x=**}:v' } });
    const started = performance.now();
    assert.equal(table('GET', `/${'a/'.repeat(8_000)}a:w`), '');
    assert.ok(performance.now() - started < 100);
  });
});
