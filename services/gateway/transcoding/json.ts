import {
  create,
  type DescMessage,
  fromBinary,
  type JsonObject,
  type JsonValue,
  type Message,
  mergeFromJson,
  mergeFromJsonString,
  type Registry,
  toJson,
} from '@bufbuild/protobuf';
import { badRequest } from '#runtime/call/details.ts';
import { Code, RpcError } from '#runtime/call/status.ts';
import { fieldsOf } from './fields.ts';
import type { Route } from './routes.ts';
import { findRoundedIntegers, findViolations, isObject, mustBe } from './violations.ts';

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
    const value = typeof json === 'string' ? parseJson(json) : json;
    if (!isObject(value)) throw new RpcError(Code.INVALID_ARGUMENT, `the body ${mustBe('an object', value)}`);
    const violations = findViolations(desc, value, types);
    throw violations.length > 0 ? badRequest(violations) : new RpcError(Code.INVALID_ARGUMENT, plainMessage(error));
  }
  if (typeof json === 'string' && /\d{16}/.test(json)) {
    const violations = findRoundedIntegers(desc, parseJson(json) as JsonObject);
    if (violations.length > 0) throw badRequest(violations);
  }
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

/** The words of an error of @bufbuild/protobuf, from the field on. */
function plainMessage(error: unknown): string {
  return (error as Error).message.replace(/^cannot decode (message |field )?/, '').replace(' from JSON', '');
}
