import { setTimeout as sleep } from 'node:timers/promises';
import { badRequest } from '#runtime/call/details.ts';
import type { Handlers, ServerCall } from '#runtime/server/handler.ts';

const maxNameBytes = 1_024;
const maxNames = 1_000;
const defaultReplyCount = 10;
const maxReplyCount = 100_000;
const maxReplyIntervalMs = 10_000;

interface HelloRequest {
  readonly name: string;
}

interface HelloStreamRequest {
  readonly name: string;
  readonly reply_count: number;
  readonly reply_interval: { readonly seconds: string; readonly nanos: number } | null;
}

interface HelloReply {
  readonly message: string;
}

/** The service `helloworld.Greeter`: the file to replace by your own. */
export const greeter = {
  async SayHello(request: HelloRequest): Promise<HelloReply> {
    checkName(request.name);
    return { message: `Hello ${request.name}` };
  },

  async *SayHelloStreamReply(request: HelloStreamRequest, call: ServerCall): AsyncIterable<HelloReply> {
    checkName(request.name);
    const replyCount = parseReplyCount(request.reply_count);
    const replyIntervalMs = parseReplyInterval(request.reply_interval);
    for (let sent = 0; sent < replyCount; sent++) {
      if (sent > 0 && replyIntervalMs > 0) await sleep(replyIntervalMs, undefined, { signal: call.signal });
      yield { message: `Hello ${request.name}` };
    }
  },

  async SayHelloStreamRequest(requests: AsyncIterable<HelloRequest>): Promise<HelloReply> {
    const names: string[] = [];
    for await (const { name } of requests) {
      checkName(name);
      names.push(name);
      if (names.length > maxNames) throw invalid('name', `must come <= ${maxNames} times`);
    }
    return { message: `Hello ${names.join(', ')}` };
  },

  async *SayHelloBidiStream(requests: AsyncIterable<HelloRequest>): AsyncIterable<HelloReply> {
    for await (const { name } of requests) {
      checkName(name);
      yield { message: `Hello ${name}` };
    }
  },
} satisfies Handlers;

function checkName(name: string): void {
  const bytes = Buffer.byteLength(name);
  if (bytes > maxNameBytes) throw invalid('name', `of ${bytes} bytes must be <= ${maxNameBytes}`);
}

function parseReplyCount(count: number): number {
  if (count < 0 || count > maxReplyCount) throw invalid('reply_count', `${count} must be from 0 to ${maxReplyCount}`);
  return count || defaultReplyCount;
}

function parseReplyInterval(interval: HelloStreamRequest['reply_interval']): number {
  const ms = interval === null ? 0 : Number(interval.seconds) * 1_000 + interval.nanos / 1_000_000;
  if (ms < 0 || ms > maxReplyIntervalMs) {
    throw invalid('reply_interval', `${ms / 1_000}s must be from 0s to ${maxReplyIntervalMs / 1_000}s`);
  }
  return ms;
}

function invalid(field: string, description: string) {
  return badRequest([{ field, description }]);
}
