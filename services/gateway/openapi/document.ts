import { createHash } from 'node:crypto';
import type { DescService } from '@bufbuild/protobuf';
import type { Method } from '#runtime/call/call.ts';
import { Code } from '#runtime/call/status.ts';
import type { Descriptors } from '../descriptors.ts';
import type { StatusJson } from '../edge/errors.ts';
import { defaultPassedNames, type PassedNames } from '../edge/metadata.ts';
import type { Policy } from '../policies.ts';
import type { Route } from '../transcoding/routes.ts';
import { commentOf } from './comments.ts';
import {
  cacheHeaders,
  describeOperation,
  fieldsOnPath,
  type Operation,
  quotaHeaders,
  securitySchemeOf,
} from './operations.ts';
import { createPaths } from './paths.ts';
import { createSchemas, statusRef } from './schemas.ts';

/** An OpenAPI 3.1 document: https://spec.openapis.org/oas/v3.1.1.html */
export type OpenApiDocument = Readonly<Record<string, unknown>> & {
  readonly info: { readonly title: string; readonly version: string; readonly description: string };
  readonly paths: Readonly<Record<string, PathItem>>;
};

/** Operations by HTTP method in small letters; those that OpenAPI 3.1 has no place for are in extensions. */
export type PathItem = Record<string, Operation | Record<string, Operation>>;

const operationNames = new Set(['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace']);
/** https://spec.openapis.org/registry/extension/x-oai-additionalOperations */
const additionalOperations = 'x-oai-additionalOperations';
/** By method and template: to OpenAPI `/{name}` and `/{name=**}` are one path, and it has each method once. */
const overlappingOperations = 'x-overlapping-operations';

/** Describes the routes that are served, by the descriptors and their comments. Its version is a digest of what it says. */
export function createOpenApiDocument(
  { types }: Descriptors,
  routes: readonly Route[],
  policyOf?: (method: Method) => Policy,
  passed: PassedNames = defaultPassedNames,
): OpenApiDocument {
  const schemas = createSchemas();
  const openApiPath = createPaths();
  const services = new Set<DescService>();
  const bindings = new Map<string, number>();
  const paths: Record<string, PathItem> = {};
  const providers = new Set<string>();

  for (const route of routes) {
    const { input, method } = route.service;
    const [, serviceName = '', methodName] = method.path.split('/');
    const service = types.getService(serviceName);
    const desc = service?.methods.find(({ name }) => name === methodName);
    if (service === undefined || desc === undefined) throw new Error(`${method.path} is not in the descriptors`);
    services.add(service);
    const binding = (bindings.get(method.path) ?? 0) + 1;
    bindings.set(method.path, binding);
    const path = openApiPath(route.template, ({ fieldPath }) =>
      fieldsOnPath(input, fieldPath)
        .map(({ jsonName }) => jsonName)
        .join('.'),
    );
    const policy = policyOf?.(method);
    if (policy?.authProvider !== undefined) providers.add(policy.authProvider);
    const operation = describeOperation({ route, method: desc, binding, path, schemas, policy });
    const item = (paths[path.text] ??= {});
    const { httpMethod, template } = route;
    const name = httpMethod.toLowerCase();
    if (!operationNames.has(name)) {
      item[additionalOperations] = { ...item[additionalOperations], [httpMethod]: operation };
    } else if (item[name] === undefined) {
      item[name] = operation;
    } else {
      item[overlappingOperations] = { ...item[overlappingOperations], [`${httpMethod} ${template.text}`]: operation };
    }
  }

  const hasStreams = routes.some(({ service: { method } }) => method.requestStream || method.responseStream);
  const info = {
    title: [...services].map(({ typeName }) => typeName).join(', '),
    description: [aboutAll, aboutMetadata(passed), hasStreams && aboutStreams].filter(Boolean).join('\n\n'),
  };
  const passesTokens = passed.request.includes('authorization');
  const content = {
    servers: [{ url: '/' }],
    // Of what asks for no token.
    security: passesTokens ? [{}, { bearer: [] }] : [{}],
    tags: [...services].map((service) => {
      const comment = commentOf(service);
      return { name: service.typeName, description: comment || `The methods of \`${service.typeName}\`.` };
    }),
    paths,
    components: {
      schemas: schemas.components,
      ...componentsOf(paths),
      securitySchemes: { ...(passesTokens && passedToken), ...Object.fromEntries([...providers].map(checkedToken)) },
    },
  };
  const version = createHash('sha256')
    .update(JSON.stringify([info, content]))
    .digest('hex')
    .slice(0, 12);
  return { openapi: '3.1.1', info: { ...info, version }, ...content };
}

/** The shared components without those that no operation has. */
function componentsOf(paths: object): object {
  const used = (kind: string, all: object, text: string) =>
    Object.fromEntries(Object.entries(all).filter(([name]) => text.includes(`"#/components/${kind}/${name}"`)));
  const operations = JSON.stringify(paths);
  const responses = used('responses', sharedComponents.responses, operations);
  const headers = used('headers', sharedComponents.headers, operations + JSON.stringify(responses));
  const parameters = used('parameters', sharedComponents.parameters, operations);
  return { ...sharedComponents, parameters, responses, headers };
}

const aboutAll = `\
Each operation is a method of a gRPC service, called through a gateway that made this document from the service's descriptors.

**JSON** is that of [protobuf](https://protobuf.dev/programming-guides/json/). A field that has its default value is left out
of replies. The schemas have the form that replies are written in; requests may also have fields by their names in the
\`.proto\`, 64-bit integers as numbers up to 2^53, enums as numbers, bytes in the URL-safe alphabet of base64, and null for a
field that is not set. An enum value that the gateway does not know is written as its number.

**Errors** are a \`google.rpc.Status\`, with the HTTP status that belongs to its code.`;

function aboutMetadata({ request }: PassedNames): string {
  const names = request.map((name) => `\`${name}\``).join(', ');
  const about = '**Metadata** goes both ways in headers: `grpc-metadata-<key>`, base64 where the key ends in `-bin`.';
  return names === '' ? about : `${about} The service also gets the headers ${names}.`;
}

const aboutStreams = `\
**Streams** of replies are NDJSON, or Server-Sent Events where \`Accept\` names \`text/event-stream\`. Streams of requests are
NDJSON. Each is a WebSocket too, by a GET of its path that asks for one: of text frames, which come back as the lines of NDJSON
do. It is closed with 1000 for OK, 1012 where the client is to come back, and else 4000 + the code of the status.`;

const passedToken = {
  bearer: { type: 'http', scheme: 'bearer', description: 'Passed on to the service, which says what it takes.' },
};
const checkedToken = (provider: string) => [
  securitySchemeOf(provider),
  { type: 'http', scheme: 'bearer', bearerFormat: 'JWT', description: 'Checked before the call is made.' },
];

const errorContent = (example: StatusJson) => ({ 'application/json': { schema: statusRef, example } });
const badRequestExample: StatusJson = {
  code: Code.INVALID_ARGUMENT,
  message: 'page_size must be int32, is "ten"',
  details: [
    {
      '@type': 'type.googleapis.com/google.rpc.BadRequest',
      fieldViolations: [{ field: 'page_size', description: 'must be int32, is "ten"' }],
    },
  ],
};
const headers = {
  'x-request-id': { $ref: '#/components/headers/RequestId' },
  'x-trace-id': { $ref: '#/components/headers/TraceId' },
};

const sharedComponents = {
  parameters: {
    IfNoneMatch: {
      name: 'If-None-Match',
      in: 'header',
      description: 'The ETag of a reply that the client has: if nothing has changed, the answer is 304 without a body.',
      schema: { type: 'string', examples: ['"L1nZ8CkJ7yKkM0N9cVbq3w"'] },
    },
    GrpcTimeout: {
      name: 'Grpc-Timeout',
      in: 'header',
      description:
        'How long the call may take: 1 to 8 digits and a unit of H, M, S, m (ms), u (µs) or n (ns). What has no stream lasts 10 s at most.',
      schema: { type: 'string', pattern: '^[0-9]{1,8}[HMSmun]$', examples: ['500m'] },
    },
  },
  headers: {
    RequestId: {
      description: 'The `x-request-id` of the request, or one that the gateway made.',
      schema: { type: 'string' },
    },
    CacheStatus: {
      description:
        'Whether it came from the cache, and why not: `tandem; hit; ttl=4` or `tandem; fwd=stale` (RFC 9211).',
      schema: { type: 'string' },
    },
    CacheControl: { description: 'For how long it may be kept, and by whom.', schema: { type: 'string' } },
    Age: { description: 'How many seconds old it is, if it came from the cache.', schema: { type: 'integer' } },
    ETag: { description: 'What `If-None-Match` takes next time.', schema: { type: 'string' } },
    TraceId: {
      description: 'The trace that the request belongs to: that of its `traceparent`, or a new one.',
      schema: { type: 'string', pattern: '^[0-9a-f]{32}$' },
    },
    WwwAuthenticate: {
      description: 'How to ask again: https://www.rfc-editor.org/rfc/rfc6750#section-3.',
      schema: { type: 'string', examples: ['Bearer realm="api"'] },
    },
    ServedBy: { description: 'The replica that answered, where the service says so.', schema: { type: 'string' } },
    RateLimitPolicy: {
      description: 'How many requests (`q`) a caller may make in how many seconds (`w`).',
      schema: { type: 'string', examples: ['"helloworld.Greeter";q=100;w=60'] },
    },
    RateLimit: {
      description: 'How many of them are left (`r`), and in how many seconds all are there again (`t`).',
      schema: { type: 'string', examples: ['"helloworld.Greeter";r=99;t=60'] },
    },
    RetryAfter: {
      description: 'After how many seconds to try again, where that is known.',
      schema: { type: 'integer' },
    },
  },
  responses: {
    NotModified: {
      description: 'The reply is still the one that `If-None-Match` names.',
      headers: { ...headers, ...cacheHeaders, etag: { $ref: '#/components/headers/ETag' } },
    },
    NothingMore: {
      description: 'An `EventSource` that comes back after the end (`Last-Event-ID: end`) is told to stay away.',
      headers,
    },
    BadRequest: {
      description:
        'The request does not fit: a `google.rpc.BadRequest` in the details names the fields at fault. From the service, INVALID_ARGUMENT, FAILED_PRECONDITION or OUT_OF_RANGE.',
      headers,
      content: errorContent(badRequestExample),
    },
    Unauthenticated: {
      description: 'There is no token, or it is not good; or so says the service: UNAUTHENTICATED.',
      headers: { ...headers, 'www-authenticate': { $ref: '#/components/headers/WwwAuthenticate' } },
      content: errorContent({
        code: Code.UNAUTHENTICATED,
        message: 'the token has expired',
        details: [
          { '@type': 'type.googleapis.com/google.rpc.ErrorInfo', reason: 'TOKEN_EXPIRED', domain: 'gateway.tandem' },
        ],
      }),
    },
    ContentTooLarge: {
      description: 'The body is longer than the gateway takes.',
      headers,
      content: errorContent({ code: Code.RESOURCE_EXHAUSTED, message: 'the body is too large' }),
    },
    UnsupportedMediaType: {
      description: 'The body has another content type.',
      headers,
      content: errorContent({ code: Code.INVALID_ARGUMENT, message: 'content-type must be application/json' }),
    },
    UpgradeRequired: {
      description: 'The request does not ask for a WebSocket.',
      headers,
      content: errorContent({
        code: Code.UNIMPLEMENTED,
        message: 'this route takes a stream of requests, by WebSocket',
      }),
    },
    QuotaExceeded: {
      description: 'The caller has used up its quota; or so says the service: RESOURCE_EXHAUSTED.',
      headers: { ...headers, ...quotaHeaders, 'retry-after': { $ref: '#/components/headers/RetryAfter' } },
      content: errorContent({
        code: Code.RESOURCE_EXHAUSTED,
        message: 'the quota of 100 requests in 60 s is used up',
        details: [{ '@type': 'type.googleapis.com/google.rpc.RetryInfo', retryDelay: '12s' }],
      }),
    },
    Unavailable: {
      description:
        'Not now: no replica can take the call (UNAVAILABLE), the service is overloaded, or too many streams are open.',
      headers: { ...headers, 'retry-after': { $ref: '#/components/headers/RetryAfter' } },
      content: errorContent({ code: Code.UNAVAILABLE, message: 'the service is unavailable' }),
    },
    DeadlineExceeded: {
      description: 'The reply did not come in time: DEADLINE_EXCEEDED.',
      headers,
      content: errorContent({ code: Code.DEADLINE_EXCEEDED, message: 'deadline exceeded' }),
    },
    Error: {
      description:
        'Any other status of the service: 401 UNAUTHENTICATED, 403 PERMISSION_DENIED, 404 NOT_FOUND, 409 ALREADY_EXISTS or ABORTED, 429 RESOURCE_EXHAUSTED, 499 CANCELLED, 500 UNKNOWN, INTERNAL or DATA_LOSS, 501 UNIMPLEMENTED.',
      headers,
      content: errorContent({ code: Code.NOT_FOUND, message: 'no such book' }),
    },
  },
};
