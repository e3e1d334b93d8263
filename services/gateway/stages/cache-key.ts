import type { Metadata, Method } from '#runtime/call/call.ts';

/** What tells the calls of a method apart: all that its replies may depend on. */
export interface CacheKeys {
  keyOf(request: Uint8Array, metadata: Metadata): string;
  /**
   * What of the metadata goes with a call whose reply is shared: the named keys, and what only says where it comes from.
   * Without the rest no client can choose the reply that others get.
   */
  sharedPart(metadata: Metadata): Metadata;
}

const alwaysShared = ['x-request-id', 'traceparent', 'tracestate'];

/** Keys of the bytes of a request and of the metadata that `names` names. Different calls have different keys. */
export function createCacheKeys(method: Method, names: readonly string[]): CacheKeys {
  const prefix = `${method.path}\n`;
  const shared = new Set([...alwaysShared, ...names]);
  return {
    keyOf(request, metadata) {
      let key = prefix;
      for (const name of names) {
        for (const [other, value] of metadata) {
          if (other !== name) continue;
          const text = typeof value === 'string' ? value : latin1(value);
          key += `${text.length}:${text}`;
        }
        key += ';';
      }
      return key + latin1(request);
    },
    sharedPart: (metadata) => metadata.filter(([name]) => shared.has(name)),
  };
}

/** A character for each byte. */
function latin1({ buffer, byteOffset, byteLength }: Uint8Array): string {
  return Buffer.from(buffer, byteOffset, byteLength).toString('latin1');
}
