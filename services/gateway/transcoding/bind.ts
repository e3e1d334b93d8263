import {
  create,
  type DescField,
  type DescMessage,
  type JsonValue,
  type Message,
  type Registry,
  ScalarType,
} from '@bufbuild/protobuf';
import { reflect } from '@bufbuild/protobuf/reflect';
import { badRequest, type FieldViolation } from '#runtime/call/details.ts';
import { Code, RpcError } from '#runtime/call/status.ts';
import { fieldsOf, isSingleValue, typeInWords } from './fields.ts';
import type { RawBody } from './http-body.ts';
import { encodeMessage, mergeJson } from './json.ts';
import { parseJson } from './json-text.ts';
import { captureVariable, type Variable } from './path-template.ts';
import type { Route } from './routes.ts';
import { pathsOf, updateMaskField } from './update-mask.ts';
import { maxViolations, mustBe } from './violations.ts';

/** The parts of an HTTP request that make a message. */
export interface RequestParts {
  /** Of the path, as `RouteTable.match` gives them. */
  readonly segments: readonly string[];
  /** What follows the `?`; empty for none. */
  readonly query: string;
  /** JSON, empty for none; or what goes into a `google.api.HttpBody` as it is, where `takesRawBody`. */
  readonly body: string | RawBody;
}

/** The request message, as bytes. Throws RpcError INVALID_ARGUMENT with a `google.rpc.BadRequest`. */
export type RequestBinder = (parts: RequestParts) => Uint8Array;

/** JSON without a prototype, so that no name of a field means anything else. */
interface Tree {
  [jsonName: string]: JsonValue;
}

/** A field mask that is written as in the proto, `address_line_1`, for which JSON has no word. */
interface Mask {
  readonly path: readonly DescField[];
  readonly paths: readonly string[];
}

/** What the path and the query say. */
interface Parameters {
  readonly tree: Tree;
  readonly masks: Mask[];
}

/**
 * Compiles how the requests of a route become messages. A field comes from one place only: the path, the body, or the
 * query, which takes what the other two leave. Everything is read as canonical proto3 JSON.
 *
 * @throws Error for a route that does not fit its message.
 */
export function createRequestBinder(route: Route, types: Registry): RequestBinder {
  const { template, body } = route;
  const { input } = route.service;
  const variables = template.variables.map((variable) => ({ variable, path: variablePath(input, variable) }));
  const bodyField = body === '' || body === '*' ? undefined : bodyFieldOf(input, body);
  const maskField = updateMaskField(route);
  const bound = new Set(variables.map(({ path }) => path.map(({ name }) => name).join('.')));
  if (bodyField) bound.add(bodyField.name);

  // What most routes are: their JSON would be this text.
  const areTexts = variables.every(({ path }) => path.length === 1 && isText(path[0] as DescField));

  return ({ segments, query, body: content }) => {
    const message = create(input);
    if (areTexts && query === '' && content === '') {
      for (const { variable, path } of variables) {
        const { localName } = path[0] as DescField;
        (message as unknown as Record<string, string>)[localName] = captureText(variable, segments);
      }
      return encodeMessage(message, input);
    }
    const json = content === '' ? undefined : takeBody(message, content);
    if (variables.length > 0 || query !== '') {
      const parameters: Parameters = { tree: Object.create(null) as Tree, masks: [] };
      for (const { variable, path } of variables) {
        const problem = place(parameters, path, captureText(variable, segments));
        if (problem !== undefined) throw badRequest([{ field: variable.fieldPath, description: problem }]);
      }
      if (query !== '') bindQuery(parameters, query, content !== '');
      mergeJson(message, input, parameters.tree, types);
      for (const { path, paths } of parameters.masks) setMask(input, message, path, paths);
    }
    if (maskField && json !== undefined && !hasPaths(message, maskField)) {
      const paths = pathsOf(bodyField?.message ?? input, json, (path) => bound.has(`${body}.${path}`));
      if (paths.length > 0) setMask(input, message, [maskField], paths);
    }
    return encodeMessage(message, input);
  };

  /** The JSON of the body, if it is any. */
  function takeBody(message: Message, content: string | RawBody): JsonValue | undefined {
    if (body === '') throw new RpcError(Code.INVALID_ARGUMENT, 'this route takes no body');
    if (typeof content !== 'string') {
      if (bodyField?.message) setMessage(input, message, bodyField, create(bodyField.message, { ...content }));
      else Object.assign(message, content);
      return undefined;
    }
    const json = parseJson(content);
    mergeJson(message, input, bodyField ? { [bodyField.jsonName]: json } : json, types);
    return json;
  }

  function bindQuery(parameters: Parameters, query: string, hasBody: boolean): void {
    const violations: FieldViolation[] = [];
    for (const pair of query.split('&')) {
      if (pair === '') continue;
      const equals = pair.indexOf('=');
      const name = decodeQuery(equals === -1 ? pair : pair.slice(0, equals));
      const value = equals === -1 ? '' : decodeQuery(pair.slice(equals + 1));
      const problem = bindParameter(parameters, name, value, hasBody);
      if (problem !== undefined) violations.push({ field: name, description: problem });
      if (violations.length >= maxViolations) break;
    }
    if (violations.length > 0) throw badRequest(violations);
  }

  function bindParameter(parameters: Parameters, name: string, value: string, hasBody: boolean): string | undefined {
    if (body === '*') return 'must be in the body: this route takes no query parameters';
    const path = fieldPath(input, name);
    if (path === undefined) return 'is not a field';
    const field = path.at(-1) as DescField;
    if (field.fieldKind === 'map' || (field.message && !isQueryValue(field.message) && !isStruct(field.message))) {
      return 'cannot be given as a query parameter';
    }
    let prefix = '';
    for (const { name: part } of path) {
      prefix = prefix === '' ? part : `${prefix}.${part}`;
      if (bound.has(prefix)) return `is taken from the ${bodyField?.name === prefix ? 'body' : 'path'}`;
    }
    if (hasBody && bodyField?.oneof && path[0]?.oneof === bodyField.oneof) {
      return `must not be given together with ${bodyField.name}, which is the body`;
    }
    return place(parameters, path, value);
  }
}

/** A text that is always there or empty: no list, and no choice of a oneof. */
function isText({ fieldKind, scalar, oneof }: DescField): boolean {
  return fieldKind === 'scalar' && scalar === ScalarType.STRING && oneof === undefined;
}

/** Puts the text of a value into its place; what is wrong with it, if it does not go there. */
function place({ tree, masks }: Parameters, path: readonly DescField[], text: string): string | undefined {
  let node = tree;
  for (const field of path.slice(0, -1)) {
    node[field.jsonName] ??= Object.create(null) as Tree;
    node = node[field.jsonName] as Tree;
  }
  const field = path.at(-1) as DescField;
  let value = toJsonValue(field, text);
  if (field.fieldKind === 'message' && isStruct(field.message)) {
    try {
      value = parseJson(text);
    } catch {
      return mustBe('JSON', text);
    }
  } else if (field.fieldKind === 'message' && field.message.typeName === 'google.protobuf.FieldMask') {
    const paths = text === '' ? [] : text.split(',').map(snakeCase);
    if (!paths.every((one) => /^[^\s.]+(?:\.[^\s.]+)*$/u.test(one))) return mustBe(typeInWords(field), text);
    masks.push({ path, paths });
    value = '';
  }
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
  return text;
}

/** A path of a field mask by proto names; with a `_` it is one already. */
function snakeCase(path: string): string {
  return path.includes('_') ? path : path.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function hasPaths(message: Message, maskField: DescField): boolean {
  const mask = (message as unknown as Record<string, { readonly paths: readonly string[] } | undefined>)[
    maskField.localName
  ];
  return mask !== undefined && mask.paths.length > 0;
}

function setMask(desc: DescMessage, message: Message, path: readonly DescField[], paths: readonly string[]): void {
  let parent = reflect(desc, message);
  for (const field of path.slice(0, -1)) parent = parent.get(field) as typeof parent;
  const field = path.at(-1);
  if (field?.fieldKind === 'message') {
    setMessage(parent.desc, parent.message, field, create(field.message, { paths: [...paths] }));
  }
}

function setMessage(desc: DescMessage, message: Message, field: DescField, value: Message): void {
  if (field.message) reflect(desc, message).set(field, reflect(field.message, value));
}

function wrappedScalar(desc: DescMessage): ScalarType | undefined {
  return isSingleValue(desc) ? desc.fields[0]?.scalar : undefined;
}

const shapelessTypes = new Set(['Any', 'Struct', 'Value', 'ListValue'].map((name) => `google.protobuf.${name}`));

/** Whether the JSON of a message may be anything; in a query it is written as JSON. */
export function isStruct(desc: DescMessage): boolean {
  return shapelessTypes.has(desc.typeName) && desc.typeName !== 'google.protobuf.Any';
}

/** Whether the JSON of a message is a text or a number. */
export function isQueryValue(desc: DescMessage): boolean {
  return isSingleValue(desc) && !shapelessTypes.has(desc.typeName);
}

/** Follows names such as `book.author_name` or `book.authorName`; only the last field may repeat. */
function fieldPath(root: DescMessage, name: string): DescField[] | undefined {
  const path: DescField[] = [];
  let desc: DescMessage | undefined = isSingleValue(root) ? undefined : root;
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
