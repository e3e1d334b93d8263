import { createHash } from 'node:crypto';
import type { Registry } from '@bufbuild/protobuf';
import type { Caller, CallStart, Metadata } from '#runtime/call/call.ts';
import { Code, RpcError } from '#runtime/call/status.ts';
import type { CachePolicy } from '../policy-schema.ts';
import type { Answer, Cache } from '../stages/cache.ts';
import type { SharedReply, WrittenReply } from '../stages/cache-store.ts';
import { createRequestBinder } from '../transcoding/bind.ts';
import { createDeterministicEncoding } from '../transcoding/deterministic.ts';
import { createRawReplyReader } from '../transcoding/http-body.ts';
import { createReplyWriter } from '../transcoding/json.ts';
import type { Route } from '../transcoding/routes.ts';
import { namesEtag, wishOf } from './cache-control.ts';
import { deadlineOf } from './deadline.ts';
import { httpStatusOf, statusOf } from './errors.ts';
import { type Exchange, type Identity, sendStatus } from './exchange.ts';
import type { MetadataRules } from './metadata.ts';

/**
 * Serves a request by the cache. False for one that is not for it, whose call is then made as any other: that of a client
 * that wants nothing stored, or that says who it is where the key does not. Throws RpcError for a request that cannot be read.
 */
export type CachedServe = (exchange: Exchange, start: CallStart) => boolean;

/**
 * The HTTP side of the cache for a route: which calls are equal, how their replies are sent, what the client is told.
 * https://www.rfc-editor.org/rfc/rfc9111, https://www.rfc-editor.org/rfc/rfc9211
 *
 * @throws Error for a route that does not fit its messages.
 */
export function createCachedServe(options: {
  readonly route: Route;
  readonly types: Registry;
  readonly cache: Cache;
  readonly policy: CachePolicy;
  readonly methodTimeoutMs: number | undefined;
  readonly next: Caller;
}): CachedServe {
  const { route, types, policy, methodTimeoutMs, next } = options;
  const { method, input } = route.service;
  const timeoutMs = deadlineOf({ grpcTimeout: undefined, methodTimeoutMs, stream: false, nowMs: 0 });
  const cache = options.cache.of(method, { policy, timeoutMs, next });
  const bind = createRequestBinder(route, types);
  const sorted = createDeterministicEncoding(input, types);
  const writeBody = createRawReplyReader(route) ?? createReplyWriter(route, types);
  const isGet = route.httpMethod === 'GET';
  // What differs may be the URL or a header: only without headers is it known.
  const missReason = isGet && policy.key.length === 0 ? 'uri-miss' : 'miss';
  const staleDirectives =
    (policy.staleWhileRevalidate > 0 ? `, stale-while-revalidate=${wholeSeconds(policy.staleWhileRevalidate)}` : '') +
    (policy.staleIfError > 0 ? `, stale-if-error=${wholeSeconds(policy.staleIfError)}` : '');

  function write({ message, metadata }: SharedReply, rules: MetadataRules): WrittenReply {
    const content = writeBody(message);
    const [contentType, body] =
      typeof content === 'string'
        ? (['application/json; charset=utf-8', content] as const)
        : ([content.contentType, Buffer.from(content.data)] as const);
    const etag = `"${createHash('sha256').update(`${contentType}\n`).update(body).digest('base64url').slice(0, 22)}"`;
    const vary = new Set(['authorization', ...policy.key.map((key) => rules.headerOf(key))]);
    return { contentType, body, etag, headers: { ...rules.ofReply(metadata), vary: [...vary].join(', ') } };
  }

  /** Whether others may have the reply: only if the key tells who asks, where somebody says so. */
  function isShared(identity: Identity | undefined, metadata: Metadata): boolean {
    if (identity === undefined && !metadata.some(([key]) => key === 'authorization')) return true;
    return (
      policy.key.includes('authorization') || (identity?.metadata.some(([key]) => policy.key.includes(key)) ?? false)
    );
  }

  return (exchange, start) => {
    const { headers, identity, observation, reply } = exchange;
    const wish = wishOf(headers);
    if (wish.noStore || !isShared(identity, start.metadata)) {
      cache.bypass();
      observation.cache = 'bypass';
      void reply.headers({ 'cache-control': 'no-store', 'cache-status': 'tandem; fwd=bypass' });
      return false;
    }
    const bytes = bind(exchange);
    const request = sorted === undefined ? bytes : sorted(bytes);
    const isPersonal = identity !== undefined || headers.authorization !== undefined;
    let answered = false;
    const leave = cache.answer(
      { start, request, wish, form: { name: route.responseBody, write: (shared) => write(shared, exchange.metadata) } },
      (answer) => {
        answered = true;
        send(exchange, answer, isPersonal);
      },
    );
    if (!answered) reply.raw.once('close', leave);
    return true;
  };

  function send(exchange: Exchange, answer: Answer, isPersonal: boolean): void {
    const { headers, observation, reply } = exchange;
    const { outcome, reply: shared, written, status, endpointId = '', forwarded } = answer;
    observation.cache = outcome;
    observation.status = status;
    observation.endpointId = endpointId;
    if (shared === undefined || written === undefined) {
      void reply.headers({ 'cache-control': 'no-store', 'cache-status': cacheStatusOf(answer, 0) });
      if (status === undefined) return sendStatus(exchange, statusOf(notStored), 504);
      void reply.headers(exchange.metadata.ofReply(status.trailers));
      return sendStatus(exchange, status, httpStatusOf(status.code));
    }
    const ageMs = performance.now() - shared.startedMs;
    void reply.headers(written.headers);
    void reply.header('cache-control', cacheControlOf(shared, isPersonal));
    void reply.header('cache-status', cacheStatusOf(answer, ageMs));
    if (forwarded === undefined || outcome === 'stale-if-error') void reply.header('age', String(wholeSeconds(ageMs)));
    if (isGet) {
      void reply.header('etag', written.etag);
      if (namesEtag(headers['if-none-match'], written.etag)) return void reply.code(304).send();
    }
    void reply.code(200).header('content-type', written.contentType).send(written.body);
  }

  /** With `Age` beside it, `max-age` is the whole time, not what is left of it. */
  function cacheControlOf({ freshMs }: SharedReply, isPersonal: boolean): string {
    if (freshMs === 0) return 'no-store';
    return `${isPersonal ? 'private' : 'public'}, max-age=${wholeSeconds(freshMs)}${staleDirectives}`;
  }

  function cacheStatusOf({ outcome, reply, status, forwarded, stored }: Answer, ageMs: number): string {
    const ttl = reply === undefined || reply.freshMs === 0 ? '' : `; ttl=${wholeSeconds(reply.freshMs - ageMs)}`;
    if (outcome === 'unmatched') return 'tandem; detail=only-if-cached';
    if (forwarded === undefined) return `tandem; hit${ttl}`;
    const fwd = `tandem; fwd=${forwarded === 'miss' ? missReason : forwarded}`;
    if (outcome === 'stale-if-error') {
      return `${fwd}; fwd-status=${httpStatusOf(status?.code ?? Code.UNKNOWN)}${ttl}; detail=stale-if-error`;
    }
    return `${fwd}${outcome === 'collapsed' ? '; collapsed' : ''}${stored ? '; stored' : ''}${ttl}`;
  }
}

const notStored = new RpcError(Code.UNAVAILABLE, 'no reply is stored that would do, and the request wants no other');

function wholeSeconds(durationMs: number): number {
  return Math.floor(durationMs / 1_000);
}
