import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { create, type DescMessage, fromJson, type JsonObject, type JsonValue, toJson } from '@bufbuild/protobuf';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { compileProto, libraryProto } from '../testdata/build.ts';
import { createRequestBinder } from '../transcoding/bind.ts';
import { routesOf } from '../transcoding/routes.ts';
import { createSchemas } from './schemas.ts';

const { methods, types } = compileProto(libraryProto);
const [echo] = methods.filter(({ method }) => method.path.endsWith('/Echo')).flatMap(routesOf);
assert.ok(echo);
const bind = createRequestBinder(echo, types);
const everything = types.getMessage('library.v1.Everything') as DescMessage;
const schemas = createSchemas();
const schema = schemas.ofMessage(everything);
const ajv = new Ajv2020({ strict: false, validateFormats: false });
ajv.addSchema({ $id: 'document', components: { schemas: schemas.components } });
const isValid = ajv.compile({ $ref: `document${String(schema['$ref'])}` });

/** Whether the gateway takes it as a body. */
function canBeRead(json: JsonValue): boolean {
  try {
    bind({ segments: [], query: '', body: JSON.stringify(json) });
    return true;
  } catch {
    return false;
  }
}

/** A message that has a value in each of its fields. */
const full: JsonObject = {
  doubleValue: 1.5,
  floatValue: 'NaN',
  int32Value: -1,
  int64Value: '-9223372036854775808',
  uint32Value: 4_294_967_295,
  uint64Value: '18446744073709551615',
  sint32Value: -1,
  sint64Value: '-1',
  fixed32Value: 1,
  fixed64Value: '1',
  sfixed32Value: -1,
  sfixed64Value: '-1',
  boolValue: true,
  stringValue: 'x',
  bytesValue: '/+8=',
  color: 'COLOR_RED',
  child: { child: { text: 'x' } },
  numbers: ['1', '2'],
  words: ['a'],
  colors: ['COLOR_GREEN'],
  children: [{ number: 1 }],
  counts: { 'any key': '1' },
  books: { '-7': { title: 'T' } },
  text: 'x',
  flag: false,
  time: '2025-01-31T12:00:00.123456789Z',
  duration: '-1.500s',
  mask: 'name,homeAddress.city',
  wrappedInt64: '0',
  wrappedBool: false,
  wrappedString: '',
  struct: { a: [null, { b: 1 }] },
  value: [1, 'x', null],
  any: { '@type': 'type.googleapis.com/google.protobuf.Duration', value: '1s' },
  durations: ['0s', '0.000000001s'],
};

describe('schemas of messages', () => {
  it('hold for what the gateway writes', () => {
    const json = toJson(everything, fromJson(everything, full, { registry: types }), { registry: types });
    assert.deepEqual(Object.keys(json as JsonObject).sort(), Object.keys(full).sort());
    assert.ok(isValid(json), JSON.stringify(isValid.errors));
    const defaults = toJson(everything, create(everything), { alwaysEmitImplicit: true });
    assert.ok(isValid(defaults), JSON.stringify(isValid.errors));
    assert.ok(isValid({}));
  });

  const values: [field: string, good: readonly JsonValue[], bad: readonly JsonValue[]][] = [
    ['doubleValue', [0, -1.5e300, 'NaN', 'Infinity', '-Infinity'], [true, 'nan', '', []]],
    ['floatValue', [0, 0.5], ['+Infinity', {}]],
    ['int32Value', [0, -2_147_483_648], [1.5, true, {}]],
    ['uint32Value', [0], [-1, 0.5]],
    ['int64Value', ['0', '-1'], ['', 'x', '1.5', true]],
    ['uint64Value', ['0'], ['-1', 'x']],
    ['boolValue', [true, false], ['true', 1]],
    ['stringValue', ['', 'ü'], [1, false, []]],
    ['bytesValue', ['', 'AP8='], [1]],
    ['color', ['COLOR_RED'], ['BLUE', '', true]],
    ['child', [{}, { child: {} }], ['', [], { words: 'x' }]],
    ['numbers', [[], ['1']], ['1', {}, ['x']]],
    ['colors', [['COLOR_RED', 'COLOR_RED']], [['BLUE'], [['COLOR_RED']]]],
    ['counts', [{}, { '': '1' }], [[], { a: 'x' }, '']],
    ['books', [{ 1: {} }, { '-1': { title: '' } }], [{ x: {} }, { 1: 1 }, { 1.5: {} }]],
    ['flag', [true], [0]],
    ['time', ['2025-01-31T12:00:00Z'], [0, {}]],
    ['duration', ['1s', '-0.5s', '1.123456789s'], ['1', 's', '1m', '1.1234567890s', 1]],
    ['mask', ['', 'a,bC.d'], [['a'], 1]],
    ['wrappedInt64', ['1', null], ['x', {}, true]],
    ['wrappedBool', [true, null], ['true', { value: true }]],
    ['wrappedString', ['', null], [1, { value: '' }]],
    ['struct', [{}, { a: null }], [[], '']],
    ['value', [null, 1, '', [], {}, false], []],
    ['any', [{ '@type': 'type.googleapis.com/library.v1.Book', title: 'T' }], [{ title: 'T' }, '', []]],
    ['durations', [['1s']], ['1s', [1]]],
  ];
  for (const [field, good, bad] of values) {
    it(`take of ${field} what the gateway takes`, () => {
      for (const value of good) {
        assert.ok(isValid({ [field]: value }), `${JSON.stringify(value)}: ${JSON.stringify(isValid.errors)}`);
        assert.ok(canBeRead({ [field]: value }), JSON.stringify(value));
      }
      for (const value of bad) {
        assert.ok(!isValid({ [field]: value }), JSON.stringify(value));
        assert.ok(!canBeRead({ [field]: value }), JSON.stringify(value));
      }
    });
  }

  it('are narrower than what requests may have, as the document says', () => {
    const lenient: JsonObject[] = [
      { int64_value: '1' },
      { int64Value: 9_007_199_254_740_991 },
      { color: 2 },
      { bytesValue: '_-8' },
      { stringValue: null, numbers: null, child: null },
    ];
    for (const json of lenient) assert.ok(canBeRead(json), JSON.stringify(json));
    assert.ok(!canBeRead({ int64Value: 2 ** 53 }));
  });

  it('allow one member of a oneof at most', () => {
    for (const json of [{}, { text: 'x' }, { number: 1 }]) assert.ok(isValid(json), JSON.stringify(json));
    for (const json of [{ text: 'x', number: 1 }, { text: 1 }]) assert.ok(!isValid(json), JSON.stringify(json));
    assert.ok(!canBeRead({ text: 'x', number: 1 }));
  });
});
