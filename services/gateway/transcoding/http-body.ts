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
export function takesRawBody({ service: { method, input }, body }: Route): boolean {
  if (method.requestStream) return false; // Its messages are JSON, one a line.
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
    return (message) => toRawBody(fromBinary(output, message));
  }
  const field = responseBodyField(route);
  if (field.fieldKind !== 'message' || !isHttpBody(field.message)) return undefined;
  return (message) => toRawBody(reflect(output, fromBinary(output, message)).get(field).message);
}

const mediaTypeSyntax = /^[\x21-\x7e][\x20-\x7e]*$/;

/** Without a type, or with one that could not be a header, the bytes could be anything. */
function toRawBody(message: Message): RawBody {
  const { contentType, data } = message as Message & RawBody;
  return { contentType: mediaTypeSyntax.test(contentType) ? contentType : 'application/octet-stream', data };
}

function isHttpBody(desc: DescMessage): boolean {
  return desc.typeName === 'google.api.HttpBody';
}
