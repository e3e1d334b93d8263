import {
  type DescExtension,
  type DescField,
  type DescMessage,
  type JsonValue,
  type Registry,
  ScalarType,
} from '@bufbuild/protobuf';
import type { FieldViolation } from '#runtime/call/details.ts';
import { fieldsOf, isSingleValue, scalarInWords, typeInWords, typeOfAny } from './fields.ts';
import { isObject, maxViolations, mustBe } from './violations.ts';

/**
 * What @bufbuild/protobuf reads from JSON and canonical proto3 JSON does not have: hexadecimal numbers (`"0x10"`), 64-bit
 * integers as numbers past 2^53, which JSON.parse has rounded, text behind a duration (`"1sx"`), the 30th of February,
 * halves of surrogate pairs, which would become U+FFFD, and the like. The JSON must have been read without an error.
 * https://protobuf.dev/programming-guides/json/
 */
export function findUncanonical(desc: DescMessage, json: JsonValue, types: Registry): FieldViolation[] {
  const found: FieldViolation[] = [];
  visitMessage(desc, json, '');
  return found;

  function visitMessage(message: DescMessage, json: JsonValue, path: string): void {
    if (isSingleValue(message)) return visitSingleValue(message, json, path);
    if (!isObject(json)) return;
    const fields = fieldsOf(message);
    for (const key of Object.keys(json)) {
      if (found.length >= maxViolations) return;
      const value = json[key];
      const field = fields.get(key) ?? types.getExtension(key.slice(1, -1));
      if (field === undefined || value === undefined || value === null || isLeftToReader(field)) continue;
      const fieldPath = path === '' ? field.name : `${path}.${field.name}`;
      if (field.fieldKind === 'list' && Array.isArray(value)) {
        for (const [index, item] of value.entries()) visitValue(field, item, `${fieldPath}[${index}]`);
      } else if (field.fieldKind === 'map' && isObject(value)) {
        for (const entry of Object.keys(value)) {
          const entryPath = `${fieldPath}[${entry}]`;
          if (!isMapKey(field.mapKey, entry)) add(entryPath, `must have a key that is ${scalarInWords(field.mapKey)}`);
          visitValue(field, value[entry] ?? null, entryPath);
        }
      } else {
        visitValue(field, value, fieldPath);
      }
    }
  }

  function visitValue(field: DescField | DescExtension, json: JsonValue, path: string): void {
    if (field.message) return visitMessage(field.message, json, path);
    if (field.scalar === undefined || isScalar(field.scalar, json)) return;
    add(path, typeof json === 'number' ? roundedInteger(field.scalar) : mustBe(typeInWords(field), json));
  }

  function visitSingleValue(message: DescMessage, json: JsonValue, path: string): void {
    const [first] = message.fields;
    const text = typeof json === 'string' ? json : '';
    switch (message.typeName) {
      case 'google.protobuf.Any':
        return visitAny(json, path);
      case 'google.protobuf.Struct':
      case 'google.protobuf.Value':
      case 'google.protobuf.ListValue':
        if (!isWellFormed(json)) add(path, 'must be of finite numbers, and of strings without unpaired surrogates');
        return;
      case 'google.protobuf.Duration':
        return expect(durationSyntax.test(text));
      case 'google.protobuf.Timestamp':
        return expect(isDate(text));
      case 'google.protobuf.FieldMask':
        return expect(text === '' || fieldMaskSyntax.test(text));
      default:
        if (first !== undefined) visitValue(first, json, path);
    }

    function expect(is: boolean): void {
      if (!is) add(path, mustBe(typeInWords({ message }), json));
    }
  }

  function visitAny(json: JsonValue, path: string): void {
    if (!isObject(json)) return;
    const desc = typeOfAny(json, types);
    if (desc === undefined) return;
    if (isSingleValue(desc)) visitSingleValue(desc, json['value'] ?? null, `${path}.value`);
    else visitMessage(desc, json, path);
  }

  function add(field: string, description: string): void {
    found.push({ field, description });
  }
}

const integerSyntax = /^-?\d+$/;
const numberSyntax = /^-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
const base64Syntax = /^[A-Za-z0-9+/_-]*={0,2}$/;
const durationSyntax = /^-?\d+(?:\.\d{1,9})?s$/;
const fieldMaskSyntax = /^[^\s,.]+(?:[,.][^\s,.]+)*$/u;

/** Fields whose values the reader takes only as they must be. */
function isLeftToReader({ fieldKind, scalar, message }: DescField | DescExtension): boolean {
  return (
    fieldKind !== 'map' &&
    !message &&
    (scalar === undefined || scalar === ScalarType.STRING || scalar === ScalarType.BOOL)
  );
}

function isScalar(scalar: ScalarType, json: JsonValue): boolean {
  if (typeof json === 'number') return !is64Bit(scalar) || Number.isSafeInteger(json);
  if (typeof json !== 'string') return true;
  switch (scalar) {
    case ScalarType.STRING:
      return true;
    case ScalarType.BYTES:
      return base64Syntax.test(json);
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return numberSyntax.test(json) || /^(?:NaN|-?Infinity)$/.test(json);
    default:
      return numberSyntax.test(json);
  }
}

function is64Bit(scalar: ScalarType): boolean {
  return /^u?int64$/.test(scalarInWords(scalar));
}

function roundedInteger(scalar: ScalarType): string {
  return `must be ${scalarInWords(scalar)} as a string, since JSON numbers past 2^53 lose digits`;
}

function isMapKey(scalar: ScalarType, key: string): boolean {
  return scalar === ScalarType.STRING || scalar === ScalarType.BOOL || integerSyntax.test(key);
}

function isWellFormed(json: JsonValue): boolean {
  if (typeof json === 'string') return json.isWellFormed();
  if (typeof json === 'number') return Number.isFinite(json);
  if (Array.isArray(json)) return json.every(isWellFormed);
  if (isObject(json))
    return Object.entries(json).every(([key, value]) => key.isWellFormed() && isWellFormed(value ?? null));
  return true;
}

/** Whether the day of an RFC 3339 time exists; Date.parse rolls the 30th of February, and the hour 24, over. */
function isDate(time: string): boolean {
  const [year = 0, month = 0, day = 0, hour = 0] = time.split(/[-T:]/, 4).map(Number);
  return hour < 24 && day <= new Date(Date.UTC(year < 100 ? year + 400 : year, month, 0)).getUTCDate();
}
