import { type DescMessage, fromBinary, type Message } from '@bufbuild/protobuf';
import { reflect } from '@bufbuild/protobuf/reflect';
import { fieldsOf } from './fields.ts';
import { responseBodyField } from './json.ts';
import type { Route } from './routes.ts';

/** A body that is no JSON, such as an image: what `google.api.HttpBody` holds. */
export interface RawBody {
  /** The Content-Type header; empty for none. */
  readonly contentType: string;
  readonly data: Uint8Array;
}

/** Whether the body of a route's requests goes into a `google.api.HttpBody` as it is, whatever its type. */
export function takesRawBody({ service: { input }, body }: Route): boolean {
  const desc = body === '*' ? input : fieldsOf(input).get(body)?.message;
  return desc !== undefined && isHttpBody(desc);
}

/**
 * Compiles how the replies of a route become bodies of their own type; undefined for a route whose replies are JSON.
 *
 * @throws Error if `response_body` names no field.
 */
export function createRawReplyReader(route: Route): ((message: Uint8Array) => RawBody) | undefined {
  const { output } = route.service;
  if (route.responseBody === '') {
    if (!isHttpBody(output)) return undefined;
    return (message) => fromBinary(output, message) as HttpBody;
  }
  const field = responseBodyField(route);
  if (field.fieldKind !== 'message' || !isHttpBody(field.message)) return undefined;
  return (message) => reflect(output, fromBinary(output, message)).get(field).message as HttpBody;
}

type HttpBody = Message & RawBody;

function isHttpBody(desc: DescMessage): boolean {
  return desc.typeName === 'google.api.HttpBody';
}
