import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { loadFileDescriptorSetFromBuffer, type MethodDefinition } from '@grpc/proto-loader';
import { invokeStream, invokeUnary } from '#runtime/call/invoke.ts';
import type { Metadata, Method } from '#runtime/call/call.ts';
import { getText } from '#runtime/call/metadata.ts';
import { Code, RpcError } from '#runtime/call/status.ts';
import { type Channel, createChannel } from '#runtime/channel/channel.ts';
import type { KubernetesAccess } from '#runtime/channel/resolver/kubernetes.ts';
import type { Arguments } from './arguments.ts';

/** One answer of the server. */
export interface Greeting {
  readonly message: string;
  /** The replica that answered. */
  readonly servedBy: string | undefined;
}

export interface HelloOptions extends Arguments {
  /** For a `kubernetes:///` target. */
  readonly kubernetes: KubernetesAccess | undefined;
  /** Names, one a line, for a stream of requests that was given none. */
  readonly stdin: Readable;
  readonly onGreeting: (greeting: Greeting) => void;
}

interface Rpc extends Method {
  encode(request: object): Uint8Array;
  decode(reply: Uint8Array): string;
}

/** Greets, as the options say, and resolves after the last answer. Rejects with an `RpcError`. */
export async function hello(options: HelloOptions): Promise<void> {
  const { target, timeoutMs, stream } = options;
  const startedMs = performance.now();
  let lastError = 'it did not answer';
  const channel = createChannel({
    target,
    kubernetes: options.kubernetes,
    onEvent(event) {
      if (event.type === 'resolver-error') lastError = event.error.message;
      else if (event.type === 'connection' && event.state === 'TRANSIENT_FAILURE')
        lastError = event.lastError || `cannot connect to ${event.endpointId}`;
    },
  });
  channel.connect();
  try {
    if (!(await channel.whenReady(timeoutMs)))
      throw new RpcError(Code.DEADLINE_EXCEEDED, `no server at ${target} within ${timeoutMs} ms: ${lastError}`);
    const names = options.names.length > 0 ? options.names : ['world'];
    if (stream === undefined) await greetOneByOne(channel, names, startedMs, options);
    else if (stream === 'reply') await greetOften(channel, names, options);
    else await greetMany(channel, stream, options);
  } finally {
    await channel.close(0);
  }
}

async function greetOneByOne(
  channel: Channel,
  names: readonly string[],
  startedMs: number,
  { count = 1, timeoutMs, onGreeting }: HelloOptions,
): Promise<void> {
  const method = loadMethod('SayHello');
  let deadlineMs = startedMs + timeoutMs;
  for (const name of names) {
    const request = method.encode({ name });
    for (let sent = 0; sent < count; sent += 1) {
      const { message, headers } = await invokeUnary(channel, { method, deadlineMs }, request);
      onGreeting(greeting(method, message, headers));
      deadlineMs = performance.now() + timeoutMs;
    }
  }
}

async function greetOften(
  channel: Channel,
  names: readonly string[],
  { count, timeoutMs, onGreeting }: HelloOptions,
): Promise<void> {
  const method = loadMethod('SayHelloStreamReply');
  for (const name of names) {
    const call = createStreamCall(channel, method, timeoutMs);
    call.expectAnswers(Number.POSITIVE_INFINITY);
    void call.stream.write(method.encode({ name, reply_count: count ?? 0 }), true);
    await call.read(onGreeting);
  }
}

async function greetMany(
  channel: Channel,
  kind: 'request' | 'bidi',
  { names, count = 1, timeoutMs, stdin, onGreeting }: HelloOptions,
): Promise<void> {
  const method = loadMethod(kind === 'bidi' ? 'SayHelloBidiStream' : 'SayHelloStreamRequest');
  const call = createStreamCall(channel, method, timeoutMs);

  async function write(): Promise<void> {
    for await (const name of names.length > 0 ? names : createInterface({ input: stdin })) {
      const request = method.encode({ name });
      for (let sent = 0; sent < count; sent += 1) {
        if (kind === 'bidi') call.expectAnswers(1);
        await call.stream.write(request);
      }
    }
    call.expectAnswers(Number.POSITIVE_INFINITY);
    call.stream.end();
  }

  write().catch(() => call.stream.cancel()); // standard input could not be read
  await call.read(onGreeting);
}

/** A stream that is given up when an answer that is due does not come in time; what a person types is never due. */
function createStreamCall(channel: Channel, method: Rpc, timeoutMs: number) {
  const stream = invokeStream(channel, { method });
  let due = 0;
  let late = false;
  let timer: NodeJS.Timeout | undefined;

  function watch(): void {
    clearTimeout(timer);
    if (due === 0) return;
    timer = setTimeout(() => {
      late = true;
      stream.cancel();
    }, timeoutMs);
  }

  return {
    stream,
    /** So many answers more are due; of infinitely many the last is the end of the stream. */
    expectAnswers(answers: number): void {
      due += answers;
      watch();
    },
    async read(onGreeting: (greeting: Greeting) => void): Promise<void> {
      try {
        for await (const message of stream) {
          due -= 1;
          watch();
          onGreeting(greeting(method, message, stream.headers));
        }
      } catch (error) {
        if (late) throw new RpcError(Code.DEADLINE_EXCEEDED, `no answer within ${timeoutMs} ms`, { cause: error });
        throw error;
      } finally {
        clearTimeout(timer);
      }
    },
  };
}

function greeting(method: Rpc, message: Uint8Array, headers: Metadata): Greeting {
  return { message: method.decode(message), servedBy: getText(headers, 'served-by') };
}

const descriptors = new URL('../../proto/descriptors.binpb', import.meta.url);

function loadMethod(name: string): Rpc {
  const service = loadFileDescriptorSetFromBuffer(readFileSync(descriptors))['helloworld.Greeter'];
  const method = (service as Record<string, MethodDefinition<object, { message: string }>>)[name];
  if (!method) throw new Error(`${descriptors.pathname} has no helloworld.Greeter/${name}`);
  return {
    path: method.path as Method['path'],
    requestStream: method.requestStream,
    responseStream: method.responseStream,
    idempotency: 'NO_SIDE_EFFECTS',
    encode: method.requestSerialize,
    decode: (reply) => method.responseDeserialize(reply as Buffer).message,
  };
}
