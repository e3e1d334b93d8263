import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { create, fromBinary, type JsonValue, toBinary, toJson } from '@bufbuild/protobuf';
import type { HttpRule } from '../descriptors.ts';
import { compileProto, libraryProto } from '../testdata/build.ts';
import { createReplyWriter, mergeJson } from './json.ts';
import { routesOf } from './routes.ts';
import { violationsOf } from './testing.ts';

const { methods, types } = compileProto(libraryProto);
const everything = types.getMessage('library.v1.Everything');
assert.ok(everything);

function read(text: string): JsonValue {
  assert.ok(everything);
  const message = create(everything);
  mergeJson(message, everything, text, types);
  return toJson(everything, fromBinary(everything, toBinary(everything, message)), { registry: types });
}

describe('JSON of messages', () => {
  it('keeps every kind of field', () => {
    const json = {
      doubleValue: 1.5,
      floatValue: -0.25,
      int32Value: -2147483648,
      int64Value: '-9223372036854775808',
      uint32Value: 4294967295,
      uint64Value: '18446744073709551615',
      sint32Value: -1,
      sint64Value: '-1',
      fixed32Value: 1,
      fixed64Value: '1',
      sfixed32Value: -1,
      sfixed64Value: '-1',
      boolValue: true,
      stringValue: 'grüß 🌍\u0000',
      bytesValue: 'AP8=',
      color: 'COLOR_RED',
      child: { child: {} },
      numbers: ['1', '2'],
      words: ['', 'a'],
      colors: ['COLOR_GREEN', 7],
      children: [{}, { int32Value: 1 }],
      counts: { a: '1', ['__proto__']: '2' },
      books: { '-1': { name: 'n' } },
      text: '',
      flag: false,
      time: '2025-01-31T12:00:00.123Z',
      duration: '-1.500s',
      mask: 'a,bC.d',
      wrappedInt64: '0',
      wrappedBool: false,
      wrappedString: '',
      struct: { a: [1, null, { b: 'c' }] },
      value: null,
      any: { '@type': 'type.googleapis.com/library.v1.Book', title: 'T' },
    };
    assert.deepEqual(read(JSON.stringify(json)), json);
  });

  it('takes proto names, numbers as text and 64-bit integers as numbers', () => {
    assert.deepEqual(read('{"int32_value":"7","int64_value":9007199254740991,"double_value":"Infinity"}'), {
      int32Value: 7,
      int64Value: '9007199254740991',
      doubleValue: 'Infinity',
    });
  });

  it('takes long numbers where they lose nothing that counts', () => {
    assert.deepEqual(read('{"double_value":12345678901234567890,"string_value":"9007199254740993"}'), {
      doubleValue: 12345678901234567000,
      stringValue: '9007199254740993',
    });
  });

  const bad: [text: string, violations: (string | RegExp)[]][] = [
    ['', [/the body is not JSON/]],
    ['{', [/the body is not JSON/]],
    ['NaN', [/the body is not JSON/]],
    ['[]', ['the body must be an object, is an array']],
    ['null', ['the body must be an object, is null']],
    ['{"a":1,"b":2}', ['a: is not a field', 'b: is not a field']],
    ['{"__proto__":{"x":1}}', ['__proto__: is not a field']],
    ['{"constructor":{"prototype":1}}', ['constructor: is not a field']],
    ['{"child":{"child":{"x":1}}}', ['child.child.x: is not a field']],
    [
      '{"int32Value":1.5,"stringValue":5}',
      ['int32_value: must be int32, is 1.5', 'string_value: must be string, is 5'],
    ],
    ['{"int32Value":1e40}', ['int32_value: must be int32, is 1e+40']],
    ['{"uint32_value":-1}', ['uint32_value: must be uint32, is -1']],
    ['{"doubleValue":1e999}', ['double_value: must be double, is null']],
    [
      '{"int64Value":9007199254740993}',
      ['int64_value: must be int64 as a string, since JSON numbers past 2^53 lose digits'],
    ],
    [
      '{"counts":{"a":9007199254740993}}',
      ['counts[a]: must be int64 as a string, since JSON numbers past 2^53 lose digits'],
    ],
    ['{"int64Value":"9223372036854775808"}', ['int64_value: must be int64, is "9223372036854775808"']],
    ['{"int64Value":1.5}', ['int64_value: must be int64, is 1.5']],
    ['{"boolValue":"true"}', ['bool_value: must be bool, is "true"']],
    ['{"stringValue":"\\ud800"}', ['string_value: must be string, is "\\ud800"']],
    ['{"bytesValue":"*"}', ['bytes_value: must be base64, is "*"']],
    ['{"color":"BLUE"}', ['color: must be one of COLOR_UNSPECIFIED, COLOR_RED, COLOR_GREEN, is "BLUE"']],
    ['{"child":[]}', ['child: must be an object, is an array']],
    ['{"children":[{},{"x":1}]}', ['children[1].x: is not a field']],
    ['{"numbers":["1",null,"x"]}', ['numbers[1]: must be int64, is null', 'numbers[2]: must be int64, is "x"']],
    ['{"books":{"1":{"x":1}}}', ['books[1].x: is not a field']],
    ['{"books":{"one":{}}}', [/./]],
    ['{"text":"a","number":1}', ['number: must not be given together with text']],
    ['{"int32Value":1,"int32_value":1}', ['int32_value: must not be given together with int32Value']],
    ['{"words":["a"],"words":["b"]}', ['library.v1.Everything: duplicate object key "words"']],
    ['{"time":"2025-13-01T00:00:00Z"}', [/^time: must be an RFC 3339 time/]],
    ['{"duration":"5"}', ['duration: must be seconds such as "1.5s", is "5"']],
    ['{"any":{"@type":"x/Unknown"}}', ['any: must be an object with an "@type" that is known, is an object']],
    [`${'{"child":'.repeat(150)}{}${'}'.repeat(150)}`, [/^child\..*: must not be nested deeper than 100$/]],
    [`{"struct":${'{"a":'.repeat(5_000)}1${'}'.repeat(5_000)}}`, ['struct: must be an object, is an object']],
    [`{"value":${'['.repeat(5_000)}${']'.repeat(5_000)}}`, ['value: must be any JSON value, is an array']],
  ];
  for (const [text, violations] of bad) {
    it(`refuses ${text.length > 60 ? `${text.slice(0, 60)}…` : text}`, () => {
      const found = violationsOf(() => read(text));
      assert.equal(found.length, violations.length, found.join('\n'));
      for (const [index, expected] of violations.entries()) {
        if (typeof expected === 'string') assert.equal(found[index], expected);
        else assert.match(found[index] ?? '', expected);
      }
    });
  }

  it('names at most 20 fields', () => {
    const many = Object.fromEntries(Array.from({ length: 1_000 }, (_, i) => [`x${i}`, 1]));
    assert.equal(violationsOf(() => read(JSON.stringify(many))).length, 20);
  });

  it('takes null for a member of a oneof beside another', () => {
    const json = '{"text":null,"number":1,"int64Value":"1234567890123456789"}';
    assert.deepEqual(read(json), { number: 1, int64Value: '1234567890123456789' });
  });

  it('spends no more on a large bad body than on a good one', () => {
    const timeOf = (last: string) => {
      const started = performance.now();
      const act = () => read(`{"numbers":[${'"1",'.repeat(100_000)}${last}]}`);
      if (last === '"1"') act();
      else assert.match(violationsOf(act)[0] ?? '', /^library\.v1\.Everything\.numbers: list item #100001/);
      return performance.now() - started;
    };
    const goodMs = Math.max(timeOf('"1"'), timeOf('"1"'));
    assert.ok(timeOf('"x"') < goodMs * 3 + 100);
  });
});

describe('reply writer', () => {
  const list = methods.find(({ method }) => method.path.endsWith('/ListBooks'));
  assert.ok(list);

  function write(rule: HttpRule, reply: Record<string, unknown>): string {
    assert.ok(list);
    const [route] = routesOf({ ...list, rule });
    assert.ok(route);
    return createReplyWriter(route, types)(toBinary(list.output, create(list.output, reply)));
  }

  it('writes the whole message', () => {
    assert.equal(write({ get: '/x' }, { nextPageToken: 't' }), '{"nextPageToken":"t"}');
  });

  it('writes the field of response_body alone, and its default where it is not set', () => {
    assert.equal(write({ get: '/x', responseBody: 'next_page_token' }, { nextPageToken: 't' }), '"t"');
    assert.equal(write({ get: '/x', responseBody: 'books' }, { nextPageToken: 't' }), '[]');
  });

  it('stops the start for a response_body that is no field', () => {
    assert.throws(() => write({ get: '/x', responseBody: 'book' }, {}), /response_body book is not a field of/);
  });
});
