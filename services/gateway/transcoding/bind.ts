import {
  create,
  type DescField,
  type DescMessage,
  type JsonValue,
  type Registry,
  ScalarType,
  toBinary,
} from '@bufbuild/protobuf';
import { badRequest, type FieldViolation } from '#runtime/call/details.ts';
import { Code, RpcError } from '#runtime/call/status.ts';
import { fieldsOf, isSingleValue } from './fields.ts';
import { mergeJson, parseJson } from './json.ts';
import { captureVariable, type Variable } from './path-template.ts';
import type { Route } from './routes.ts';

/** The parts of an HTTP request that make a message. */
export interface RequestParts {
  /** Of the path, as `RouteTable.match` gives them. */
  readonly segments: readonly string[];
  /** What follows the `?`; empty for none. */
  readonly query: string;
  /** Empty for none. */
  readonly body: string;
}

/** The request message, as bytes. Throws RpcError INVALID_ARGUMENT with a `google.rpc.BadRequest`. */
export type RequestBinder = (parts: RequestParts) => Uint8Array;

/** JSON without a prototype, so that no name of a field means anything else. */
interface Tree {
  [jsonName: string]: JsonValue;
}

/**
 * Compiles how the requests of a route become messages. A field comes from one place only: the path, the body, or the
 * query, which takes what the other two leave. Everything is read as canonical proto3 JSON.
 *
 * @throws Error for a route that does not fit its message.
 */
export function createRequestBinder({ service: { input }, template, body }: Route, types: Registry): RequestBinder {
  const variables = template.variables.map((variable) => ({ variable, path: variablePath(input, variable) }));
  const bodyField = body === '' || body === '*' ? undefined : bodyFieldOf(input, body);
  const bound = new Set(variables.map(({ path }) => path.map(({ name }) => name).join('.')));
  if (bodyField) bound.add(bodyField.name);

  return ({ segments, query, body: text }) => {
    const message = create(input);
    if (text !== '') {
      if (bodyField) {
        parseJson(text); // Alone it must be JSON, or it could close the object and add fields of its own.
        mergeJson(message, input, `{${JSON.stringify(bodyField.jsonName)}:${text}}`, types);
      } else if (body === '*') {
        mergeJson(message, input, text, types);
      } else {
        throw new RpcError(Code.INVALID_ARGUMENT, 'this route takes no body');
      }
    }
    if (variables.length > 0 || query !== '') {
      const tree: Tree = Object.create(null) as Tree;
      for (const { variable, path } of variables) {
        const problem = place(tree, path, captureText(variable, segments));
        if (problem !== undefined) throw badRequest([{ field: variable.fieldPath, description: problem }]);
      }
      if (query !== '') bindQuery(tree, query);
      mergeJson(message, input, tree, types);
    }
    return toBinary(input, message);
  };

  function bindQuery(tree: Tree, query: string): void {
    const violations: FieldViolation[] = [];
    for (const pair of query.split('&')) {
      if (pair === '') continue;
      const equals = pair.indexOf('=');
      const name = decodeQuery(equals === -1 ? pair : pair.slice(0, equals));
      const value = equals === -1 ? '' : decodeQuery(pair.slice(equals + 1));
      const problem = bindParameter(tree, name, value);
      if (problem !== undefined) violations.push({ field: name, description: problem });
      if (violations.length >= maxViolations) break;
    }
    if (violations.length > 0) throw badRequest(violations);
  }

  function bindParameter(tree: Tree, name: string, value: string): string | undefined {
    if (body === '*') return 'must be in the body: this route takes no query parameters';
    const path = fieldPath(input, name);
    if (path === undefined) return 'is not a field';
    const field = path.at(-1) as DescField;
    if (field.fieldKind === 'map' || (field.message && !isQueryValue(field.message))) {
      return 'cannot be given as a query parameter';
    }
    let prefix = '';
    for (const { name: part } of path) {
      prefix = prefix === '' ? part : `${prefix}.${part}`;
      if (bound.has(prefix)) return `is taken from the ${bodyField?.name === prefix ? 'body' : 'path'}`;
    }
    return place(tree, path, value);
  }
}

const maxViolations = 20;

/** Puts the text of a value into its place; what is wrong with it, if it does not go there. */
function place(tree: Tree, path: readonly DescField[], text: string): string | undefined {
  let node = tree;
  for (const field of path.slice(0, -1)) {
    node[field.jsonName] ??= Object.create(null) as Tree;
    node = node[field.jsonName] as Tree;
  }
  const field = path.at(-1) as DescField;
  // The JSON reader would take anything behind the `s`.
  if (field.message?.typeName === 'google.protobuf.Duration' && !/^-?\d+(\.\d{1,9})?s$/.test(text)) {
    return `must be seconds such as "1.5s", is ${JSON.stringify(text.slice(0, 50))}`;
  }
  const value = toJsonValue(field, text);
  const existing = node[field.jsonName];
  if (field.fieldKind === 'list') {
    if (existing === undefined) node[field.jsonName] = [value];
    else (existing as JsonValue[]).push(value);
    return undefined;
  }
  node[field.jsonName] = value;
  return existing === undefined ? undefined : 'must be given once';
}

/** What JSON would have for the text. What is none is left as it is, for the JSON reader to refuse. */
function toJsonValue(field: DescField, text: string): JsonValue {
  if (field.enum) return /^-?\d+$/.test(text) ? Number(text) : text;
  const scalar = field.scalar ?? wrappedScalar(field.message);
  if (scalar === ScalarType.BOOL) return text === 'true' ? true : text === 'false' ? false : text;
  // JSON writes `homeAddress`; in a URL people write `home_address`, as in the proto.
  if (field.message?.typeName === 'google.protobuf.FieldMask') {
    return text.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  }
  return text;
}

function wrappedScalar(desc: DescMessage): ScalarType | undefined {
  return isSingleValue(desc) ? desc.fields[0]?.scalar : undefined;
}

const shapelessTypes = new Set(['Any', 'Struct', 'Value', 'ListValue'].map((name) => `google.protobuf.${name}`));

/** Whether the JSON of a message is a text or a number. */
export function isQueryValue(desc: DescMessage): boolean {
  return isSingleValue(desc) && !shapelessTypes.has(desc.typeName);
}

/** Follows names such as `book.author_name` or `book.authorName`; only the last field may repeat. */
function fieldPath(root: DescMessage, name: string): DescField[] | undefined {
  const path: DescField[] = [];
  let desc: DescMessage | undefined = root;
  for (const part of name.split('.')) {
    const field: DescField | undefined = desc && fieldsOf(desc).get(part);
    if (field === undefined) return undefined;
    path.push(field);
    desc = field.fieldKind === 'message' && !isSingleValue(field.message) ? field.message : undefined;
  }
  return path;
}

function variablePath(input: DescMessage, { fieldPath: name }: Variable): DescField[] {
  const path = fieldPath(input, name);
  if (path === undefined) throw new Error(`path variable ${name} is not a field of ${input.typeName}`);
  const field = path.at(-1) as DescField;
  const simple = field.fieldKind === 'scalar' || field.fieldKind === 'enum';
  if (!simple && !(field.fieldKind === 'message' && isQueryValue(field.message))) {
    throw new Error(`path variable ${name} must be a single value`);
  }
  return path;
}

function bodyFieldOf(input: DescMessage, name: string): DescField {
  const field = fieldsOf(input).get(name);
  if (field === undefined) throw new Error(`body ${name} is not a field of ${input.typeName}`);
  return field;
}

function captureText(variable: Variable, segments: readonly string[]): string {
  try {
    return captureVariable(variable, segments);
  } catch {
    throw badRequest([{ field: variable.fieldPath, description: 'must be percent-encoded UTF-8' }]);
  }
}

function decodeQuery(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    throw badRequest([{ field: text, description: 'must be percent-encoded UTF-8' }]);
  }
}
