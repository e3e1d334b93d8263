import type { DescField, DescMessage, DescMethod } from '@bufbuild/protobuf';
import { isQueryValue, isStruct } from '../transcoding/bind.ts';
import { fieldsOf, isSingleValue } from '../transcoding/fields.ts';
import { createRawReplyReader, takesRawBody } from '../transcoding/http-body.ts';
import type { Policy } from '../policies.ts';
import type { Route } from '../transcoding/routes.ts';
import { updateMaskField } from '../transcoding/update-mask.ts';
import { replyContent, requestContent, webSocketOf } from './bodies.ts';
import { commentOf, firstSentence } from './comments.ts';
import { capturedText, type OpenApiPath } from './paths.ts';
import type { Schemas } from './schemas.ts';

/** An Operation Object: https://spec.openapis.org/oas/v3.1.1.html#operation-object */
export type Operation = Readonly<Record<string, unknown>>;

const parameterRef = (name: string) => ({ $ref: `#/components/parameters/${name}` });
const headerRef = (name: string) => ({ $ref: `#/components/headers/${name}` });
const responseRef = (name: string) => ({ $ref: `#/components/responses/${name}` });
const replyHeaders = {
  'x-request-id': headerRef('RequestId'),
  'x-trace-id': headerRef('TraceId'),
  'served-by': headerRef('ServedBy'),
};
/** Of replies of methods with a cache policy. */
export const quotaHeaders = {
  'ratelimit-policy': headerRef('RateLimitPolicy'),
  ratelimit: headerRef('RateLimit'),
};
export const cacheHeaders = {
  'cache-status': headerRef('CacheStatus'),
  'cache-control': headerRef('CacheControl'),
  age: headerRef('Age'),
};

/** More parameters than this help no reader; the rest is told in words. */
const maxQueryParameters = 100;

/** Describes a route. `binding` counts those of its method from 1. */
export function describeOperation(options: {
  readonly route: Route;
  readonly method: DescMethod;
  readonly binding: number;
  readonly path: OpenApiPath;
  readonly schemas: Schemas;
  readonly policy: Policy | undefined;
}): Operation {
  const { route, method, binding, path, schemas, policy } = options;
  const isCached = policy?.cache !== undefined;
  const needsToken = policy?.authProvider !== undefined;
  const hasQuota = policy?.quota !== undefined;
  const hasEtag = isCached && route.httpMethod === 'GET';
  const comment = commentOf(method);
  const summary = firstSentence(comment);
  const query = queryParameters(route, schemas);
  const description = [comment === summary ? '' : comment, streamNote(route), query.note].filter(Boolean).join('\n\n');
  const body = requestContent(route, schemas);
  const webSocket = webSocketOf(route, schemas);
  return {
    operationId: `${method.parent.typeName}.${method.name}${binding === 1 ? '' : `_${binding}`}`,
    tags: [method.parent.typeName],
    summary: summary.replaceAll('`', '') || method.name,
    ...(description && { description }),
    ...((method.deprecated || method.parent.deprecated) && { deprecated: true }),
    parameters: [
      ...pathParameters(route, path, schemas),
      ...query.parameters,
      parameterRef('GrpcTimeout'),
      ...(hasEtag ? [parameterRef('IfNoneMatch')] : []),
    ],
    ...(body && { requestBody: { content: body } }),
    ...(needsToken && { security: [{ [securitySchemeOf(policy.authProvider)]: [] }] }),
    responses: responsesOf(route, schemas, { isCached, hasEtag, needsToken, hasQuota }),
    ...(webSocket && { 'x-websocket': webSocket }),
  };
}

function responsesOf(
  route: Route,
  schemas: Schemas,
  options: {
    readonly isCached: boolean;
    readonly hasEtag: boolean;
    readonly needsToken: boolean;
    readonly hasQuota: boolean;
  },
): object {
  const { isCached, hasEtag, needsToken, hasQuota } = options;
  const unauthenticated = needsToken && { 401: responseRef('Unauthenticated') };
  const quotaExceeded = hasQuota && { 429: responseRef('QuotaExceeded') };
  const { requestStream, responseStream } = route.service.method;
  if (requestStream && route.httpMethod === 'GET') {
    return {
      101: { description: 'The WebSocket is open.' },
      400: responseRef('BadRequest'),
      ...unauthenticated,
      426: responseRef('UpgradeRequired'),
      ...quotaExceeded,
      503: responseRef('Unavailable'),
      default: responseRef('Error'),
    };
  }
  const hasBody = requestStream || route.body !== '';
  return {
    200: {
      description: responseStream ? 'The stream of replies.' : 'The reply.',
      headers: {
        ...replyHeaders,
        ...(isCached && cacheHeaders),
        ...(hasEtag && { etag: headerRef('ETag') }),
        ...(hasQuota && quotaHeaders),
      },
      content: replyContent(route, schemas),
    },
    ...(responseStream && { 204: responseRef('NothingMore') }),
    ...(hasEtag && { 304: responseRef('NotModified') }),
    400: responseRef('BadRequest'),
    ...unauthenticated,
    ...(hasBody && !requestStream && { 413: responseRef('ContentTooLarge') }),
    ...(hasBody && !takesRawBody(route) && { 415: responseRef('UnsupportedMediaType') }),
    ...quotaExceeded,
    503: responseRef('Unavailable'),
    504: responseRef('DeadlineExceeded'),
    default: responseRef('Error'),
  };
}

/** What the tokens of a provider are called in the document. */
export function securitySchemeOf(provider: string): string {
  return `jwt-${provider}`;
}

/** What the media types do not tell. */
function streamNote(route: Route): string {
  const { requestStream, responseStream } = route.service.method;
  if (requestStream && route.httpMethod === 'GET')
    return 'The requests are a stream, which a GET takes by WebSocket only.';
  const requests = 'The requests are a stream, one on each line. What the path and the query say belongs to the first.';
  const replies =
    createRawReplyReader(route) === undefined
      ? 'The replies are a stream, which ends with the status of the call: without it, the stream was cut.'
      : 'The replies are parts of one body. If the call fails on the way, the connection is cut before its end.';
  return [requestStream && requests, responseStream && replies].filter(Boolean).join(' ');
}

/** The fields that a path such as `book.name` leads through. It does lead there: the route is served. */
export function fieldsOnPath(root: DescMessage, fieldPath: string): readonly DescField[] {
  let desc: DescMessage | undefined = root;
  return fieldPath.split('.').map((name) => {
    const field = desc && fieldsOf(desc).get(name);
    if (field === undefined) throw new Error(`${fieldPath} is not a field of ${root.typeName}`);
    desc = field.message;
    return field;
  });
}

function pathParameters({ template, service: { input } }: Route, path: OpenApiPath, schemas: Schemas): object[] {
  return [...path.parameters].map(([index, name]) => {
    const parameter = { name, in: 'path', required: true } as const;
    const variable = template.variables.find(({ start, end }) => start <= index && index < end);
    const open = template.segments[index] === '**';
    const rest = 'All that is left of the path, slashes and all: they are not to be escaped.';
    if (variable === undefined) {
      return {
        ...parameter,
        ...(open && { description: rest }),
        schema: { type: 'string', ...(!open && segmentSyntax) },
      };
    }
    const field = fieldsOnPath(input, variable.fieldPath).at(-1) as DescField;
    const comment = commentOf(field);
    const deprecated = field.deprecated && { deprecated: true };
    if (variable.single) {
      const schema = schemas.ofParameter(field);
      const minLength = schema['type'] === 'string' && schema['pattern'] === undefined && { minLength: 1 };
      return {
        ...parameter,
        ...(comment && { description: comment }),
        ...deprecated,
        schema: { ...schema, ...minLength },
      };
    }
    const captured = `In the path \`${variable.fieldPath}\` is \`${capturedText(variable, template, path)}\`.`;
    const description = [comment, captured, open && rest].filter(Boolean).join('\n\n');
    return { ...parameter, description, ...deprecated, schema: { type: 'string', ...(!open && segmentSyntax) } };
  });
}

const segmentSyntax = { pattern: '^[^/]+$', examples: ['a'] };

interface QueryParameters {
  readonly parameters: readonly object[];
  /** What the list leaves out. */
  readonly note: string;
}

/** What the path and the body leave, down into messages, each type but once on the way down. */
function queryParameters(route: Route, schemas: Schemas): QueryParameters {
  const { template, body, service } = route;
  const { input } = service;
  const maskField = updateMaskField(route);
  const parameters: object[] = [];
  const further: string[] = [];
  if (body !== '*') {
    const bound = new Set(template.variables.map(({ fieldPath }) => protoPath(fieldsOnPath(input, fieldPath))));
    if (body !== '') bound.add(protoPath(fieldsOnPath(input, body)));
    visit(input, [], bound);
  }
  const fields = further.map((name) => `\`${name}.…\``).join(', ');
  return { parameters, note: fields && `Further query parameters are the fields of ${fields}.` };

  function visit(desc: DescMessage, above: readonly DescField[], bound: ReadonlySet<string>): void {
    for (const field of desc.fields) {
      const path = [...above, field];
      if (bound.has(protoPath(path))) continue;
      if (field.message && !isSingleValue(field.message)) {
        if (field.fieldKind !== 'message') continue;
        const { message } = field;
        const repeats = message === input || above.some((one) => one.message === message);
        if (repeats || parameters.length >= maxQueryParameters) further.push(path.map(queryName).join('.'));
        else visit(message, path, bound);
        continue;
      }
      const isJson = field.fieldKind === 'message' && isStruct(field.message);
      if (field.fieldKind === 'map' || (field.message && !isQueryValue(field.message) && !isJson)) continue;
      const schema = schemas.ofParameter(field);
      const description = [commentOf(field), field === maskField && defaultMask].filter(Boolean).join('\n\n');
      parameters.push({
        name: path.map(queryName).join('.'),
        in: 'query',
        ...(description && { description }),
        ...(field.deprecated && { deprecated: true }),
        ...(isJson ? { content: { 'application/json': { schema } } } : { schema }),
      });
    }
  }
}

const defaultMask = 'Where it is left out, the fields that the body has are meant.';

function protoPath(path: readonly DescField[]): string {
  return path.map(({ name }) => name).join('.');
}

/** A `json_name` with a dot would look like two fields. */
function queryName({ name, jsonName }: DescField): string {
  return jsonName.includes('.') ? name : jsonName;
}
