import type { DescField, DescMessage, DescMethod } from '@bufbuild/protobuf';
import { FeatureSet_FieldPresence } from '@bufbuild/protobuf/wkt';
import { isQueryValue } from '../transcoding/bind.ts';
import { fieldsOf, isSingleValue } from '../transcoding/fields.ts';
import type { Route } from '../transcoding/routes.ts';
import { commentOf, firstSentence } from './comments.ts';
import { capturedText, type OpenApiPath } from './paths.ts';
import { nullable, type Schema, type Schemas, statusRef } from './schemas.ts';

/** An Operation Object: https://spec.openapis.org/oas/v3.1.1.html#operation-object */
export type Operation = Readonly<Record<string, unknown>>;

const parameterRef = (name: string) => ({ $ref: `#/components/parameters/${name}` });
const responseRef = (name: string) => ({ $ref: `#/components/responses/${name}` });
const headerRefs = {
  'x-request-id': { $ref: '#/components/headers/RequestId' },
  'served-by': { $ref: '#/components/headers/ServedBy' },
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
}): Operation {
  const { route, method, binding, path, schemas } = options;
  const comment = commentOf(method);
  const summary = firstSentence(comment);
  const query = queryParameters(route, schemas);
  const description = [comment === summary ? '' : comment, streamNote(route), query.note].filter(Boolean).join('\n\n');
  const hasBody = route.body !== '';
  return {
    operationId: `${method.parent.typeName}.${method.name}${binding === 1 ? '' : `_${binding}`}`,
    tags: [method.parent.typeName],
    summary: summary.replaceAll('`', '') || method.name,
    ...(description && { description }),
    ...((method.deprecated || method.parent.deprecated) && { deprecated: true }),
    parameters: [...pathParameters(route, path, schemas), ...query.parameters, parameterRef('GrpcTimeout')],
    ...(hasBody && { requestBody: requestBody(route, schemas) }),
    responses: {
      200: okResponse(route, schemas),
      400: responseRef('BadRequest'),
      ...(hasBody && { 413: responseRef('ContentTooLarge'), 415: responseRef('UnsupportedMediaType') }),
      503: responseRef('Unavailable'),
      504: responseRef('DeadlineExceeded'),
      default: responseRef('Error'),
    },
  };
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
function queryParameters({ template, body, service: { input } }: Route, schemas: Schemas): QueryParameters {
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
      } else if (field.fieldKind !== 'map' && (!field.message || isQueryValue(field.message))) {
        const comment = commentOf(field);
        parameters.push({
          name: path.map(queryName).join('.'),
          in: 'query',
          ...(comment && { description: comment }),
          ...(field.deprecated && { deprecated: true }),
          schema: schemas.ofParameter(field),
        });
      }
    }
  }
}

function protoPath(path: readonly DescField[]): string {
  return path.map(({ name }) => name).join('.');
}

/** A `json_name` with a dot would look like two fields. */
function queryName({ name, jsonName }: DescField): string {
  return jsonName.includes('.') ? name : jsonName;
}

function requestBody({ body, service: { input } }: Route, schemas: Schemas): object {
  const schema = body === '*' ? schemas.ofMessage(input) : schemas.ofField(fieldsOnPath(input, body)[0] as DescField);
  return { content: { 'application/json': { schema } } };
}

/** What a reply is: the message, or the one field of it that `response_body` names. */
function replySchema({ responseBody, service: { output } }: Route, schemas: Schemas): Schema {
  if (responseBody === '') return schemas.ofMessage(output);
  const field = fieldsOnPath(output, responseBody)[0] as DescField;
  const schema = schemas.ofField(field);
  const single = field.fieldKind !== 'list' && field.fieldKind !== 'map';
  return single && field.presence !== FeatureSet_FieldPresence.IMPLICIT ? nullable(schema) : schema;
}

function okResponse(route: Route, schemas: Schemas): object {
  const schema = replySchema(route, schemas);
  if (!route.service.method.responseStream) {
    return { description: 'The reply.', headers: headerRefs, content: { 'application/json': { schema } } };
  }
  const line = {
    description: 'One line of the body. The last one, and no other, is a `status`.',
    oneOf: [
      { title: 'a message', type: 'object', properties: { result: schema }, required: ['result'] },
      { title: 'the end', type: 'object', properties: { status: statusRef }, required: ['status'] },
    ],
  };
  return {
    description: 'The stream of replies.',
    headers: headerRefs,
    content: { 'application/x-ndjson': { schema: line, 'x-oai-itemSchema': line } },
  };
}

function streamNote({ service: { method } }: Route): string {
  if (!method.responseStream) return '';
  return 'The reply is a stream: a line of JSON a message, as it comes, then one with the status of the call. A body without that line was cut.';
}
