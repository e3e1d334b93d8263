import type { IncomingHttpHeaders } from 'node:http';
import type { Metadata, MetadataEntry } from '#runtime/call/call.ts';
import { badRequest, type FieldViolation } from '#runtime/call/details.ts';

/** Headers `grpc-metadata-<key>` become the metadata `<key>`, and the other way round. */
const prefix = 'grpc-metadata-';

/** Headers and metadata that are passed on under their own names. */
export interface PassedNames {
  readonly request: readonly string[];
  readonly reply: readonly string[];
}

/** What is passed on where nothing else is said. */
export const defaultPassedNames: PassedNames = {
  request: ['authorization', 'accept-language'],
  reply: ['served-by'],
};

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
  ...traceContext,
]);

/** Headers that the gateway itself gives replies. */
const ownHeaders =
  /^(access-control-.*|age|allow|cache-(control|status)|content-(encoding|length|type)|etag|ratelimit.*|retry-after|sec-websocket-.*|traceresponse|vary|www-authenticate|x-trace-id)$/;

/** Why a key may not be that of a claim, or a header be passed under its own name; undefined if it may. */
export function problemOfKey(key: string): string | undefined {
  if (!keySyntax.test(key)) return 'must be a metadata key of 0-9 a-z _ . -';
  return isReserved(key) ? 'must not be a name that HTTP, gRPC or the gateway itself uses' : undefined;
}

/** Why a header of requests may not be passed on under its own name; undefined if it may. */
export function problemOfRequestHeader(name: string): string | undefined {
  return name.endsWith('-bin') ? 'must be text: bytes have the prefix grpc-metadata-' : problemOfKey(name);
}

/** Why metadata of replies may not be a header under its own name; undefined if it may. */
export function problemOfReplyHeader(name: string): string | undefined {
  return ownHeaders.test(name) ? 'must not be a header that the gateway itself writes' : problemOfKey(name);
}

/** How headers become metadata, and metadata headers. */
export interface MetadataRules {
  /**
   * The metadata of a call from the headers of its request, but for those that `Connection` names: they are for this hop
   * only. Throws RpcError INVALID_ARGUMENT for a `grpc-metadata-` header that no client may set.
   */
  ofRequest(headers: IncomingHttpHeaders, requestId: string): Metadata;
  /**
   * The headers of a reply from the metadata of a call: what may be under its own name, the rest as `grpc-metadata-<key>`,
   * bytes as base64. What is reserved stays inside.
   */
  ofReply(metadata: Metadata): Record<string, string | string[]>;
  /** The header of a request that the metadata of this key comes from. */
  headerOf(key: string): string;
}

export function createMetadataRules(options: {
  readonly passed: PassedNames;
  /** Keys that stand for what a token says, on every route: no client may set them. */
  readonly claimKeys: readonly string[];
  readonly passTraceContext: boolean;
}): MetadataRules {
  const { passed, claimKeys, passTraceContext } = options;
  const requestNames = [...passed.request, ...(passTraceContext ? traceContext : [])];
  const replyNames = new Set(passed.reply);
  /** What has its own header, or none. */
  const withoutPrefix = new Set([...passed.request, ...claimKeys, 'authorization']);

  function problemOf(key: string, value: string): string | undefined {
    if (!keySyntax.test(key)) return 'must be of 0-9 a-z _ . - behind the prefix';
    if (isReserved(key) || withoutPrefix.has(key)) return 'is reserved';
    if (!valueSyntax.test(value)) return 'must be printable ASCII';
    if (key.endsWith('-bin') && !base64Syntax.test(value)) return 'must be base64';
    return undefined;
  }

  return {
    ofRequest(headers, requestId) {
      const metadata: MetadataEntry[] = [['x-request-id', requestId]];
      for (const name of requestNames) {
        const value = headers[name];
        if (typeof value === 'string' && valueSyntax.test(value) && !isForThisHop(headers, name)) {
          metadata.push([name, value]);
        }
      }
      let violations: FieldViolation[] | undefined;
      for (const name in headers) {
        if (!name.startsWith(prefix) || isForThisHop(headers, name)) continue;
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
    },
    ofReply(metadata) {
      const headers: Record<string, string | string[]> = {};
      for (const [key, value] of metadata) {
        const text = typeof value === 'string' ? value : Buffer.from(value).toString('base64');
        const own = replyNames.has(key);
        if (own ? !valueSyntax.test(text) : problemOf(key, text) !== undefined) continue;
        const name = own ? key : `${prefix}${key}`;
        const existing = headers[name];
        headers[name] = existing === undefined ? text : [...[existing].flat(), text];
      }
      return headers;
    },
    headerOf(key) {
      if (claimKeys.includes(key)) return 'authorization';
      return requestNames.includes(key) ? key : `${prefix}${key}`;
    },
  };
}

function isReserved(key: string): boolean {
  return key.startsWith('grpc-') || reserved.has(key);
}

/** https://www.rfc-editor.org/rfc/rfc9110#name-connection */
function isForThisHop({ connection }: IncomingHttpHeaders, name: string): boolean {
  if (connection === undefined || connection === 'keep-alive' || connection === 'close') return false;
  return connection.toLowerCase().split(/ *, */).includes(name);
}
