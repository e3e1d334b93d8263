import { LRUCache } from 'lru-cache';
import { Counter, Gauge, type Registry } from 'prom-client';
import type { Metadata } from '#runtime/call/call.ts';

/** A reply that those who ask the same share. */
export interface SharedReply {
  readonly message: Uint8Array;
  /** Of its headers and its trailers. */
  readonly metadata: Metadata;
  /** When its call began, on the clock of `performance.now()`: its age counts from there. */
  readonly startedMs: number;
  /** How long it is fresh; 0 if it may not be kept. */
  readonly freshMs: number;
  /** As it was sent so far, by the name of the form. */
  readonly written: Map<string, WrittenReply>;
}

/** A reply as it is sent over HTTP. */
export interface WrittenReply {
  readonly contentType: string;
  readonly headers: Readonly<Record<string, string | string[]>>;
  readonly etag: string;
  readonly body: string | Buffer;
}

/** How a route sends the replies of its method. */
export interface ReplyForm {
  /** Routes of a method that write the same have the same name. */
  readonly name: string;
  /** Throws for a message that is none. */
  write(reply: SharedReply): WrittenReply;
}

export interface ReplyStore {
  get(key: string): SharedReply | undefined;
  /** Keeps a reply in place of older ones, unless it may not be kept or is too large. False if it is not kept. */
  keep(key: string, reply: SharedReply): boolean;
  /** A reply in a form, which is written once. Throws for a message that is none. */
  written(key: string, reply: SharedReply, form: ReplyForm): WrittenReply;
}

/** A reply that takes more than this part of the whole is not kept: it would drive out too many others. */
const maxShare = 1 / 16;
/** What an entry takes besides its bytes and its text. */
const overheadBytes = 1_000;

/** Replies of at most `maxBytes` together, with their keys and all their forms. The least recently used go first. */
export function createReplyStore(options: { readonly maxBytes: number; readonly registry: Registry }): ReplyStore {
  const { maxBytes, registry } = options;
  const registers = [registry];
  const evictions = new Counter({
    name: 'tandem_cache_evictions_total',
    help: 'Replies that the cache had no room for any more',
    registers,
  });
  const replies = new LRUCache<string, SharedReply>({
    maxSize: maxBytes,
    maxEntrySize: Math.floor(maxBytes * maxShare),
    sizeCalculation: sizeOf,
    dispose: (_reply, _key, reason) => {
      if (reason === 'evict') evictions.inc();
    },
  });
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  gauge('tandem_cache_entries', 'Replies in the cache', () => replies.size);
  gauge('tandem_cache_bytes', 'What they take in memory, with their keys', () => replies.calculatedSize);

  return {
    get: (key) => replies.get(key),
    keep(key, reply) {
      const held = replies.peek(key);
      if (held !== undefined && held.startedMs > reply.startedMs) return false;
      if (reply.freshMs > 0) replies.set(key, reply);
      else replies.delete(key);
      return replies.has(key);
    },
    written(key, reply, form) {
      let written = reply.written.get(form.name);
      if (written !== undefined) return written;
      written = form.write(reply);
      reply.written.set(form.name, written);
      // It takes more now, and only a new entry is measured.
      if (replies.peek(key) === reply && replies.delete(key)) replies.set(key, reply);
      return written;
    },
  };
}

function sizeOf({ message, metadata, written }: SharedReply, key: string): number {
  let bytes = overheadBytes + key.length + message.byteLength;
  for (const [name, value] of metadata) bytes += name.length + value.length;
  for (const { body, headers } of written.values()) {
    // V8 takes two bytes for each character of a text as soon as one of them needs them.
    bytes += typeof body === 'string' && Buffer.byteLength(body) > body.length ? 2 * body.length : body.length;
    for (const name in headers) bytes += name.length + String(headers[name]).length;
  }
  return bytes;
}
