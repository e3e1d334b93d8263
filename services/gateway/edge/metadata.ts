import type { IncomingHttpHeaders } from 'node:http';
import type { Metadata, MetadataEntry } from '#runtime/call/call.ts';
import { badRequest, type FieldViolation } from '#runtime/call/details.ts';

/** Headers `grpc-metadata-<key>` become the metadata `<key>`, and the other way round. */
const prefix = 'grpc-metadata-';

/** Headers that are passed on under their own names. */
const passedOn = ['authorization', 'accept-language'] as const;

/** W3C trace context: passed on where this process makes no spans of its own, so that a trace does not end here. */
const traceContext = ['traceparent', 'tracestate', 'baggage'] as const;

const keySyntax = /^[0-9a-z_.-]+$/;
const valueSyntax = /^[\x20-\x7e]*$/;
const base64Syntax = /^(?:[A-Za-z0-9+/_-]{4})*(?:[A-Za-z0-9+/_-]{2}(?:==)?|[A-Za-z0-9+/_-]{3}=?)?$/;

/** What gRPC, HTTP/2 and HTTP/1.1's connections use for themselves, and keys that the gateway writes. */
const reserved = new Set([
  'connection',
  'content-length',
  'content-type',
  'date',
  'host',
  'http2-settings',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'user-agent',
  'x-request-id',
  ...passedOn,
  ...traceContext,
]);

/**
 * The metadata of a call from the headers of its request, but for those that `Connection` names: they are for this hop
 * only. Throws RpcError INVALID_ARGUMENT for a `grpc-metadata-` header that no client may set.
 */
export function requestMetadata(
  headers: IncomingHttpHeaders,
  options: { readonly requestId: string; readonly passTraceContext: boolean },
): Metadata {
  const metadata: MetadataEntry[] = [['x-request-id', options.requestId]];
  for (const name of passedOn) addHeader(name);
  if (options.passTraceContext) for (const name of traceContext) addHeader(name);
  let violations: FieldViolation[] | undefined;
  for (const name in headers) {
    if (!name.startsWith(prefix) || isForThisHop(name)) continue;
    const key = name.slice(prefix.length);
    // Headers of one name come joined. Text may have commas of its own, and gRPC joins it in the same way.
    const values = key.endsWith('-bin') ? String(headers[name]).split(/ *, */) : [String(headers[name])];
    for (const value of values) {
      const description = problemOf(key, value);
      if (description !== undefined) (violations ??= []).push({ field: name, description });
      else metadata.push([key, key.endsWith('-bin') ? Buffer.from(value, 'base64') : value]);
    }
  }
  if (violations !== undefined) throw badRequest(violations);
  return metadata;

  function addHeader(name: string): void {
    const value = headers[name];
    if (typeof value === 'string' && valueSyntax.test(value) && !isForThisHop(name)) metadata.push([name, value]);
  }

  /** https://www.rfc-editor.org/rfc/rfc9110#name-connection */
  function isForThisHop(name: string): boolean {
    const { connection } = headers;
    if (connection === undefined || connection === 'keep-alive' || connection === 'close') return false;
    return connection.toLowerCase().split(/ *, */).includes(name);
  }
}

function problemOf(key: string, value: string): string | undefined {
  if (!keySyntax.test(key)) return 'must be of 0-9 a-z _ . - behind the prefix';
  if (key.startsWith('grpc-') || reserved.has(key)) return 'is reserved';
  if (!valueSyntax.test(value)) return 'must be printable ASCII';
  if (key.endsWith('-bin') && !base64Syntax.test(value)) return 'must be base64';
  return undefined;
}

/**
 * The headers of a reply from the metadata of a call: `served-by` under its own name, the rest as `grpc-metadata-<key>`,
 * bytes as base64. What is reserved stays inside.
 */
export function replyHeaders(metadata: Metadata): Record<string, string | string[]> {
  const headers: Record<string, string | string[]> = {};
  for (const [key, value] of metadata) {
    const text = typeof value === 'string' ? value : Buffer.from(value).toString('base64');
    if (problemOf(key, text) !== undefined) continue;
    const name = key === 'served-by' ? key : `${prefix}${key}`;
    const existing = headers[name];
    headers[name] = existing === undefined ? text : [...[existing].flat(), text];
  }
  return headers;
}
