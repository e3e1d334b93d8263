import type { IncomingHttpHeaders } from 'node:http';
import type { CorsConfig } from '../edge-schema.ts';

/** What pages of other origins may do: https://fetch.spec.whatwg.org/#http-cors-protocol */
export interface Cors {
  /** Whether pages of that origin may read replies and open WebSockets. */
  allows(origin: string): boolean;
  /** What every reply has, errors and streams too. */
  headersFor(origin: string | undefined): Readonly<Record<string, string>>;
  /** What the answer to a preflight has besides: `method` is one that is served at the path. */
  preflightHeaders(method: string, headers: IncomingHttpHeaders): Readonly<Record<string, string>>;
}

/** Headers that the gateway reads, and pages may not send unasked. */
const requestHeaders = [
  'accept-language',
  'authorization',
  'baggage',
  'cache-control',
  'content-type',
  'grpc-timeout',
  'if-none-match',
  'last-event-id',
  'traceparent',
  'tracestate',
  'x-request-id',
];
const requestMetadata = /^grpc-metadata-[0-9a-z_.-]+$/;

/** Headers that the gateway writes, and pages may not read unasked. */
const replyHeaders = [
  'age',
  'allow',
  'cache-status',
  'etag',
  'ratelimit',
  'ratelimit-policy',
  'retry-after',
  'www-authenticate',
  'x-request-id',
  'x-trace-id',
];

export function createCors(
  config: CorsConfig,
  /** Headers that are read and written beyond those that always are. */
  further: { readonly request: readonly string[]; readonly reply: readonly string[] },
): Cors {
  const { origins, credentials, maxAge } = config;
  const all = origins.includes('*');
  const sent = new Set([...requestHeaders, ...further.request, ...config.allowHeaders]);
  const read = [...new Set([...replyHeaders, ...further.reply, ...config.exposeHeaders])];
  const headersOf = (origin: string) => ({
    'access-control-allow-origin': origin,
    // With credentials `*` would be the name of a header.
    'access-control-expose-headers': credentials ? read.join(', ') : '*',
    ...(credentials && { 'access-control-allow-credentials': 'true' }),
    ...(!all && { vary: 'origin' }),
  });
  const allowed = new Map(origins.map((origin) => [origin, headersOf(origin)]));
  const others = all ? headersOf('*') : { vary: 'origin' };

  return {
    allows: (origin) => all || allowed.has(origin),
    headersFor: (origin) => (origin === undefined ? undefined : allowed.get(origin)) ?? others,
    preflightHeaders(method, headers) {
      const asked = headers['access-control-request-headers']?.toLowerCase().split(/ *, */) ?? [];
      const granted = asked.filter((name) => sent.has(name) || requestMetadata.test(name));
      return {
        'access-control-allow-methods': method,
        ...(granted.length > 0 && { 'access-control-allow-headers': granted.join(', ') }),
        'access-control-max-age': String(Math.floor(maxAge / 1_000)),
      };
    },
  };
}

/** The method that a page asks for before it sends it; undefined for a request that is no preflight. */
export function preflightMethod(httpMethod: string, headers: IncomingHttpHeaders): string | undefined {
  if (httpMethod !== 'OPTIONS' || headers.origin === undefined) return undefined;
  return headers['access-control-request-method'];
}
