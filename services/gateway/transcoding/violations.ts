import {
  type DescField,
  type DescMessage,
  fromJson,
  type JsonObject,
  type JsonValue,
  type Message,
  type Registry,
} from '@bufbuild/protobuf';
import { type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';
import { FeatureSet_FieldPresence } from '@bufbuild/protobuf/wkt';
import type { FieldViolation } from '#runtime/call/details.ts';
import { fieldsOf, isSingleValue, scalarInWords, typeInWords, typeOfAny } from './fields.ts';

/** How many faults of a request its sender is told. */
export const maxViolations = 20;
/** A bad request may be long; this bounds what is spent on telling why. */
const maxValues = 10_000;
const maxDepth = 100;
const tooDeep = `must not be nested deeper than ${maxDepth}`;

/**
 * What is wrong with JSON that could not be read, field by field: at most 20 violations among the first 10,000 values, so
 * that there may be none.
 */
export function findViolations(desc: DescMessage, json: JsonObject, types: Registry): FieldViolation[] {
  const found: FieldViolation[] = [];
  let values = 0;
  visitMessage(desc, json, '', 0);
  return found;

  function visitMessage(message: DescMessage, json: JsonValue, path: string, depth: number): void {
    if (depth > maxDepth) return add(path, tooDeep);
    if (!isObject(json)) return add(path, mustBe('an object', json));
    const fields = fieldsOf(message);
    const seen = new Map<unknown, string>();
    for (const [key, value] of Object.entries(json)) {
      if (isEnough()) return;
      const field = fields.get(key);
      const fieldPath = `${path}${path && '.'}${field?.name ?? key}`;
      if (field === undefined) {
        if (problemOf(message, { [key]: value }) !== undefined) add(fieldPath, 'is not a field');
        continue;
      }
      const other = seen.get(field.oneof ?? field);
      if (other !== undefined) add(fieldPath, `must not be given together with ${other}`);
      seen.set(field.oneof ?? field, key);
      visitField(message, field, key, value, fieldPath, depth);
    }
  }

  function visitField(
    message: DescMessage,
    field: DescField,
    key: string,
    value: JsonValue,
    path: string,
    depth: number,
  ): void {
    const foundBefore = found.length;
    for (const { item, itemPath, alone, keyAlone } of itemsOf(field, key, value, path)) {
      if (isEnough()) return;
      if (field.message && !isSingleValue(field.message)) {
        if (field.fieldKind === 'map' && keyAlone && problemOf(message, keyAlone) !== undefined) {
          add(itemPath, `must have a key that is ${scalarInWords(field.mapKey)}`);
        }
        visitMessage(field.message, item, itemPath, depth + 1);
        continue;
      }
      const problem = problemOf(message, alone);
      if (problem === undefined) continue;
      const inner = field.message?.typeName === 'google.protobuf.Any' ? innerOf(item) : undefined;
      if (inner !== undefined) visitMessage(inner.desc, inner.json, itemPath, depth + 1);
      else add(itemPath, problem === tooDeep ? problem : mustBe(typeInWords(field), item));
    }
    if (
      field.fieldKind === 'map' &&
      found.length === foundBefore &&
      problemOf(message, { [key]: value }) !== undefined
    ) {
      add(path, 'must not have a key in two forms');
    }
  }

  /** What an `Any` of a known type holds. */
  function innerOf(json: JsonValue): { readonly desc: DescMessage; readonly json: JsonObject } | undefined {
    if (!isObject(json)) return undefined;
    const desc = typeOfAny(json, types);
    if (desc === undefined || isSingleValue(desc)) return undefined;
    const { '@type': _, ...rest } = json;
    return { desc, json: rest };
  }

  function problemOf(message: DescMessage, json: JsonObject): string | undefined {
    try {
      fromJson(message, json, { registry: types, recursionLimit: maxDepth });
      return undefined;
    } catch (error) {
      return /recursion depth/.test(String(error)) ? tooDeep : String(error);
    }
  }

  function isEnough(): boolean {
    return found.length >= maxViolations || values++ >= maxValues;
  }

  function add(field: string, description: string): void {
    found.push({ field, description });
  }
}

/** The required fields of proto2 that a message lacks. */
export function findMissing(desc: DescMessage, message: Message): FieldViolation[] {
  const found: FieldViolation[] = [];
  visitMessage(reflect(desc, message), '');
  return found.slice(0, maxViolations);

  function visitMessage(message: ReflectMessage, path: string): void {
    for (const field of message.fields) {
      const fieldPath = `${path}${path && '.'}${field.name}`;
      if (!message.isSet(field)) {
        if (field.presence === FeatureSet_FieldPresence.LEGACY_REQUIRED)
          found.push({ field: fieldPath, description: 'is required' });
      } else if (field.fieldKind === 'message') {
        visitMessage(message.get(field), fieldPath);
      } else if (field.message) {
        const items = message.get(field) as Iterable<ReflectMessage> | Iterable<[string | number, ReflectMessage]>;
        for (const [index, item] of [...items].entries()) {
          const [key, value] = Array.isArray(item) ? item : [index, item];
          visitMessage(value, `${fieldPath}[${key}]`);
        }
      }
    }
  }
}

interface Item {
  readonly item: JsonValue;
  readonly itemPath: string;
  /** The message with nothing but this item. */
  readonly alone: JsonObject;
  /** The same with an empty message in a map. */
  readonly keyAlone?: JsonObject;
}

/** The values of a field: the items of a list, the values of a map, or the one that it has. */
function* itemsOf(field: DescField, key: string, value: JsonValue, path: string): Generator<Item> {
  if (field.fieldKind === 'list' && Array.isArray(value)) {
    for (const [index, item] of value.entries())
      yield { item, itemPath: `${path}[${index}]`, alone: { [key]: [item] } };
  } else if (field.fieldKind === 'map' && isObject(value)) {
    for (const [entry, item] of Object.entries(value)) {
      const alone = { [key]: { [entry]: item } };
      yield { item, itemPath: `${path}[${entry}]`, alone, keyAlone: { [key]: { [entry]: {} } } };
    }
  } else {
    yield { item: value, itemPath: path, alone: { [key]: value } };
  }
}

/** `must be int32, is "abc"` */
export function mustBe(what: string, value: JsonValue): string {
  if (Array.isArray(value)) return `must be ${what}, is an array`;
  if (isObject(value)) return `must be ${what}, is an object`;
  const text = JSON.stringify(value);
  return `must be ${what}, is ${text.length > 50 ? `${text.slice(0, 50)}…` : text}`;
}

/** Whether JSON is an object, and no array. */
export function isObject(value: JsonValue): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
