import {
  type DescEnum,
  type DescField,
  type DescMessage,
  type JsonValue,
  type Registry,
  ScalarType,
} from '@bufbuild/protobuf';
import { FeatureSet_FieldPresence } from '@bufbuild/protobuf/wkt';
import * as fc from 'fast-check';

const maxFields = 5;
const maxItems = 3;
/** Keys that mean something to an object of JavaScript. */
const trickyKeys = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'prototype', '', '@type', '0', 'ü.🌍'];

const text = fc.oneof(fc.string({ unit: 'binary', maxLength: 8 }), fc.constantFrom('', 'a', '\u0000', '"\\', '\u2028'));
const key = fc.oneof(text, fc.constantFrom(...trickyKeys));
const finite = (min: number, max: number) => fc.double({ min, max, noNaN: true }).map((value) => value + 0); // no -0
const fraction = fc.constantFrom('', '.001', '.500', '.123456', '.000001', '.123456789', '.000000001');

/** Canonical proto3 JSON of messages of a type: what a reply would have, and no other way to write it. */
export function arbitraryJson(desc: DescMessage, types: Registry, depth = 3): fc.Arbitrary<JsonValue> {
  const special = arbitrarySpecial(desc, types, depth);
  if (special !== undefined) return special;
  const fields = depth > 0 ? desc.fields : desc.fields.filter(({ message }) => message === undefined);
  const required = fields.filter(({ presence }) => presence === FeatureSet_FieldPresence.LEGACY_REQUIRED);
  return fc
    .uniqueArray(fc.constantFrom(...fields), {
      maxLength: maxFields,
      selector: ({ oneof, name }) => oneof?.name ?? name,
    })
    .map((chosen) => [...new Set([...required, ...chosen])])
    .chain((chosen) =>
      fc.tuple(...chosen.map((field) => arbitraryField(field, types, depth).map((json) => [field, json] as const))),
    )
    .map((entries) =>
      Object.fromEntries(
        entries.filter(([field, json]) => !isOmitted(field, json)).map(([{ jsonName }, json]) => [jsonName, json]),
      ),
    );
}

/** Canonical JSON has no fields that are as if they were not set. */
function isOmitted(field: DescField, json: JsonValue): boolean {
  if (field.fieldKind === 'list' || field.fieldKind === 'map') return Object.keys(json ?? {}).length === 0;
  if (field.presence !== FeatureSet_FieldPresence.IMPLICIT) return false;
  return field.enum ? json === nameOf(field.enum, 0) : json === 0 || json === '0' || json === '' || json === false;
}

function arbitraryField(field: DescField, types: Registry, depth: number): fc.Arbitrary<JsonValue> {
  const value = arbitraryValue(field, types, depth);
  if (field.fieldKind === 'list') return fc.array(value, { maxLength: maxItems });
  if (field.fieldKind !== 'map') return value;
  const mapKey = field.mapKey === ScalarType.STRING ? key : arbitraryScalar(field.mapKey).map(String);
  return fc.array(fc.tuple(mapKey, value), { maxLength: maxItems }).map((entries) => Object.fromEntries(entries));
}

function arbitraryValue(field: DescField, types: Registry, depth: number): fc.Arbitrary<JsonValue> {
  if (field.message) return arbitraryJson(field.message, types, depth - 1);
  if (field.enum) return arbitraryEnum(field.enum);
  return arbitraryScalar(field.scalar);
}

function arbitraryEnum(desc: DescEnum): fc.Arbitrary<JsonValue> {
  const known = fc.constantFrom(...desc.values.map(({ number }) => number));
  const numbers = desc.open ? fc.oneof(known, fc.integer()) : known;
  return numbers.map((number) => nameOf(desc, number));
}

function nameOf(desc: DescEnum, number: number): JsonValue {
  if (desc.typeName === 'google.protobuf.NullValue') return null;
  return desc.value[number]?.name ?? number;
}

function arbitraryScalar(scalar: ScalarType): fc.Arbitrary<JsonValue> {
  switch (scalar) {
    case ScalarType.BOOL:
      return fc.boolean();
    case ScalarType.STRING:
      return text;
    case ScalarType.BYTES:
      return fc.uint8Array({ maxLength: 5 }).map((bytes) => Buffer.from(bytes).toString('base64'));
    case ScalarType.DOUBLE:
      return fc.oneof(finite(-Number.MAX_VALUE, Number.MAX_VALUE), fc.constantFrom('NaN', 'Infinity', '-Infinity'));
    case ScalarType.FLOAT:
      return fc.oneof(
        fc.float({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0),
        fc.constantFrom('NaN', 'Infinity', '-Infinity'),
      );
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return fc.oneof(fc.integer({ min: 0, max: 2 ** 32 - 1 }), fc.constantFrom(0, 2 ** 32 - 1));
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return fc.oneof(fc.bigInt(0n, 2n ** 64n - 1n), fc.constantFrom(0n, 2n ** 53n + 1n, 2n ** 64n - 1n)).map(String);
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return fc
        .oneof(fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n), fc.constantFrom(-(2n ** 63n), 2n ** 63n - 1n))
        .map(String);
    default:
      return fc.oneof(fc.integer(), fc.constantFrom(-(2 ** 31), 2 ** 31 - 1, 0, -1));
  }
}

function arbitrarySpecial(desc: DescMessage, types: Registry, depth: number): fc.Arbitrary<JsonValue> | undefined {
  const [first] = desc.fields;
  switch (desc.typeName) {
    case 'google.protobuf.Timestamp':
      return fc
        .tuple(
          fc.date({ min: new Date(-62_135_596_800_000), max: new Date(253_402_300_799_000), noInvalidDate: true }),
          fraction,
        )
        .map(([date, nanos]) => date.toISOString().replace(/\.\d+Z$/, `${nanos}Z`));
    case 'google.protobuf.Duration':
      return fc
        .tuple(fc.integer({ min: -315_576_000_000, max: 315_576_000_000 }), fraction)
        .filter(([seconds, nanos]) => Math.abs(seconds) < 315_576_000_000 || nanos === '')
        .map(([seconds, nanos]) => `${seconds}${nanos}s`);
    case 'google.protobuf.FieldMask':
      return fc
        .array(fc.stringMatching(/^[a-z]{1,4}([A-Z][a-z]{1,3}){0,2}(\.[a-z]{1,3}){0,2}$/), { maxLength: maxItems })
        .map((paths) => paths.join(','));
    case 'google.protobuf.Value':
      return arbitraryAnything(depth);
    case 'google.protobuf.Struct':
      return fc.dictionary(key, arbitraryAnything(depth), { maxKeys: maxItems, noNullPrototype: true });
    case 'google.protobuf.ListValue':
      return fc.array(arbitraryAnything(depth), { maxLength: maxItems });
    case 'google.protobuf.Empty':
      return fc.constant({});
    case 'google.protobuf.Any':
      return arbitraryAny(types, depth);
    default:
      return /^google\.protobuf\.\w+Value$/.test(desc.typeName) && first ? arbitraryValue(first, types, 0) : undefined;
  }
}

function arbitraryAny(types: Registry, depth: number): fc.Arbitrary<JsonValue> {
  const names = [
    'nasty.v1.Thing',
    'nasty.v1.All',
    'nasty.proto2.Legacy',
    'google.protobuf.Duration',
    'google.protobuf.Value',
  ];
  return fc.constantFrom(...names).chain((name) => {
    const desc = types.getMessage(name);
    if (desc === undefined) throw new Error(`no type ${name}`);
    const url = { '@type': `type.googleapis.com/${name}` };
    const isSpecial = name.startsWith('google.protobuf.');
    return arbitraryJson(desc, types, Math.max(depth - 1, 0)).map((json) =>
      isSpecial ? { value: json, ...url } : { ...(json as object), ...url },
    );
  });
}

/** Any JSON without numbers that JSON cannot write. */
function arbitraryAnything(depth: number): fc.Arbitrary<JsonValue> {
  const leaf = fc.oneof(text, finite(-1e300, 1e300), fc.boolean(), fc.constant(null));
  if (depth <= 0) return leaf;
  const inner = arbitraryAnything(depth - 1);
  return fc.oneof(
    leaf,
    fc.array(inner, { maxLength: maxItems }),
    fc.dictionary(key, inner, { maxKeys: maxItems, noNullPrototype: true }),
  );
}
