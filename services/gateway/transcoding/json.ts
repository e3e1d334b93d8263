import {
  type DescField,
  type DescMessage,
  fromBinary,
  type JsonObject,
  type JsonValue,
  type Message,
  mergeFromJson,
  type Registry,
  ScalarType,
  toBinary,
  toJson,
} from '@bufbuild/protobuf';
import { FeatureSet_FieldPresence } from '@bufbuild/protobuf/wkt';
import { badRequest } from '#runtime/call/details.ts';
import { Code, RpcError } from '#runtime/call/status.ts';
import { findUncanonical } from './canonical.ts';
import { fieldsOf, isSingleValue, scalarInWords, typeInWords } from './fields.ts';
import type { Route } from './routes.ts';
import { findMissing, findViolations, isObject, mustBe } from './violations.ts';

/**
 * Merges canonical proto3 JSON into a message: https://protobuf.dev/programming-guides/json/
 *
 * @throws RpcError INVALID_ARGUMENT with a `google.rpc.BadRequest` that names each field at fault.
 */
export function mergeJson(message: Message, desc: DescMessage, json: JsonValue, types: Registry): void {
  try {
    mergeFromJson(desc, message, json, { registry: types });
  } catch (error) {
    if (isSingleValue(desc)) throw badBody(mustBe(typeInWords({ message: desc }), json));
    if (!isObject(json)) throw badBody(mustBe('an object', json));
    const violations = findViolations(desc, json, types);
    throw violations.length > 0 ? badRequest(violations) : new RpcError(Code.INVALID_ARGUMENT, plainMessage(error));
  }
  const violations = findUncanonical(desc, json, types);
  if (violations.length === 0) return;
  throw isSingleValue(desc) ? badBody(violations[0]?.description ?? '') : badRequest(violations);
}

/**
 * The bytes of a message.
 *
 * @throws RpcError INVALID_ARGUMENT with a `google.rpc.BadRequest` that names the required fields (of proto2) it lacks.
 */
export function encodeMessage(message: Message, desc: DescMessage): Uint8Array {
  try {
    return toBinary(desc, message);
  } catch (error) {
    const violations = findMissing(desc, message);
    throw violations.length > 0 ? badRequest(violations) : error;
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
  const field = responseBodyField(route);
  const unset = unsetJson(field);
  return (message) =>
    JSON.stringify((toJson(output, fromBinary(output, message), options) as JsonObject)[field.jsonName] ?? unset);
}

/** The field that `response_body` names. Throws an `Error` if there is none. */
export function responseBodyField({ service: { output }, responseBody }: Route): DescField {
  const field = isSingleValue(output) ? undefined : fieldsOf(output).get(responseBody);
  if (field === undefined) throw new Error(`response_body ${responseBody} is not a field of ${output.typeName}`);
  return field;
}

/** JSON leaves out a field that has its default value, but a body cannot be nothing. */
function unsetJson(field: DescField): JsonValue {
  if (field.fieldKind === 'list') return [];
  if (field.fieldKind === 'map') return {};
  if (field.presence !== FeatureSet_FieldPresence.IMPLICIT) return null;
  if (field.enum) return field.enum.values[0]?.name ?? null;
  switch (field.scalar) {
    case ScalarType.BOOL:
      return false;
    case ScalarType.STRING:
    case ScalarType.BYTES:
      return '';
    default:
      return scalarInWords(field.scalar as ScalarType).endsWith('64') ? '0' : 0;
  }
}

function badBody(problem: string): RpcError {
  return new RpcError(Code.INVALID_ARGUMENT, `the body ${problem}`);
}

/** The words of an error of @bufbuild/protobuf, from the field on. */
function plainMessage(error: unknown): string {
  return (error as Error).message.replace(/^cannot decode (message |field )?/, '').replace(' from JSON', '');
}
