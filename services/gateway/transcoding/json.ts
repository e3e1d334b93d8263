import {
  create,
  type DescField,
  type DescMessage,
  fromBinary,
  fromJson,
  type JsonObject,
  type JsonValue,
  type Message,
  mergeFromJson,
  mergeFromJsonString,
  type Registry,
  ScalarType,
  toJson,
} from '@bufbuild/protobuf';
import { badRequest, type FieldViolation } from '#runtime/call/details.ts';
import { Code, RpcError } from '#runtime/call/status.ts';
import type { Route } from './routes.ts';

/**
 * Merges canonical proto3 JSON into a message: https://protobuf.dev/programming-guides/json/. Text is refused for
 * duplicate keys too, and for 64-bit integers as numbers past 2^53, which JSON.parse would silently round.
 *
 * @throws RpcError INVALID_ARGUMENT with a `google.rpc.BadRequest` that names each field at fault.
 */
export function mergeJson(message: Message, desc: DescMessage, json: string | JsonObject, types: Registry): void {
  try {
    if (typeof json !== 'string') mergeFromJson(desc, message, json, { registry: types });
    else mergeFromJsonString(desc, message, json, { registry: types });
  } catch (error) {
    throw invalidJson(desc, json, types) ?? new RpcError(Code.INVALID_ARGUMENT, plainMessage(error));
  }
  if (typeof json === 'string' && /\d{16}/.test(json)) {
    const error = invalidJson(desc, json, types);
    if (error !== undefined) throw error;
  }
}

function invalidJson(desc: DescMessage, json: string | JsonObject, types: Registry): RpcError | undefined {
  const value = typeof json === 'string' ? parseJson(json) : json;
  if (!isObject(value)) return new RpcError(Code.INVALID_ARGUMENT, `the body ${mustBe('an object', value)}`);
  const violations = findViolations(desc, value, types);
  return violations.length > 0 ? badRequest(violations) : undefined;
}

/** Parses JSON text. Throws RpcError INVALID_ARGUMENT if it is none. */
export function parseJson(text: string): JsonValue {
  try {
    return JSON.parse(text) as JsonValue;
  } catch (error) {
    throw new RpcError(Code.INVALID_ARGUMENT, `the body is not JSON: ${(error as Error).message}`);
  }
}

/**
 * Compiles how the replies of a route become canonical proto3 JSON text: the whole message, or its `response_body` field.
 *
 * @throws Error if there is no such field.
 */
export function createReplyWriter(route: Route, types: Registry): (message: Uint8Array) => string {
  const { output } = route.service;
  const options = { registry: types };
  if (route.responseBody === '') {
    return (message) => JSON.stringify(toJson(output, fromBinary(output, message), options));
  }
  const field = fieldsOf(output).get(route.responseBody);
  if (field === undefined) throw new Error(`response_body ${route.responseBody} is not a field of ${output.typeName}`);
  const { jsonName } = field;
  // JSON leaves out a field that has its default value, but a body cannot be nothing.
  const unset = (toJson(output, create(output), { alwaysEmitImplicit: true }) as JsonObject)[jsonName] ?? null;
  return (message) =>
    JSON.stringify((toJson(output, fromBinary(output, message), options) as JsonObject)[jsonName] ?? unset);
}

/** Types of `google.protobuf` whose JSON is no object of their fields. */
const specialTypes = new Map([
  ['google.protobuf.Any', 'an object with an "@type" that is known'],
  ['google.protobuf.Timestamp', 'an RFC 3339 time such as "2025-01-31T12:00:00Z"'],
  ['google.protobuf.Duration', 'seconds such as "1.5s"'],
  ['google.protobuf.FieldMask', 'field paths such as "name,homeAddress.city"'],
  ['google.protobuf.Struct', 'an object'],
  ['google.protobuf.Value', 'any JSON value'],
  ['google.protobuf.ListValue', 'an array'],
  ['google.protobuf.BoolValue', 'bool'],
  ['google.protobuf.StringValue', 'string'],
  ['google.protobuf.BytesValue', 'base64'],
  ['google.protobuf.DoubleValue', 'double'],
  ['google.protobuf.FloatValue', 'float'],
  ['google.protobuf.Int32Value', 'int32'],
  ['google.protobuf.UInt32Value', 'uint32'],
  ['google.protobuf.Int64Value', 'int64'],
  ['google.protobuf.UInt64Value', 'uint64'],
]);

/** Whether a message is written as one value in JSON, and so in a query parameter. */
export function isSingleValue(desc: DescMessage): boolean {
  return specialTypes.has(desc.typeName);
}

const maxViolations = 20;
const maxDepth = 100;

/** What is wrong with a JSON value, field by field: only asked for once it is known that something may be. */
function findViolations(root: DescMessage, json: JsonValue, types: Registry): FieldViolation[] {
  const found: FieldViolation[] = [];
  visitMessage(root, json, '', 0);
  return found;

  function visitMessage(desc: DescMessage, value: JsonValue, path: string, depth: number): void {
    if (depth > maxDepth) return add(path, `must not be nested deeper than ${maxDepth}`);
    if (!isObject(value)) return add(path, mustBe('an object', value));
    const fields = fieldsOf(desc);
    const seen = new Map<unknown, string>();
    for (const [key, item] of Object.entries(value)) {
      if (found.length >= maxViolations) return;
      const field = fields.get(key);
      const itemPath = `${path}${path && '.'}${field?.name ?? key}`;
      if (field === undefined) {
        if (!isExtension(desc, key, item)) add(itemPath, 'is not a field');
        continue;
      }
      const other = seen.get(field.oneof ?? field);
      if (other !== undefined) add(itemPath, `must not be given together with ${other}`);
      seen.set(field.oneof ?? field, key);
      visitField(field, key, item, itemPath, depth);
    }
  }

  function visitField(field: DescField, key: string, value: JsonValue, path: string, depth: number): void {
    const { message } = field;
    if (field.fieldKind === 'list' && Array.isArray(value)) {
      for (const [index, item] of value.entries()) {
        if (message && !isSingleValue(message)) visitMessage(message, item, `${path}[${index}]`, depth + 1);
        else check(field, { [key]: [item] }, item, `${path}[${index}]`);
      }
    } else if (field.fieldKind === 'map' && isObject(value)) {
      for (const [entry, item] of Object.entries(value)) {
        if (message && !isSingleValue(message)) visitMessage(message, item, `${path}[${entry}]`, depth + 1);
        else check(field, { [key]: { [entry]: item } }, item, `${path}[${entry}]`);
      }
    } else if (field.fieldKind === 'message' && message && !isSingleValue(message) && value !== null) {
      visitMessage(message, value, path, depth + 1);
    } else {
      check(field, { [key]: value }, value, path);
    }
  }

  /** `object` holds the value alone in its place, so that it is what a failure is about. */
  function check(field: DescField, object: JsonObject, value: JsonValue, path: string): void {
    if (found.length >= maxViolations) return;
    const what = expectation(field);
    if (
      typeof value === 'number' &&
      /^u?int64$/.test(what) &&
      !Number.isSafeInteger(value) &&
      Number.isInteger(value)
    ) {
      return add(path, `must be ${what} as a string, since JSON numbers past 2^53 lose digits`);
    }
    try {
      fromJson(field.parent, object, { registry: types });
    } catch {
      add(path, mustBe(what, value));
    }
  }

  function isExtension(desc: DescMessage, key: string, value: JsonValue): boolean {
    try {
      fromJson(desc, { [key]: value }, { registry: types });
      return true;
    } catch {
      return false;
    }
  }

  function add(field: string, description: string): void {
    if (found.length < maxViolations) found.push({ field, description });
  }
}

const fieldsByName = new WeakMap<DescMessage, Map<string, DescField>>();

/** The fields of a message by their two names: the one of the proto and the one of JSON. */
export function fieldsOf(desc: DescMessage): ReadonlyMap<string, DescField> {
  let fields = fieldsByName.get(desc);
  if (fields === undefined) {
    fields = new Map(desc.fields.flatMap((field) => [[field.name, field] as const, [field.jsonName, field] as const]));
    fieldsByName.set(desc, fields);
  }
  return fields;
}

function expectation(field: DescField): string {
  if (field.enum) {
    const names = field.enum.values.map(({ name }) => name);
    return names.length > 10 ? `a value of ${field.enum.typeName}` : `one of ${names.join(', ')}`;
  }
  if (field.message) return specialTypes.get(field.message.typeName) ?? 'an object';
  return scalarName(field.scalar);
}

function scalarName(scalar: ScalarType): string {
  switch (scalar) {
    case ScalarType.BYTES:
      return 'base64';
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
      return 'int32';
    case ScalarType.FIXED32:
      return 'uint32';
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return 'int64';
    case ScalarType.FIXED64:
      return 'uint64';
    default:
      return ScalarType[scalar].toLowerCase();
  }
}

function mustBe(what: string, value: JsonValue): string {
  if (Array.isArray(value)) return `must be ${what}, is an array`;
  if (isObject(value)) return `must be ${what}, is an object`;
  const text = JSON.stringify(value);
  return `must be ${what}, is ${text.length > 50 ? `${text.slice(0, 50)}…` : text}`;
}

function isObject(value: JsonValue): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function plainMessage(error: unknown): string {
  return (error as Error).message.replace(/^cannot decode \S+( \S+)? from JSON:? /, '');
}
