import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { create, fromBinary, type JsonValue, type Message, toJson } from '@bufbuild/protobuf';
import * as fc from 'fast-check';
import { Code, RpcError } from '#runtime/call/status.ts';
import { arbitraryJson } from '../testdata/arbitrary-json.ts';
import { compileProto, nastyProtos } from '../testdata/build.ts';
import { encodeMessage, mergeJson } from './json.ts';
import { parseJson } from './json-text.ts';

const { types } = compileProto(nastyProtos);
/** FAST_CHECK_SEED repeats a run. */
const seed = Number(process.env.FAST_CHECK_SEED ?? Date.now() % 2 ** 31);
const numRuns = 300;

function descOf(typeName: string) {
  const desc = types.getMessage(typeName);
  assert.ok(desc);
  return desc;
}

/** The text of a request as bytes, as the binder makes them of a body. */
function encode(typeName: string, text: string): Uint8Array {
  const desc = descOf(typeName);
  const message: Message = create(desc);
  mergeJson(message, desc, parseJson(text), types);
  return encodeMessage(message, desc);
}

function decode(typeName: string, bytes: Uint8Array): JsonValue {
  const desc = descOf(typeName);
  return JSON.parse(JSON.stringify(toJson(desc, fromBinary(desc, bytes), { registry: types }))) as JsonValue;
}

function check<T>(t: TestContext, property: fc.IProperty<T>): void {
  t.diagnostic(`seed ${seed}, ${numRuns} runs`);
  fc.assert(property, { seed, numRuns });
}

describe('transcoding', () => {
  for (const typeName of [
    'nasty.v1.All',
    'nasty.v1.Words',
    'nasty.v1.Thing',
    'nasty.proto2.Legacy',
    'nasty.edition.Message',
  ]) {
    it(`of canonical JSON to bytes and back is the identity: ${typeName}`, (t) => {
      check(
        t,
        fc.property(arbitraryJson(descOf(typeName), types), (json) => {
          assert.deepEqual(decode(typeName, encode(typeName, JSON.stringify(json))), json);
        }),
      );
    });
  }

  it('of any JSON makes a message that has JSON again, or is INVALID_ARGUMENT', (t) => {
    const all = descOf('nasty.v1.All');
    const names = all.fields.flatMap(({ name, jsonName }) => [name, jsonName]);
    const json = fc.object({
      key: fc.oneof(fc.constantFrom(...names, '@type', 'x', '1'), fc.string()),
      maxDepth: 3,
      maxKeys: 4,
      values: [
        fc.string({ unit: 'binary' }),
        fc.double(),
        fc.integer(),
        fc.boolean(),
        fc.constantFrom('1', '-1', '0x1', '1s', 'RED', 'NaN', '2025-01-01T00:00:00Z', null, 1e21, '\ud800'),
      ],
    });
    let made = 0;
    check(
      t,
      fc.property(json, (value) => {
        let bytes: Uint8Array;
        try {
          bytes = encode('nasty.v1.All', JSON.stringify(value));
        } catch (error) {
          assert.ok(error instanceof RpcError && error.code === Code.INVALID_ARGUMENT, String(error));
          return;
        }
        made++;
        decode('nasty.v1.All', bytes);
      }),
    );
    t.diagnostic(`${made} messages`);
    assert.ok(made > 0 && made < numRuns);
  });

  it('of any text throws nothing but INVALID_ARGUMENT', (t) => {
    const pieces = [
      '{',
      '}',
      '[',
      ']',
      ':',
      ',',
      '"',
      '\\',
      '"a"',
      '"child"',
      '"by_string"',
      'null',
      '1',
      '1e999',
      '-',
      ' ',
    ];
    check(
      t,
      fc.property(fc.array(fc.oneof(fc.constantFrom(...pieces), fc.string({ maxLength: 3 }))), (text) => {
        try {
          encode('nasty.v1.All', text.join(''));
        } catch (error) {
          assert.ok(error instanceof RpcError && error.code === Code.INVALID_ARGUMENT, String(error));
        }
      }),
    );
  });
});
