import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fromBinary, type JsonValue, type Message, toJson } from '@bufbuild/protobuf';
import type { HttpRule } from '../descriptors.ts';
import { compileProto, libraryProto, nastyProtos } from '../testdata/build.ts';
import { createRequestBinder } from './bind.ts';
import type { RawBody } from './http-body.ts';
import { createRouteTable, routesOf } from './routes.ts';
import { violationsOf } from './testing.ts';

const { methods, types } = compileProto(libraryProto);
const bind = binderOf(libraryProto);
const nasty = compileProto(nastyProtos);
const bindNasty = binderOf(nastyProtos);
const nastyMethods = (name: string) => nasty.methods.filter(({ method }) => method.path.endsWith(`/${name}`));

/** The message that a request becomes, as JSON. */
function binderOf(proto: string) {
  const { methods, types } = compileProto(proto);
  const routes = methods.flatMap(routesOf);
  const table = createRouteTable(routes.map((route) => ({ route, bind: createRequestBinder(route, types) })));
  return (httpMethod: string, url: string, body: string | RawBody = ''): JsonValue => {
    const [path = '', query = ''] = url.split('?', 2);
    const match = table.match(httpMethod, path);
    assert.ok(match.served, `no route for ${url}`);
    const { input } = match.served.route.service;
    const bytes = match.served.bind({ segments: match.segments, query, body });
    return toJson(input, fromBinary(input, bytes), { registry: types });
  };
}

describe('request binder', () => {
  const list = '/v1/shelves/a/books';
  const good: [name: string, httpMethod: string, url: string, body: string, message: JsonValue][] = [
    ['a path variable', 'GET', '/v1/shelves/a/books/b%20c', '', { name: 'shelves/a/books/b c' }],
    ['an additional binding with **', 'GET', '/v1/books/x/y%2Fz:find', '', { name: 'x/y%2Fz' }],
    ['a custom method', 'LINK', '/v1/links/a%2Fb', '', { name: 'a/b' }],
    ['a query parameter', 'GET', `${list}?page_size=7`, '', { parent: 'shelves/a', pageSize: 7 }],
    ['a query parameter by JSON name', 'GET', `${list}?pageSize=7`, '', { parent: 'shelves/a', pageSize: 7 }],
    ['empty parts of a query', 'GET', `${list}?&page_size=7&&`, '', { parent: 'shelves/a', pageSize: 7 }],
    [
      'query parameters into nested messages',
      'GET',
      `${list}?filter.string_value=x%20y+z&filter.child.child.int32Value=-3`,
      '',
      { parent: 'shelves/a', filter: { stringValue: 'x y z', child: { child: { int32Value: -3 } } } },
    ],
    [
      'repeated query parameters',
      'GET',
      `${list}?filter.numbers=1&filter.numbers=9223372036854775807&filter.words=a&filter.durations=1s&filter.durations=0.5s`,
      '',
      {
        parent: 'shelves/a',
        filter: { numbers: ['1', '9223372036854775807'], words: ['a'], durations: ['1s', '0.500s'] },
      },
    ],
    [
      'enums by name and by number',
      'GET',
      `${list}?filter.color=COLOR_RED&filter.colors=2&filter.colors=COLOR_GREEN`,
      '',
      { parent: 'shelves/a', filter: { color: 'COLOR_RED', colors: ['COLOR_GREEN', 'COLOR_GREEN'] } },
    ],
    [
      'scalars of all sorts in the query',
      'GET',
      `${list}?filter.bool_value=true&filter.flag=false&filter.double_value=NaN&filter.float_value=-1.5e3&filter.uint64_value=18446744073709551615&filter.bytes_value=_-8`,
      '',
      {
        parent: 'shelves/a',
        filter: {
          boolValue: true,
          flag: false,
          doubleValue: 'NaN',
          floatValue: -1500,
          uint64Value: '18446744073709551615',
          bytesValue: '/+8=',
        },
      },
    ],
    [
      'well-known types in the query',
      'GET',
      `${list}?filter.time=2025-01-31T12:00:00Z&filter.duration=1.5s&filter.mask=a_b,c.dE&filter.wrapped_int64=5&filter.wrappedBool=true&filter.wrapped_string=`,
      '',
      {
        parent: 'shelves/a',
        filter: {
          time: '2025-01-31T12:00:00Z',
          duration: '1.500s',
          mask: 'aB,c.dE',
          wrappedInt64: '5',
          wrappedBool: true,
          wrappedString: '',
        },
      },
    ],
    [
      'a body field, path and query together',
      'PATCH',
      '/v1/shelves/a/books/b?update_mask=title&allow_missing=true',
      '{"title":"T"}',
      { book: { name: 'shelves/a/books/b', title: 'T' }, updateMask: 'title', allowMissing: true },
    ],
    [
      'the path over the body',
      'PATCH',
      '/v1/shelves/a/books/b',
      '{"title":"T","name":"other"}',
      { book: { name: 'shelves/a/books/b', title: 'T' }, updateMask: 'title' },
    ],
    ['no body where one may be', 'PATCH', '/v1/shelves/a/books/b', '', { book: { name: 'shelves/a/books/b' } }],
    ['a list as the body', 'PUT', '/v1/tags/x', '["a","b"]', { name: 'x', tags: ['a', 'b'] }],
    [
      'the rest of the message as the body',
      'POST',
      '/v1/shelves/a/books/b:archive',
      '{}',
      { name: 'shelves/a/books/b' },
    ],
    ['the whole message as the body', 'POST', '/library.v1.Library/Echo', '{"words":["a"]}', { words: ['a'] }],
    ['no body for the whole message', 'POST', '/library.v1.Library/Echo', '', {}],
  ];
  for (const [name, httpMethod, url, body, message] of good) {
    it(`takes ${name}`, () => {
      assert.deepEqual(bind(httpMethod, url, body), message);
    });
  }

  const patch = '/nasty/patch/things/1';
  const goodNasty: [name: string, httpMethod: string, url: string, body: string | RawBody, message: JsonValue][] = [
    [
      'the fields of a PATCH as its mask, but for those of the path',
      'PATCH',
      patch,
      '{"name":"things/2","key":"","child":{"since":null,"flag":true},"config":{"a":{"b":1}}}',
      {
        thing: { name: 'things/1', child: { flag: true }, config: { a: { b: 1 } } },
        updateMask: 'key,child.since,child.flag,config.a.b',
      },
    ],
    [
      'the mask of a PATCH that has one',
      'PATCH',
      `${patch}?update_mask=child.size,flag`,
      '{"size":"1"}',
      { thing: { name: 'things/1', size: '1' }, updateMask: 'child.size,flag' },
    ],
    [
      'everything as the mask',
      'PATCH',
      `${patch}?updateMask=*`,
      '{}',
      { thing: { name: 'things/1' }, updateMask: '*' },
    ],
    ['a PATCH of nothing', 'PATCH', `${patch}?update_mask=`, '{}', { thing: { name: 'things/1' }, updateMask: '' }],
    ['a mask in the body as it is', 'PATCH', '/nasty/patch', '{"thing":{"size":"1"}}', { thing: { size: '1' } }],
    ['a PUT without a mask', 'PUT', patch, '{"size":"1"}', { thing: { name: 'things/1', size: '1' } }],
    [
      'structs in the query',
      'GET',
      '/nasty/query?struct={"a":[1]}&value="x"&list=[null]&child.value=null&null_value=NULL_VALUE',
      '',
      { struct: { a: [1] }, value: 'x', list: [null], child: { value: null } },
    ],
    [
      'a raw body',
      'POST',
      '/nasty/raw',
      { contentType: 'image/png', data: Uint8Array.of(0, 255) },
      { contentType: 'image/png', data: 'AP8=' },
    ],
    [
      'a raw body beside path and query',
      'PUT',
      '/nasty/files/a/b?version=2',
      { contentType: '', data: Uint8Array.of(65) },
      { name: 'a/b', content: { data: 'QQ==' }, version: 2 },
    ],
    ['a message whose JSON is one value', 'POST', '/nasty.v1.Nasty/EchoText', '"grüß"', 'grüß'],
  ];
  for (const [name, httpMethod, url, body, message] of goodNasty) {
    it(`takes ${name}`, () => {
      assert.deepEqual(bindNasty(httpMethod, url, body), message);
    });
  }

  it('takes names that JSON cannot write in a mask of the query', () => {
    const [method] = nastyMethods('Patch');
    assert.ok(method);
    const [route] = routesOf(method);
    assert.ok(route);
    const bytes = createRequestBinder(
      route,
      nasty.types,
    )({
      segments: ['nasty', 'patch', 'things', '1'],
      query: 'update_mask=line_1,homeAddress.cityName,home_address.city_name',
      body: '{}',
    });
    const { updateMask } = fromBinary(method.input, bytes) as Message & { updateMask: { paths: string[] } };
    assert.deepEqual(updateMask.paths, ['line_1', 'home_address.city_name', 'home_address.city_name']);
  });

  const badNasty: [name: string, httpMethod: string, url: string, body: string, violations: string[]][] = [
    [
      'a mask that is none',
      'PATCH',
      `${patch}?update_mask=a,,b`,
      '{}',
      ['update_mask: must be field paths such as "name,homeAddress.city", is "a,,b"'],
    ],
    ['a mask given twice', 'PATCH', `${patch}?update_mask=a&update_mask=b`, '{}', ['update_mask: must be given once']],
    ['a struct that is no JSON', 'GET', '/nasty/query?struct={', '', ['struct: must be JSON, is "{"']],
    ['a struct that is no object', 'GET', '/nasty/query?struct=1', '', ['struct: must be an object, is 1']],
    ['hexadecimal numbers in the path', 'GET', '/nasty/deep/a/b/of/0x10', '', ['size: must be int64, is "0x10"']],
    [
      'a member of the oneof of the body',
      'PUT',
      '/nasty/body/text?number=1',
      '"x"',
      ['number: must not be given together with text, which is the body'],
    ],
    [
      'parameters where a message is one value',
      'POST',
      '/nasty.v1.Nasty/EchoText?value=x',
      '',
      ['value: must be in the body: this route takes no query parameters'],
    ],
    ['parameters of nothing', 'DELETE', '/nasty/nothing?x=1', '', ['x: is not a field']],
    ['a bad value alone', 'POST', '/nasty.v1.Nasty/EchoText', '5', ['the body must be string, is 5']],
    [
      'a bad time alone',
      'POST',
      '/nasty.v1.Nasty/EchoTime',
      '"2025-02-30T00:00:00Z"',
      ['must be an RFC 3339 time such as "2025-01-31T12:00:00Z", is "2025-02-30T00:00:00Z"'].map(
        (words) => `the body ${words}`,
      ),
    ],
    ['a message without its required field', 'POST', '/nasty/legacy', '{"note":"x"}', ['id: is required']],
  ];
  for (const [name, httpMethod, url, body, violations] of badNasty) {
    it(`refuses ${name}`, () => {
      assert.deepEqual(
        violationsOf(() => bindNasty(httpMethod, url, body)),
        violations,
      );
    });
  }

  const archive = '/v1/shelves/a/books/b:archive';
  const bad: [name: string, httpMethod: string, url: string, body: string, violations: string[]][] = [
    ['unknown parameters', 'GET', `${list}?a=1&filter.b=2`, '', ['a: is not a field', 'filter.b: is not a field']],
    [
      'prototype keys',
      'GET',
      `${list}?__proto__=1&constructor.x=2`,
      '',
      ['__proto__: is not a field', 'constructor.x: is not a field'],
    ],
    ['a parameter given twice', 'GET', `${list}?page_size=1&pageSize=2`, '', ['pageSize: must be given once']],
    ['a parameter that the path has', 'GET', `${list}?parent=x`, '', ['parent: is taken from the path']],
    [
      'a parameter that the body has',
      'PATCH',
      '/v1/shelves/a/books/b?book.title=x',
      '{}',
      ['book.title: is taken from the body'],
    ],
    [
      'parameters beside a body of all',
      'POST',
      `${archive}?name=x`,
      '',
      ['name: must be in the body: this route takes no query parameters'],
    ],
    ['a message as a parameter', 'GET', `${list}?filter=x`, '', ['filter: cannot be given as a query parameter']],
    [
      'a map as a parameter',
      'GET',
      `${list}?filter.counts=x`,
      '',
      ['filter.counts: cannot be given as a query parameter'],
    ],
    ['an Any as a parameter', 'GET', `${list}?filter.any=x`, '', ['filter.any: cannot be given as a query parameter']],
    ['below a scalar', 'GET', `${list}?page_size.x=1`, '', ['page_size.x: is not a field']],
    ['a bad number', 'GET', `${list}?page_size=ten`, '', ['page_size: must be int32, is "ten"']],
    ['an empty number', 'GET', `${list}?page_size`, '', ['page_size: must be int32, is ""']],
    ['a number out of range', 'GET', `${list}?page_size=2147483648`, '', ['page_size: must be int32, is "2147483648"']],
    ['a bad bool', 'GET', `${list}?filter.bool_value=yes`, '', ['filter.bool_value: must be bool, is "yes"']],
    [
      'a bad enum',
      'GET',
      `${list}?filter.color=BLUE`,
      '',
      ['filter.color: must be one of COLOR_UNSPECIFIED, COLOR_RED, COLOR_GREEN, is "BLUE"'],
    ],
    [
      'a bad time',
      'GET',
      `${list}?filter.time=today`,
      '',
      ['filter.time: must be an RFC 3339 time such as "2025-01-31T12:00:00Z", is "today"'],
    ],
    [
      'a bad duration',
      'GET',
      `${list}?filter.duration=1s;x`,
      '',
      ['filter.duration: must be seconds such as "1.5s", is "1s;x"'],
    ],
    ['bad base64', 'GET', `${list}?filter.bytes_value=*`, '', ['filter.bytes_value: must be base64, is "*"']],
    [
      'two members of a oneof',
      'GET',
      `${list}?filter.text=a&filter.number=1`,
      '',
      ['filter.number: must not be given together with text'],
    ],
    [
      'a bad item',
      'GET',
      `${list}?filter.numbers=1&filter.numbers=x`,
      '',
      ['filter.numbers[1]: must be int64, is "x"'],
    ],
    ['a query that is no UTF-8', 'GET', `${list}?page_size=%ff`, '', ['%ff: must be percent-encoded UTF-8']],
    ['a path that is no UTF-8', 'GET', '/v1/books/x/%ed%a0%80:find', '', ['name: must be percent-encoded UTF-8']],
    [
      'nesting without end',
      'GET',
      `${list}?filter.${'child.'.repeat(200)}text=x`,
      '',
      [`filter.${'child.'.repeat(99)}child: must not be nested deeper than 100`],
    ],
    [
      'a body that closes its object',
      'PUT',
      '/v1/tags/x',
      '[],"name":"y"',
      ['the body is not JSON: Unexpected non-whitespace character after JSON at position 2 (line 1 column 3)'],
    ],
    ['a body of the wrong type', 'PUT', '/v1/tags/x', '{"0":"a"}', ['tags: must be string, is an object']],
    ['a body where none is', 'GET', list, '{}', ['this route takes no body']],
  ];
  for (const [name, httpMethod, url, body, violations] of bad) {
    it(`refuses ${name}`, () => {
      assert.deepEqual(
        violationsOf(() => bind(httpMethod, url, body)),
        violations,
      );
    });
  }

  const update = methods.find(({ method }) => method.path.endsWith('/UpdateBook'));
  const misfits: [rule: HttpRule, why: RegExp][] = [
    [{ get: '/v1/{title}' }, /path variable title is not a field of library.v1.UpdateBookRequest/],
    [{ get: '/v1/{book}' }, /path variable book must be a single value/],
    [{ get: '/v1/{book.title.x}' }, /path variable book.title.x is not a field/],
    [{ patch: '/v1', body: 'books' }, /body books is not a field of library.v1.UpdateBookRequest/],
  ];
  for (const [rule, why] of misfits) {
    it(`stops the start for ${JSON.stringify(rule)}`, () => {
      assert.ok(update);
      assert.throws(() => routesOf({ ...update, rule }).map((route) => createRequestBinder(route, types)), why);
    });
  }
});
