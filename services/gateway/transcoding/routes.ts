import { ConfigError } from '#runtime/process/config.ts';
import { http } from '#runtime/process/node-http.ts';
import type { HttpRule, ServiceMethod } from '../descriptors.ts';
import { type PathTemplate, parsePathTemplate, type Segment } from './path-template.ts';

/** What requests a route takes. */
export interface HttpRoute {
  /** `*` for any. */
  readonly httpMethod: string;
  readonly template: PathTemplate;
}

/** One way of HTTP to a method: an `HttpRule` without the additional ones. */
export interface Route extends HttpRoute {
  readonly service: ServiceMethod;
  /** The field that the body holds, `*` for all that the path does not, empty for no body. */
  readonly body: string;
  /** The field of the response that is the whole body of the reply; empty for all of it. */
  readonly responseBody: string;
}

/** Whether a route leads to a method; others are pages. */
export function isApiRoute(route: HttpRoute & Partial<Route>): route is Route {
  return route.service !== undefined;
}

/**
 * The routes of a method by its annotation; `POST /package.Service/Method` with the whole message as its body for a
 * method that has none. Throws an `Error` for a rule that is none.
 */
export function routesOf(service: ServiceMethod): Route[] {
  const { rule } = service;
  if (rule === undefined) return [toRoute(service, { post: service.method.path, body: '*' })];
  const additional = rule.additionalBindings ?? [];
  if (additional.some((other) => other.additionalBindings !== undefined)) {
    throw new Error('additional_bindings must not have additional_bindings');
  }
  return [rule, ...additional].map((one) => toRoute(service, one));
}

const patternNames = ['get', 'put', 'post', 'delete', 'patch'] as const;

function toRoute(service: ServiceMethod, rule: HttpRule): Route {
  const name = patternNames.find((pattern) => rule[pattern] !== undefined);
  const [httpMethod, path] = name ? [name.toUpperCase(), rule[name]] : [rule.custom?.kind, rule.custom?.path];
  if (!httpMethod || !path) throw new Error('google.api.http must have a method and a path');
  if (httpMethod !== '*' && (!http.METHODS.includes(httpMethod) || httpMethod === 'CONNECT')) {
    throw new Error(
      `${httpMethod} ${path} has a method that this server cannot read: one of ${http.METHODS.join(', ')}`,
    );
  }
  const { body = '', responseBody = '' } = rule;
  if (body !== '' && httpMethod === 'GET') throw new Error(`GET ${path} must not have a body`);
  return { service, httpMethod, template: parsePathTemplate(path), body, responseBody };
}

/** What serves a request, with its path's segments for `captureVariable`; or the methods that the path would allow. */
export type Match<T> =
  | { readonly served: T; readonly segments: readonly string[] }
  | { readonly served: undefined; readonly allow: readonly string[] };

export interface RouteTable<T> {
  /** `path` as it was sent, without the query. Throws `URIError` for a bad percent-encoding. */
  match(httpMethod: string, path: string): Match<T>;
}

/** A trie over the segments of the templates. What is the same in two templates is one node. */
interface Node<T> {
  readonly literals: Map<string, Node<T>>;
  star: Node<T> | undefined;
  /** The templates that end here, and those whose `**` begins here: by verb, then by HTTP method. */
  readonly ends: Map<string, Map<string, T>>;
  readonly rests: Map<string, Map<string, T>>;
}

/**
 * Finds what serves a request. Literals win over `*`, and that over `**`; a path that ends in `:word` is tried with the
 * verb first; a route that does not take the HTTP method gives way to the next. `*` takes one segment that is not empty.
 * GET answers HEAD too, where it is no stream. The time is bounded by the number of segments of all templates.
 *
 * @throws ConfigError that lists the routes that no request could tell apart.
 */
export function createRouteTable<T extends { readonly route: Route }>(all: Iterable<T>): RouteTable<T> {
  const root = createNode<T>();
  const problems: string[] = [];
  for (const served of all) {
    const { route } = served;
    const methods = methodsAt(root, route.template);
    const other = methods.get(route.httpMethod);
    if (other === undefined) methods.set(route.httpMethod, served);
    else problems.push(`${describeRoute(route)} conflicts with ${describeRoute(other.route)}`);
  }
  if (problems.length > 0) throw new ConfigError(problems);

  return {
    match(httpMethod, path) {
      const whole = path.startsWith('/') ? path.slice(1).split('/') : [];
      const last = whole.at(-1) ?? '';
      const colon = last.lastIndexOf(':');
      const verb = last.slice(colon + 1);
      const beforeVerb = colon === -1 ? undefined : [...whole.slice(0, -1), last.slice(0, colon)];
      if (beforeVerb !== undefined) {
        const served = find(root, { httpMethod, segments: beforeVerb, verb }, 0);
        if (served !== undefined) return { served, segments: beforeVerb };
      }
      const served = find(root, { httpMethod, segments: whole, verb: '' }, 0);
      if (served !== undefined) return { served, segments: whole };
      // Who asks by a wrong method is told the right ones.
      const allow = new Set<string>();
      if (beforeVerb !== undefined) find(root, { httpMethod, segments: beforeVerb, verb, allow }, 0);
      find(root, { httpMethod, segments: whole, verb: '', allow }, 0);
      return { served, allow: [...allow].sort() };
    },
  };
}

interface Search {
  readonly httpMethod: string;
  readonly segments: readonly string[];
  readonly verb: string;
  /** Takes the methods of the routes that have this path and another method. */
  readonly allow?: Set<string>;
}

function find<T extends { readonly route: Route }>(node: Node<T>, search: Search, index: number): T | undefined {
  const { segments, verb } = search;
  const segment = segments[index];
  let found: T | undefined;
  if (segment === undefined) {
    found = take(node.ends.get(verb), search);
  } else {
    const literal = node.literals.get(segment.includes('%') ? decodeURIComponent(segment) : segment);
    if (literal !== undefined) found = find(literal, search, index + 1);
    if (found === undefined && node.star !== undefined && segment !== '') found = find(node.star, search, index + 1);
  }
  return found ?? take(node.rests.get(verb), search);
}

function take<T extends { readonly route: Route }>(
  methods: Map<string, T> | undefined,
  { httpMethod, allow }: Search,
): T | undefined {
  if (methods === undefined) return undefined;
  const found = methods.get(httpMethod) ?? methods.get('*') ?? (httpMethod === 'HEAD' ? headOf(methods) : undefined);
  if (found === undefined && allow !== undefined) for (const method of methods.keys()) allow.add(method);
  return found;
}

function headOf<T extends { readonly route: Route }>(methods: Map<string, T>): T | undefined {
  const get = methods.get('GET');
  return get?.route.service.method.responseStream ? undefined : get;
}

function createNode<T>(): Node<T> {
  return { literals: new Map(), star: undefined, ends: new Map(), rests: new Map() };
}

/** What serves the templates of one shape, by HTTP method. */
function methodsAt<T>(root: Node<T>, { segments, verb }: PathTemplate): Map<string, T> {
  let node = root;
  const open = segments.at(-1) === '**';
  for (const segment of open ? segments.slice(0, -1) : segments) node = childOf(node, segment);
  const leaves = open ? node.rests : node.ends;
  const methods = leaves.get(verb) ?? new Map<string, T>();
  leaves.set(verb, methods);
  return methods;
}

function childOf<T>(node: Node<T>, segment: Segment): Node<T> {
  if (typeof segment === 'string') {
    node.star ??= createNode();
    return node.star;
  }
  const child = node.literals.get(segment.literal) ?? createNode<T>();
  node.literals.set(segment.literal, child);
  return child;
}

/** A route in the words of a problem. */
export function describeRoute({ httpMethod, template, service }: Route): string {
  return `${httpMethod} ${template.text} of ${service.method.path.slice(1)}`;
}
