import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { create, fromBinary, type JsonValue, toBinary, toJson } from '@bufbuild/protobuf';
import type { HttpRule } from '../descriptors.ts';
import { compileProto, libraryProto, nastyProtos } from '../testdata/build.ts';
import { createReplyWriter, encodeMessage, mergeJson } from './json.ts';
import { parseJson } from './json-text.ts';
import { routesOf } from './routes.ts';
import { violationsOf } from './testing.ts';

const { methods, types } = compileProto(libraryProto);
const nasty = compileProto(nastyProtos);
const everything = types.getMessage('library.v1.Everything');
assert.ok(everything);

function read(text: string): JsonValue {
  assert.ok(everything);
  const message = create(everything);
  mergeJson(message, everything, parseJson(text), types);
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
    ['{"books":{"one":{}}}', ['books[one]: must have a key that is int32']],
    ['{"text":"a","number":1}', ['number: must not be given together with text']],
    ['{"int32Value":1,"int32_value":1}', ['int32_value: must not be given together with int32Value']],
    ['{"words":["a"],"words":["b"]}', ['words: must be given once']],
    ['{"time":"2025-13-01T00:00:00Z"}', [/^time: must be an RFC 3339 time/]],
    ['{"duration":"5"}', ['duration: must be seconds such as "1.5s", is "5"']],
    ['{"any":{"@type":"x/Unknown"}}', ['any: must be an object with an "@type" that is known, is an object']],
    [`${'{"child":'.repeat(150)}{}${'}'.repeat(150)}`, ['the body must not be nested deeper than 100']],
    [`{"struct":${'{"a":'.repeat(99)}1${'}'.repeat(99)}}`, ['struct: must not be nested deeper than 100']],
    [`{"value":${'['.repeat(99)}${']'.repeat(99)}}`, ['value: must not be nested deeper than 100']],
    [
      '{"any":{"@type":"type.googleapis.com/library.v1.Book","title":1,"x":2}}',
      ['any.title: must be string, is 1', 'any.x: is not a field'],
    ],
    // What @bufbuild/protobuf would take.
    ['{"int32Value":"0x10"}', ['int32_value: must be int32, is "0x10"']],
    [
      '{"int32Value":"+1","child":{"numbers":["1"," 2 "]}}',
      [/^int32_value/, 'child.numbers[1]: must be int64, is " 2 "'],
    ],
    ['{"uint64Value":"0b1"}', ['uint64_value: must be uint64, is "0b1"']],
    ['{"doubleValue":"0x10"}', ['double_value: must be double, is "0x10"']],
    ['{"doubleValue":".5"}', ['double_value: must be double, is ".5"']],
    ['{"bytesValue":"A A="}', ['bytes_value: must be base64, is "A A="']],
    ['{"bytesValue":"===="}', ['bytes_value: must be base64, is "===="']],
    ['{"books":{"0x1":{}}}', ['books[0x1]: must have a key that is int32']],
    ['{"books":{"1.0":{}}}', ['books[1.0]: must have a key that is int32']],
    ['{"wrappedInt64":"0x1"}', ['wrapped_int64: must be int64, is "0x1"']],
    [
      '{"wrappedInt64":9007199254740993}',
      ['wrapped_int64: must be int64 as a string, since JSON numbers past 2^53 lose digits'],
    ],
    ['{"duration":"1sx"}', ['duration: must be seconds such as "1.5s", is "1sx"']],
    ['{"durations":["1s","2s "]}', ['durations[1]: must be seconds such as "1.5s", is "2s "']],
    ['{"duration":"1.1234567891s"}', ['duration: must be seconds such as "1.5s", is "1.1234567891s"']],
    ['{"duration":"315576000001s"}', [/^duration: must be seconds/]],
    ['{"time":"2025-02-29T00:00:00Z"}', [/^time: must be an RFC 3339 time/]],
    ['{"time":"1900-02-29T00:00:00Z"}', [/^time: must be an RFC 3339 time/]],
    ['{"time":"2025-04-31T00:00:00+02:00"}', [/^time: must be an RFC 3339 time/]],
    ['{"time":"2025-01-01T24:00:00Z"}', [/^time: must be an RFC 3339 time/]],
    ['{"time":"2025-01-01t00:00:00z"}', [/^time: must be an RFC 3339 time/]],
    ['{"time":"10000-01-01T00:00:00Z"}', [/^time: must be an RFC 3339 time/]],
    ['{"mask":"a,,b"}', ['mask: must be field paths such as "name,homeAddress.city", is "a,,b"']],
    ['{"mask":"a b"}', [/^mask: must be field paths/]],
    ['{"value":1e999}', ['value: must be of finite numbers, and of strings without unpaired surrogates']],
    [
      '{"struct":{"a":[{"b":"\\ud800"}]}}',
      ['struct: must be of finite numbers, and of strings without unpaired surrogates'],
    ],
    ['{"struct":{"\\udc00":1}}', [/^struct: must be of finite numbers/]],
    [
      '{"any":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1sx"}}',
      ['any.value: must be seconds such as "1.5s", is "1sx"'],
    ],
    ['{"any":{"@type":"x/library.v1.Everything","int32Value":"0x1"}}', ['any.int32_value: must be int32, is "0x1"']],
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

  it('takes the days that there are', () => {
    for (const time of [
      '2024-02-29T23:59:59Z',
      '2000-02-29T00:00:00Z',
      '0001-01-01T00:00:00Z',
      '9999-12-31T23:59:59Z',
    ]) {
      assert.deepEqual(read(JSON.stringify({ time })), { time });
    }
    assert.deepEqual(read('{"time":"2024-12-31T23:30:00-01:00"}'), { time: '2025-01-01T00:30:00Z' });
  });

  it('takes numbers as the text of numbers', () => {
    assert.deepEqual(read('{"int32Value":"1e2","uint32Value":"7.0","doubleValue":"-1.5E+3","int64Value":"-0"}'), {
      int32Value: 100,
      uint32Value: 7,
      doubleValue: -1500,
    });
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

describe('bytes of messages', () => {
  function encode(json: JsonValue): Uint8Array {
    const legacy = nasty.types.getMessage('nasty.proto2.Legacy');
    assert.ok(legacy);
    const message = create(legacy);
    mergeJson(message, legacy, json, nasty.types);
    return encodeMessage(message, legacy);
  }

  it('have the required fields', () => {
    assert.deepEqual([...encode({ id: 0 })], [8, 0]);
  });

  it('are none without a required field, which is named', () => {
    const child = { id: 1, detail: {} };
    assert.deepEqual(
      violationsOf(() => encode({ detail: { numbers: ['1'] }, children: [child, {}], byName: { a: {}, b: child } })),
      [
        'id: is required',
        'detail.key: is required',
        'children[0].detail.key: is required',
        'children[1].id: is required',
        'by_name[a].id: is required',
        'by_name[b].detail.key: is required',
      ],
    );
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

  it('writes what a field of each kind is where it is not set', () => {
    const all = nasty.methods.find(({ method }) => method.path.endsWith('/Reply'));
    assert.ok(all);
    const written = routesOf(all).map((route) => {
      return [route.responseBody, createReplyWriter(route, nasty.types)(new Uint8Array())];
    });
    assert.deepEqual(Object.fromEntries(written), {
      string_list: '[]',
      by_string: '{}',
      int64_value: '"0"',
      int32_value: '0',
      bool_value: 'false',
      maybe_bool: 'null',
      color: '"NONE"',
      child: 'null',
      time: 'null',
      value: 'null',
      text: 'null',
    });
  });

  it('writes a field of a message whose required fields are not known yet', () => {
    const legacy = nasty.methods.find(({ method }) => method.path.endsWith('/Legacy'));
    assert.ok(legacy);
    const route = routesOf(legacy).find(({ responseBody }) => responseBody === 'note');
    assert.ok(route);
    assert.equal(createReplyWriter(route, nasty.types)(Uint8Array.of(8, 1, 18, 1, 65)), '"A"');
  });

  it('stops the start for a response_body that is no field', () => {
    assert.throws(() => write({ get: '/x', responseBody: 'book' }, {}), /response_body book is not a field of/);
  });
});
