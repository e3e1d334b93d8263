import type { IncomingHttpHeaders } from 'node:http';

/** Directives by their names in small letters; empty for one without a value. */
export type CacheControl = ReadonlyMap<string, string>;

const directiveSyntax = /([^\s,;="]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,;"]*)))?/g;

/** Reads a Cache-Control header; of a directive that is there twice, the first. https://www.rfc-editor.org/rfc/rfc9111#name-cache-control */
export function parseCacheControl(header: string): CacheControl {
  const directives = new Map<string, string>();
  for (const [, name = '', quoted, token = ''] of header.matchAll(directiveSyntax)) {
    const key = name.toLowerCase();
    if (!directives.has(key)) directives.set(key, quoted ?? token);
  }
  return directives;
}

/** The seconds of a directive, as milliseconds: undefined where it is not there, `otherwise` where it has no number. */
export function millisecondsOf(directives: CacheControl, name: string, otherwise: number): number | undefined {
  const text = directives.get(name);
  if (text === undefined) return undefined;
  return /^\d+$/.test(text) ? Number(text) * 1_000 : otherwise;
}

/** What a client takes: https://www.rfc-editor.org/rfc/rfc9111#name-request-directives */
export interface Wish {
  /** Neither from the store nor for it. */
  readonly noStore: boolean;
  readonly onlyIfCached: boolean;
  /** Of no age at all if it is negative. */
  readonly maxAgeMs: number;
  readonly minFreshMs: number;
  readonly maxStaleMs: number;
}

const anything: Wish = {
  noStore: false,
  onlyIfCached: false,
  maxAgeMs: Infinity,
  minFreshMs: 0,
  maxStaleMs: 0,
};

/** What the client of a request takes. A number that cannot be read is the strictest there is. */
export function wishOf(headers: IncomingHttpHeaders): Wish {
  const header = headers['cache-control'];
  if (header === undefined) {
    const { pragma } = headers; // https://www.rfc-editor.org/rfc/rfc9111#name-pragma
    return pragma !== undefined && parseCacheControl(pragma).has('no-cache') ? { ...anything, maxAgeMs: -1 } : anything;
  }
  const directives = parseCacheControl(header);
  return {
    noStore: directives.has('no-store'),
    onlyIfCached: directives.has('only-if-cached'),
    maxAgeMs: directives.has('no-cache') ? -1 : (millisecondsOf(directives, 'max-age', 0) ?? Infinity),
    minFreshMs: millisecondsOf(directives, 'min-fresh', Infinity) ?? 0,
    maxStaleMs: directives.get('max-stale') === '' ? Infinity : (millisecondsOf(directives, 'max-stale', 0) ?? 0),
  };
}

const etagSyntax = /"[\x21\x23-\x7e\x80-\xff]*"/g;

/** Whether an If-None-Match header names an ETag, weak or not: https://www.rfc-editor.org/rfc/rfc9110#name-if-none-match */
export function namesEtag(ifNoneMatch: string | undefined, etag: string): boolean {
  if (ifNoneMatch === undefined) return false;
  return ifNoneMatch.trim() === '*' || (ifNoneMatch.match(etagSyntax)?.includes(etag) ?? false);
}
