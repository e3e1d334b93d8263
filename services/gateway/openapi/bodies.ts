import type { DescField } from '@bufbuild/protobuf';
import { FeatureSet_FieldPresence } from '@bufbuild/protobuf/wkt';
import { fieldsOf } from '../transcoding/fields.ts';
import { createRawReplyReader, takesRawBody } from '../transcoding/http-body.ts';
import type { Route } from '../transcoding/routes.ts';
import { nullable, type Schema, type Schemas, statusRef } from './schemas.ts';

/** Media Type Objects by media type: https://spec.openapis.org/oas/v3.1.1.html#media-type-object */
export type Content = Readonly<Record<string, object>>;

/** The body of a request; undefined where the route takes none. */
export function requestContent(route: Route, schemas: Schemas): Content | undefined {
  if (route.httpMethod === 'GET') return undefined;
  if (route.service.method.requestStream) return { 'application/x-ndjson': eachOf(requestSchema(route, schemas)) };
  if (route.body === '') return undefined;
  return takesRawBody(route) ? { '*/*': {} } : { 'application/json': { schema: requestSchema(route, schemas) } };
}

/** The body of a reply that is no error. */
export function replyContent(route: Route, schemas: Schemas): Content {
  const isRaw = createRawReplyReader(route) !== undefined;
  if (!route.service.method.responseStream) {
    return isRaw ? { '*/*': {} } : { 'application/json': { schema: replySchema(route, schemas) } };
  }
  const schema = replySchema(route, schemas);
  return {
    ...(isRaw ? { '*/*': {} } : { 'application/x-ndjson': eachOf(lineSchema(schema)) }),
    'text/event-stream': eachOf(eventSchema(schema)),
  };
}

/** What goes both ways through a WebSocket of a route that is a stream: an extension, since OpenAPI has no words for it. */
export function webSocketOf(route: Route, schemas: Schemas): object | undefined {
  const { requestStream, responseStream } = route.service.method;
  if (!requestStream && !responseStream) return undefined;
  const takesOne = requestStream || route.body !== '';
  return {
    description: requestStream
      ? 'Send a text frame for each message, then an empty one.'
      : `Send ${takesOne ? 'one text frame with the message' : 'nothing'}.`,
    ...(takesOne && { send: requestSchema(route, schemas) }),
    receive: lineSchema(replySchema(route, schemas)),
  };
}

/** What one request holds; each of a stream has a message, be it that the route names no body. */
function requestSchema({ body, service: { input } }: Route, schemas: Schemas): Schema {
  return body === '' || body === '*'
    ? schemas.ofMessage(input)
    : schemas.ofField(fieldsOf(input).get(body) as DescField);
}

/** What one reply is: the message, or the one field of it that `response_body` names. */
function replySchema({ responseBody, service: { output } }: Route, schemas: Schemas): Schema {
  if (responseBody === '') return schemas.ofMessage(output);
  const field = fieldsOf(output).get(responseBody) as DescField;
  const schema = schemas.ofField(field);
  const single = field.fieldKind !== 'list' && field.fieldKind !== 'map';
  return single && field.presence !== FeatureSet_FieldPresence.IMPLICIT ? nullable(schema) : schema;
}

/**
 * A body of many parts with one schema. OpenAPI 3.1 has no word for that but the extension, which is the `itemSchema` of
 * 3.2; what does not know it shows the part. https://spec.openapis.org/registry/extension/x-oai-itemSchema
 */
function eachOf(part: Schema): object {
  return { schema: part, 'x-oai-itemSchema': part };
}

function lineSchema(message: Schema): Schema {
  return {
    description: 'One line. The last one, and no other, has the status of the call.',
    oneOf: [
      { title: 'a message', type: 'object', properties: { result: message }, required: ['result'] },
      { title: 'the end', type: 'object', properties: { status: statusRef }, required: ['status'] },
    ],
  };
}

function eventSchema(message: Schema): Schema {
  const dataOf = (contentSchema: Schema) => ({ type: 'string', contentMediaType: 'application/json', contentSchema });
  return {
    description: 'One event. The last one, and no other, is a `status`.',
    oneOf: [
      { title: 'a message', type: 'object', properties: { data: dataOf(message) }, required: ['data'] },
      {
        title: 'the end',
        type: 'object',
        properties: {
          event: { const: 'status' },
          data: dataOf(statusRef),
          id: { const: 'end' },
          retry: { type: 'integer', description: 'After how many milliseconds to come back.' },
        },
        required: ['event', 'data'],
      },
    ],
  };
}
