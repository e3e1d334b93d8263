import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createConfig, lintFromString } from '@redocly/openapi-core';
import type { Method } from '#runtime/call/call.ts';
import { type Descriptors, readDescriptors } from '../descriptors.ts';
import type { Policy } from '../policies.ts';
import { compileProto, libraryProto, nastyProtos } from '../testdata/build.ts';
import { routesOf } from '../transcoding/routes.ts';
import { createOpenApiDocument } from './document.ts';

const greeter = readDescriptors(fileURLToPath(new URL('../../../proto/descriptors.binpb', import.meta.url)));
const library = compileProto(libraryProto);
const nasty = compileProto(nastyProtos);

interface Parameter {
  readonly name: string;
  readonly in: string;
  readonly description?: string;
  readonly schema: object;
}

/** What the tests look at of an operation. */
interface Operation {
  readonly operationId: string;
  readonly summary: string;
  readonly description?: string;
  readonly parameters: readonly Parameter[];
  readonly requestBody?: { readonly content: Record<string, { readonly schema: object }> };
  readonly responses: Record<string, { readonly content?: Record<string, { readonly schema: object }> }>;
  readonly 'x-websocket'?: { readonly description: string; readonly send?: object };
}

function documentOf(descriptors: Descriptors) {
  return createOpenApiDocument(descriptors, descriptors.methods.flatMap(routesOf));
}

function operationOf(descriptors: Descriptors, httpMethod: string, path: string): Operation {
  const item = documentOf(descriptors).paths[path] ?? assert.fail(`no path ${path}`);
  const operation = item[httpMethod] ?? (item['x-oai-additionalOperations'] as Record<string, object>)[httpMethod];
  return operation as unknown as Operation;
}

function queryOf({ parameters }: Operation): string[] {
  return parameters.filter((parameter) => parameter.in === 'query').map(({ name }) => name);
}

describe('OpenAPI document', () => {
  it('says what a cache policy adds, and keeps the recommended rules with it', async () => {
    const cache = { ttl: 5_000, staleWhileRevalidate: 0, staleIfError: 0, key: [] };
    const policy: Policy = { cache, quota: undefined, authProvider: undefined, priority: 'high' };
    const policyOf = ({ idempotency, responseStream }: Method) =>
      idempotency === 'NO_SIDE_EFFECTS' && !responseStream ? policy : { ...policy, cache: undefined };
    const document = createOpenApiDocument(library, library.methods.flatMap(routesOf), policyOf);
    const text = JSON.stringify(document.paths);
    const responses = [
      ...text.matchAll(/"(304|etag|cache-status|\$ref)":("#\/components\/parameters\/IfNoneMatch")?/g),
    ];
    const count = (name: string) => responses.filter(([, found, ref]) => (ref ? 'parameter' : found) === name).length;
    // GetBook has two GETs, and a LINK, which is not conditional.
    assert.deepEqual(['304', 'etag', 'parameter', 'cache-status'].map(count), [2, 2, 2, 3]);
    assert.ok(!JSON.stringify(documentOf(library)).includes('IfNoneMatch'));
    const config = await createConfig({ extends: ['recommended'], rules: { 'info-license': 'off' } });
    const problems = await lintFromString({ source: JSON.stringify(document), absoluteRef: '/openapi.json', config });
    assert.deepEqual(problems, []);
  });

  it('says where a quota holds, and keeps the recommended rules with it', async () => {
    const quota = { requests: 1, per: 1_000, key: 'ip' };
    const policy: Policy = { cache: undefined, quota: undefined, authProvider: undefined, priority: 'high' };
    const policyOf = ({ path }: Method) => ({ ...policy, quota: path.endsWith('/SayHello') ? quota : undefined });
    const document = createOpenApiDocument(greeter, greeter.methods.flatMap(routesOf), policyOf);
    const responsesOf = (path: string) =>
      (document.paths as Record<string, Record<string, { responses: Record<string, { headers?: object }> }>>)[path]?.[
        'get'
      ]?.responses ?? {};
    const [withQuota, without] = [responsesOf('/v1/hello/{name}'), responsesOf('/v1/hello/{name}/stream')];
    assert.deepEqual(['429' in withQuota, 'ratelimit' in (withQuota['200']?.headers ?? {})], [true, true]);
    assert.deepEqual(['429' in without, 'ratelimit' in (without['200']?.headers ?? {})], [false, false]);
    const config = await createConfig({ extends: ['recommended'], rules: { 'info-license': 'off' } });
    const problems = await lintFromString({ source: JSON.stringify(document), absoluteRef: '/openapi.json', config });
    assert.deepEqual(problems, []);
  });

  it('says where a token is asked for, and keeps the recommended rules with it', async () => {
    const policy: Policy = { cache: undefined, quota: undefined, authProvider: undefined, priority: 'high' };
    const policyOf = ({ path }: Method) => ({ ...policy, authProvider: path.endsWith('/SayHello') ? 'us' : undefined });
    const routes = greeter.methods.flatMap(routesOf);
    const document = createOpenApiDocument(greeter, routes, policyOf, { request: ['x-api-key'], reply: [] });
    const { components, security, paths, info } = document as unknown as {
      components: { securitySchemes: Record<string, unknown> };
      security: unknown;
      info: { description: string };
      paths: Record<string, Record<string, { security?: unknown; responses: object }>>;
    };
    const [asking, anonymous] = [paths['/v1/hello/{name}']?.['get'], paths['/v1/hello/{name}/stream']?.['get']];
    assert.deepEqual([asking?.security, '401' in (asking?.responses ?? {})], [[{ 'jwt-us': [] }], true]);
    assert.deepEqual([anonymous?.security, '401' in (anonymous?.responses ?? {})], [undefined, false]);
    assert.deepEqual([security, Object.keys(components.securitySchemes)], [[{}], ['jwt-us']]);
    assert.match(info.description, /The service also gets the headers `x-api-key`\./);
    const config = await createConfig({ extends: ['recommended'], rules: { 'info-license': 'off' } });
    const problems = await lintFromString({ source: JSON.stringify(document), absoluteRef: '/openapi.json', config });
    assert.deepEqual(problems, []);
  });

  const all: [name: string, descriptors: Descriptors][] = [
    ['greeter', greeter],
    ['library', library],
    ['nasty', nasty],
  ];
  for (const [name, descriptors] of all) {
    it(`of the ${name} keeps the recommended rules of redocly`, async () => {
      // The license of a service is not in its descriptors.
      const config = await createConfig({ extends: ['recommended'], rules: { 'info-license': 'off' } });
      const source = JSON.stringify(documentOf(descriptors));
      const problems = await lintFromString({ source, absoluteRef: '/openapi.json', config });
      assert.deepEqual(
        problems.map(({ ruleId, message, location }) => [ruleId, message, location[0]?.pointer]),
        [],
      );
    });

    it(`of the ${name} has each route once`, () => {
      const routes = descriptors.methods.flatMap(routesOf);
      const operations = Object.values(documentOf(descriptors).paths).flatMap(
        ({ 'x-oai-additionalOperations': additional = {}, ...others }) => [
          ...Object.values(others),
          ...Object.values(additional),
        ],
      ) as unknown as Operation[];
      const ids = operations.map(({ operationId }) => operationId.replace(/_\d+$/, '')).sort();
      assert.deepEqual(ids, routes.map(({ service }) => service.method.path.slice(1).replace('/', '.')).sort());
    });
  }

  it('has a rule that can be broken', async () => {
    const config = await createConfig({ extends: ['recommended'] });
    const source = JSON.stringify({ ...documentOf(greeter), info: { title: 'x' } });
    const problems = await lintFromString({ source, absoluteRef: '/openapi.json', config });
    assert.ok(problems.some(({ ruleId }) => ruleId === 'struct'));
  });

  it('is named after its services, and its version changes with what it says', () => {
    const { info } = documentOf(greeter);
    assert.equal(info.title, 'helloworld.Greeter');
    assert.match(info.version, /^[0-9a-f]{12}$/);
    assert.equal(documentOf(greeter).info.version, info.version);
    assert.notEqual(
      createOpenApiDocument(greeter, greeter.methods.slice(0, 1).flatMap(routesOf)).info.version,
      info.version,
    );
  });

  it('has the comments of the .proto', () => {
    const get = operationOf(greeter, 'get', '/v1/hello/{name}');
    assert.deepEqual([get.operationId, get.summary], ['helloworld.Greeter.SayHello', 'Greets one name.']);
    assert.equal(operationOf(greeter, 'post', '/v1/hello').operationId, 'helloworld.Greeter.SayHello_2');
    const [name] = get.parameters;
    assert.deepEqual(name, {
      name: 'name',
      in: 'path',
      required: true,
      description: 'Whom to greet: any text of at most 1,024 bytes in UTF-8.',
      schema: { type: 'string', minLength: 1 },
    });
  });

  it('takes variables of several segments apart', () => {
    const { parameters } = operationOf(library, 'patch', '/v1/shelves/{shelvesId}/books/{booksId}');
    assert.deepEqual(
      parameters.slice(0, 2).map(({ name, description }) => [name, description]),
      [
        ['shelvesId', 'In the path `book.name` is `shelves/{shelvesId}/books/{booksId}`.'],
        ['booksId', 'In the path `book.name` is `shelves/{shelvesId}/books/{booksId}`.'],
      ],
    );
  });

  it('has the query parameters that path and body leave', () => {
    const patch = operationOf(library, 'patch', '/v1/shelves/{shelvesId}/books/{booksId}');
    assert.deepEqual(queryOf(patch), ['updateMask', 'allowMissing']);
    const list = operationOf(library, 'get', '/v1/shelves/{shelvesId}/books');
    const query = queryOf(list);
    assert.ok(query.includes('filter.stringValue') && query.includes('filter.durations'));
    for (const name of ['parent', 'filter', 'filter.any', 'filter.counts', 'filter.children']) {
      assert.ok(!query.includes(name), name);
    }
    assert.match(list.description ?? '', /Further query parameters are the fields of `filter\.child\.…`\.$/);
    assert.deepEqual(queryOf(operationOf(library, 'post', '/v1/shelves/{shelvesId}/books/{booksId}:archive')), []);
    assert.ok(queryOf(operationOf(nasty, 'get', '/nasty/words')).includes('dotted'));
  });

  it('has bodies and replies that are a field of their message', () => {
    const tag = operationOf(library, 'put', '/v1/tags/{name}');
    assert.deepEqual(tag.requestBody?.content['application/json']?.schema, {
      type: 'array',
      items: { type: 'string' },
    });
    const list = operationOf(library, 'get', '/v1/shelves/{shelvesId}/books');
    assert.deepEqual(list.responses['200']?.content?.['application/json']?.schema, {
      type: 'array',
      items: { $ref: '#/components/schemas/library.v1.Book' },
    });
    const schemaOf = (path: string) =>
      operationOf(nasty, 'get', path).responses['200']?.content?.['application/json']?.schema;
    assert.deepEqual(schemaOf('/nasty/reply/child'), {
      anyOf: [{ $ref: '#/components/schemas/nasty.v1.All' }, { type: 'null' }],
    });
    assert.deepEqual(schemaOf('/nasty/reply/maybe'), { type: ['boolean', 'null'] });
    assert.deepEqual(schemaOf('/nasty/reply/flag'), { type: 'boolean' });
  });

  it('has bodies of any type where the message is an HttpBody', () => {
    const raw = operationOf(nasty, 'post', '/nasty/raw');
    assert.deepEqual(raw.requestBody?.content, { '*/*': {} });
    assert.deepEqual(raw.responses['200']?.content, { '*/*': {} });
    assert.ok(!('415' in raw.responses));
    const download = operationOf(nasty, 'get', '/nasty/files/{name}');
    assert.deepEqual(Object.keys(download.responses['200']?.content ?? {}), ['*/*', 'text/event-stream']);
  });

  it('has the forms of each kind of stream', () => {
    const formsOf = ({ requestBody, responses }: Operation) => [
      Object.keys(requestBody?.content ?? {}),
      Object.keys(responses['200']?.content ?? {}),
    ];
    const json = ['application/json'];
    const ndjson = ['application/x-ndjson'];
    const replies = ['application/x-ndjson', 'text/event-stream'];
    assert.deepEqual(formsOf(operationOf(greeter, 'post', '/v1/hello')), [json, json]);
    assert.deepEqual(formsOf(operationOf(greeter, 'get', '/v1/hello/{name}/stream')), [[], replies]);
    assert.deepEqual(formsOf(operationOf(greeter, 'post', '/v1/hello:collect')), [ndjson, json]);
    assert.deepEqual(formsOf(operationOf(greeter, 'post', '/v1/hello:chat')), [ndjson, replies]);
  });

  it('tells what goes through a WebSocket', () => {
    const webSocketOf = (method: string, path: string) => operationOf(greeter, method, path)['x-websocket'];
    assert.equal(webSocketOf('post', '/v1/hello'), undefined);
    assert.equal(webSocketOf('get', '/v1/hello/{name}/stream')?.description, 'Send nothing.');
    const chat = webSocketOf('post', '/v1/hello:chat');
    assert.equal(chat?.description, 'Send a text frame for each message, then an empty one.');
    assert.deepEqual(chat.send, { $ref: '#/components/schemas/helloworld.HelloRequest' });
  });

  it('has nothing but the WebSocket where a GET takes a stream', () => {
    const chat = greeter.methods.find(({ method }) => method.path.endsWith('/SayHelloBidiStream'));
    assert.ok(chat);
    const methods = [{ ...chat, rule: { get: '/v1/chat' } }];
    const { responses, requestBody } = operationOf({ ...greeter, methods }, 'get', '/v1/chat');
    assert.deepEqual(Object.keys(responses), ['101', '400', '426', '503', 'default']);
    assert.equal(requestBody, undefined);
  });

  it('takes JSON in the query, and says what a PATCH without a mask means', () => {
    const parameters = operationOf(library, 'get', '/v1/shelves/{shelvesId}/books').parameters;
    const struct = parameters.find(({ name }) => name === 'filter.struct');
    assert.deepEqual(struct, {
      name: 'filter.struct',
      in: 'query',
      content: { 'application/json': { schema: { type: 'object', additionalProperties: true } } },
    });
    const patch = operationOf(library, 'patch', '/v1/shelves/{shelvesId}/books/{booksId}');
    const mask = patch.parameters.find(({ name }) => name === 'updateMask');
    assert.equal(mask?.description, 'Where it is left out, the fields that the body has are meant.');
  });

  it('has methods that HTTP does not know in the extension for them', () => {
    assert.equal(operationOf(library, 'LINK', '/v1/links/{name}').operationId, 'library.v1.Library.GetBook_3');
  });

  it('has what OpenAPI takes for the same path in an extension', () => {
    const [get] = library.methods.filter(({ method }) => method.path.endsWith('/GetBook'));
    assert.ok(get);
    const methods = ['/v1/{name}', '/v1/{name=**}'].map((path) => ({ ...get, rule: { get: path } }));
    const { paths } = documentOf({ ...library, methods });
    assert.deepEqual(Object.keys(paths), ['/v1/{name}']);
    assert.deepEqual(Object.keys(paths['/v1/{name}'] ?? {}), ['get', 'x-overlapping-operations']);
    assert.deepEqual(Object.keys(paths['/v1/{name}']?.['x-overlapping-operations'] ?? {}), ['GET /v1/{name=**}']);
  });

  it('requires the fields that proto2 and editions require', () => {
    const { schemas } = documentOf(nasty)['components'] as { schemas: Record<string, { required?: string[] }> };
    assert.deepEqual(schemas['nasty.proto2.Legacy']?.required, ['id']);
    assert.deepEqual(schemas['nasty.edition.Message']?.required, ['must']);
    assert.equal(schemas['nasty.v1.All']?.required, undefined);
  });
});
