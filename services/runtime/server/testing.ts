import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import * as grpc from '@grpc/grpc-js';
import { loadFileDescriptorSetFromBuffer } from '@grpc/proto-loader';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import type { Handlers } from './handler.ts';
import { createServer, type Server, type ServerOptions } from './server.ts';

export const descriptors = readFileSync(new URL('../../../proto/descriptors.binpb', import.meta.url));

/** A client of `helloworld.Greeter`, or of health, as grpc-js makes it from a definition. */
// oxlint-disable-next-line typescript/no-explicit-any -- its methods are known at run time only
export type TestClient = grpc.Client & Record<string, any>;

export interface TestServer extends AsyncDisposable {
  readonly server: Server;
  readonly port: number;
  readonly registry: Registry;
  /** What was logged, parsed, without the lines of calls. */
  readonly log: Record<string, unknown>[];
  /** The lines of calls. */
  readonly calls: Record<string, unknown>[];
  /** Further clients have a connection of their own. */
  connect(
    definition?: grpc.ServiceDefinition,
    options?: grpc.ChannelOptions,
    credentials?: grpc.ChannelCredentials,
  ): TestClient;
  readonly client: TestClient;
}

const greeterDefinition = loadFileDescriptorSetFromBuffer(descriptors)['helloworld.Greeter'] as grpc.ServiceDefinition;

/** Serves `handlers`, completed by ones that are never called, on a real socket. Its disposal proves that none is left. */
export async function startServer(handlers: Handlers, options: Partial<ServerOptions> = {}): Promise<TestServer> {
  const log: Record<string, unknown>[] = [];
  const calls: Record<string, unknown>[] = [];
  const writeLine = (text: string) => {
    const line = JSON.parse(text) as Record<string, unknown>;
    (line.msg === 'call' ? calls : log).push(line);
  };
  const registry = new Registry();
  const unexpected = async () => assert.fail('called by mistake');
  const server = createServer({
    descriptors,
    services: {
      'helloworld.Greeter': {
        SayHello: unexpected,
        SayHelloStreamReply: unexpected,
        SayHelloStreamRequest: unexpected,
        SayHelloBidiStream: unexpected,
        ...handlers,
      },
    },
    host: '127.0.0.1',
    port: 0,
    podName: 'pod-a',
    registry,
    log: pino({ base: null, timestamp: false }, { write: writeLine }),
    ...options,
  });
  const port = await server.start();
  const clients: grpc.Client[] = [];
  const connect = (
    definition = greeterDefinition,
    channelOptions: grpc.ChannelOptions = {},
    credentials = grpc.credentials.createInsecure(),
  ) => {
    const Client = grpc.makeGenericClientConstructor(definition, '');
    const client = new Client(`127.0.0.1:${port}`, credentials, {
      'grpc.use_local_subchannel_pool': 1,
      'grpc.enable_retries': 0,
      ...channelOptions,
    });
    clients.push(client);
    return client as TestClient;
  };
  return {
    server,
    port,
    registry,
    log,
    calls,
    connect,
    client: connect(),
    async [Symbol.asyncDispose]() {
      for (const client of clients) client.close();
      const finished = server.finish();
      server.force();
      await finished;
      await eventually(() => {
        const left = process.getActiveResourcesInfo().filter((name) => name.startsWith('TCP'));
        assert.deepEqual(left, []);
      });
    },
  };
}

/** How a call ended, with what came before. */
export interface Outcome {
  readonly code: number;
  readonly details: string;
  readonly messages: readonly unknown[];
  readonly headers: grpc.Metadata | undefined;
  readonly trailers: grpc.Metadata;
}

/** Makes a call of any kind, one argument a request, and waits for its status; never rejects. */
export function callMethod(
  client: TestClient,
  method: string,
  requests: readonly object[],
  options: grpc.CallOptions = {},
): Promise<Outcome> {
  const { requestStream, responseStream } = greeterDefinition[method] as grpc.MethodDefinition<unknown, unknown>;
  const { promise, resolve } = Promise.withResolvers<Outcome>();
  const messages: unknown[] = [];
  let headers: grpc.Metadata | undefined;
  const input = [...(requestStream ? [] : requests.slice(0, 1)), new grpc.Metadata(), options];
  const onReply = (error: grpc.ServiceError | null, reply: unknown) => {
    if (error === null) messages.push(reply);
  };
  const call = client[method](...input, ...(responseStream ? [] : [onReply]));
  call.on('metadata', (metadata: grpc.Metadata) => {
    headers = metadata;
  });
  call.on('data', (message: unknown) => messages.push(message));
  call.on('error', () => {});
  call.on('status', ({ code, details, metadata }: grpc.StatusObject) => {
    // The reply of a unary call comes right behind its status.
    setImmediate(() => resolve({ code, details, messages, headers, trailers: metadata }));
  });
  if (requestStream) {
    for (const request of requests) call.write(request);
    call.end();
  }
  return promise;
}

/** Repeats `check` until it passes, at most for `timeoutMs`. */
export async function eventually<T>(check: () => T | Promise<T>, timeoutMs = 3_000): Promise<T> {
  const endMs = performance.now() + timeoutMs;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (performance.now() > endMs) throw error;
    }
    await sleep(5);
  }
}
