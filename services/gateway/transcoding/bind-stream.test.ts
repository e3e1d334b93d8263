import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fromBinary, toJson } from '@bufbuild/protobuf';
import type { HttpRule } from '../descriptors.ts';
import { compileProto, libraryProto } from '../testdata/build.ts';
import { createStreamBinder } from './bind-stream.ts';
import { createRouteTable, routesOf } from './routes.ts';
import { violationsOf } from './testing.ts';

const { methods, types } = compileProto(libraryProto);

/** What texts become on a route to a stream of `ListBooksRequest`. */
function bind(rule: HttpRule, url: string, texts: readonly string[]): unknown[] {
  const service = methods.find(({ method }) => method.path.endsWith('/ListBooks'));
  assert.ok(service);
  const [route] = routesOf({ ...service, rule });
  assert.ok(route);
  const [path = '', query = ''] = url.split('?');
  const match = createRouteTable([{ route }]).match(route.httpMethod, path);
  assert.ok(match.served);
  const decode = createStreamBinder(route, types)({ segments: match.segments, query });
  return texts.map((text) => toJson(service.input, fromBinary(service.input, decode(text))));
}

describe('stream binder', () => {
  it('takes each text as a message, and the path for the first', () => {
    const rule = { post: '/v1/{parent}:list', body: '*' };
    assert.deepEqual(bind(rule, '/v1/a:list', ['{"pageSize":1}', '{"pageSize":2}', '{}']), [
      { parent: 'a', pageSize: 1 },
      { pageSize: 2 },
      {},
    ]);
  });

  it('lets the path have the last word', () => {
    const rule = { post: '/v1/{parent}:list', body: '*' };
    assert.deepEqual(bind(rule, '/v1/a:list', ['{"parent":"b"}', '{"parent":"c"}']), [
      { parent: 'a' },
      { parent: 'c' },
    ]);
  });

  it('takes whole messages on a route without a body, and the query for the first', () => {
    const rule = { get: '/v1/{parent}/list' };
    assert.deepEqual(
      bind(rule, '/v1/a/list?pageSize=5&filter.text=x', ['{"filter":{"words":["w"]}}', '{"pageSize":2}']),
      [{ parent: 'a', pageSize: 5, filter: { text: 'x', words: ['w'] } }, { pageSize: 2 }],
    );
  });

  it('takes each text as the field that is the body', () => {
    const rule = { post: '/v1/{parent}:list', body: 'filter' };
    assert.deepEqual(bind(rule, '/v1/a:list?pageSize=5', ['{"text":"x"}', '{"text":"y"}']), [
      { parent: 'a', pageSize: 5, filter: { text: 'x' } },
      { filter: { text: 'y' } },
    ]);
  });

  it('takes no text for what the path and the query say alone', () => {
    assert.deepEqual(bind({ get: '/v1/{parent}/list' }, '/v1/a/list', ['']), [{ parent: 'a' }]);
  });

  it('says which message is wrong, and what is wrong with it', () => {
    const rule = { post: '/v1/{parent}:list', body: '*' };
    assert.deepEqual(
      violationsOf(() => bind(rule, '/v1/a:list', ['{}', '{"pageSize":"x"}'])),
      ['page_size: must be int32, is "x"'],
    );
    assert.throws(() => bind(rule, '/v1/a:list', ['{}', '{"pageSize":"x"}']), /message 2: page_size must be int32/);
    assert.throws(() => bind(rule, '/v1/a:list', ['{']), /message 1: the body is not JSON/);
  });

  it('refuses what is wrong with the URL before any message', () => {
    assert.deepEqual(
      violationsOf(() => bind({ get: '/v1/{parent}/list' }, '/v1/a/list?pageSize=x&nope=1', [])),
      ['nope: is not a field'],
    );
  });
});
