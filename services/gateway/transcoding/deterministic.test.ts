import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, type DescMessage, fromBinary, fromJson, type JsonValue, toBinary, toJson } from '@bufbuild/protobuf';
import * as fc from 'fast-check';
import { withGoogleTypes } from '../google.ts';
import { compileProto, libraryProto } from '../testdata/build.ts';
import { createDeterministicEncoding } from './deterministic.ts';

const types = withGoogleTypes(compileProto(libraryProto).types);
const everything = types.getMessage('library.v1.Everything') as DescMessage;
const encode = createDeterministicEncoding(everything, types) as (bytes: Uint8Array) => Uint8Array;
const bytesOf = (json: JsonValue) => toBinary(everything, fromJson(everything, json, { registry: types }));

const type = { '@type': 'type.googleapis.com/library.v1.Everything' };
const orders: [where: string, one: JsonValue, other: JsonValue][] = [
  ['a map', { counts: { a: '1', b: '2' } }, { counts: { b: '2', a: '1' } }],
  ['a map with numbers', { books: { '-1': {}, '-7': {} } }, { books: { '-7': {}, '-1': {} } }],
  ['a map of a message', { child: { counts: { a: '1', b: '2' } } }, { child: { counts: { b: '2', a: '1' } } }],
  ['a map in a list', { children: [{ counts: { a: '1', b: '2' } }] }, { children: [{ counts: { b: '2', a: '1' } }] }],
  ['a Struct', { struct: { a: 1, b: { c: 1, d: 2 } } }, { struct: { b: { d: 2, c: 1 }, a: 1 } }],
  ['a Value', { value: [{ a: 1, b: 2 }] }, { value: [{ b: 2, a: 1 }] }],
  ['an Any', { any: { ...type, counts: { a: '1', b: '2' } } }, { any: { ...type, counts: { b: '2', a: '1' } } }],
];

for (const [where, one, other] of orders) {
  test(`the order of ${where} does not matter`, () => {
    assert.notDeepEqual(bytesOf(one), bytesOf(other));
    assert.deepEqual(encode(bytesOf(one)), encode(bytesOf(other)));
  });
}

test('nothing is lost', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 3 })), (struct) => {
      const json = toJson(everything, fromBinary(everything, bytesOf({ struct } as JsonValue)));
      assert.deepEqual(toJson(everything, fromBinary(everything, encode(bytesOf({ struct } as JsonValue)))), json);
    }),
    { numRuns: 50 },
  );
  const unknown = Uint8Array.of(0xfa, 0x7f, 1, 65);
  assert.deepEqual(encode(unknown), unknown);
  const any = { typeUrl: 'x/unknown.Type', value: Uint8Array.of(1, 2) };
  const bytes = toBinary(everything, create(everything, { any }));
  assert.deepEqual(encode(bytes), bytes);
});

test('a message that has only one order costs nothing', () => {
  assert.equal(createDeterministicEncoding(types.getMessage('library.v1.Book') as DescMessage, types), undefined);
});
