import {
  type DescField,
  type DescMessage,
  fromJson,
  type JsonObject,
  type JsonValue,
  type Registry,
} from '@bufbuild/protobuf';
import type { FieldViolation } from '#runtime/call/details.ts';
import { fieldsOf, isSingleValue, typeInWords } from './fields.ts';

const maxViolations = 20;
/** A bad request may be long; this bounds what is spent on telling why. */
const maxValues = 10_000;
const maxDepth = 100;

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
    if (depth > maxDepth) return add(path, `must not be nested deeper than ${maxDepth}`);
    if (!isObject(json)) return add(path, mustBe('an object', json));
    const fields = fieldsOf(message);
    const seen = new Map<unknown, string>();
    for (const [key, value] of Object.entries(json)) {
      if (isEnough()) return;
      const field = fields.get(key);
      const fieldPath = `${path}${path && '.'}${field?.name ?? key}`;
      if (field === undefined) {
        if (!isReadable(message, { [key]: value })) add(fieldPath, 'is not a field');
        continue;
      }
      const other = seen.get(field.oneof ?? field);
      if (other !== undefined) add(fieldPath, `must not be given together with ${other}`);
      seen.set(field.oneof ?? field, key);
      for (const { item, itemPath, alone } of itemsOf(field, key, value, fieldPath)) {
        if (isEnough()) return;
        if (field.message && !isSingleValue(field.message)) visitMessage(field.message, item, itemPath, depth + 1);
        else if (!isReadable(message, alone)) add(itemPath, mustBe(typeInWords(field), item));
      }
    }
  }

  function isReadable(message: DescMessage, json: JsonObject): boolean {
    try {
      fromJson(message, json, { registry: types });
      return true;
    } catch {
      return false;
    }
  }

  function isEnough(): boolean {
    return found.length >= maxViolations || values++ >= maxValues;
  }

  function add(field: string, description: string): void {
    found.push({ field, description });
  }
}

/**
 * The 64-bit integers in JSON that was read, which came as numbers past 2^53: JSON.parse has rounded them, and whatever
 * was meant, it may not be what is left.
 */
export function findRoundedIntegers(desc: DescMessage, json: JsonObject): FieldViolation[] {
  const found: FieldViolation[] = [];
  visitMessage(desc, json, '');
  return found;

  function visitMessage(message: DescMessage, json: JsonValue, path: string): void {
    if (!isObject(json)) return;
    const fields = fieldsOf(message);
    for (const [key, value] of Object.entries(json)) {
      const field = fields.get(key);
      if (field === undefined) continue;
      for (const { item, itemPath } of itemsOf(field, key, value, `${path}${path && '.'}${field.name}`)) {
        if (found.length >= maxViolations) return;
        if (field.message && !isSingleValue(field.message)) visitMessage(field.message, item, itemPath);
        else if (typeof item === 'number' && !Number.isSafeInteger(item) && /^u?int64$/.test(typeInWords(field))) {
          const description = `must be ${typeInWords(field)} as a string, since JSON numbers past 2^53 lose digits`;
          found.push({ field: itemPath, description });
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
}

/** The values of a field: the items of a list, the values of a map, or the one that it has. */
function* itemsOf(field: DescField, key: string, value: JsonValue, path: string): Generator<Item> {
  if (field.fieldKind === 'list' && Array.isArray(value)) {
    for (const [index, item] of value.entries())
      yield { item, itemPath: `${path}[${index}]`, alone: { [key]: [item] } };
  } else if (field.fieldKind === 'map' && isObject(value)) {
    for (const [entry, item] of Object.entries(value)) {
      yield { item, itemPath: `${path}[${entry}]`, alone: { [key]: { [entry]: item } } };
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
