import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fromBinary, type JsonValue, toJson } from '@bufbuild/protobuf';
import type { HttpRule } from '../descriptors.ts';
import { compileProto, libraryProto } from '../testdata/build.ts';
import { createRequestBinder } from './bind.ts';
import { createRouteTable, routesOf } from './routes.ts';
import { violationsOf } from './testing.ts';

const { methods, types } = compileProto(libraryProto);
const routes = methods.flatMap(routesOf);
const table = createRouteTable(routes.map((route) => ({ route, bind: createRequestBinder(route, types) })));

/** The message that a request becomes, as JSON. */
function bind(httpMethod: string, url: string, body = ''): JsonValue {
  const [path = '', query = ''] = url.split('?', 2);
  const match = table.match(httpMethod, path);
  assert.ok(match.served, `no route for ${url}`);
  const { input } = match.served.route.service;
  const bytes = match.served.bind({ segments: match.segments, query, body });
  return toJson(input, fromBinary(input, bytes), { registry: types });
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
      { book: { name: 'shelves/a/books/b', title: 'T' } },
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
