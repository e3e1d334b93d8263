import {
  create,
  type DescMessage,
  fromBinary,
  type Message,
  type MessageInitShape,
  toBinary,
} from '@bufbuild/protobuf';
import { type ChannelOptions as GrpcJsOptions, Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import type { Caller } from '#runtime/call/call.ts';
import { invokeUnary } from '#runtime/call/invoke.ts';
import { getText } from '#runtime/call/metadata.ts';
import { codeName, RpcError } from '#runtime/call/status.ts';
import { type Channel, type ChannelOptions, createChannel } from '#runtime/channel/channel.ts';
import { parseServiceConfig } from '#runtime/channel/service-config.ts';
import { readDescriptors } from '../../services/gateway/descriptors.ts';
import { defaultServiceConfig } from '../../services/gateway/config.ts';
import { projectFile } from './command.ts';
import { eventually } from './eventually.ts';
import type { Outcome } from './ledger.ts';

const { methods } = readDescriptors(projectFile('proto/descriptors.binpb'));

/** A method of the greeter, with the bytes of its requests and replies. */
function greeterMethod(name: string) {
  const found = methods.find(({ method }) => method.path === `/helloworld.Greeter/${name}`);
  if (found === undefined) throw new Error(`helloworld.Greeter has no ${name}`);
  const { method, input, output } = found;
  const encode = (request: MessageInitShape<DescMessage>) => toBinary(input, create(input, request));
  const decode = (reply: Uint8Array) => fromBinary(output, reply) as Message & { readonly message: string };
  return { method, encode, decode };
}

export const sayHello = greeterMethod('SayHello');
export const sayHelloStreamReply = greeterMethod('SayHelloStreamReply');

/** What the gateway does unless it is told otherwise, as JSON: for tests that change one thing of it. */
export const gatewayServiceConfig = defaultServiceConfig;

export interface HelloOptions {
  /** Defaults to `world`. */
  readonly name?: string;
  /** Defaults to 2 s, as the gateway has it. */
  readonly timeoutMs?: number;
}

/** A client of the greeters in the test's own process. */
export interface GreeterClient extends AsyncDisposable {
  hello(options?: HelloOptions): Promise<Outcome>;
}

export interface ChannelClient extends GreeterClient {
  readonly channel: Channel;
  /** Waits until so many endpoints of the active target are connected. */
  connected(endpoints: number): Promise<void>;
}

/** A client on a channel of ours. `serviceConfig` is JSON; the channel's own default is without retries and checks. */
export function createChannelClient(
  options: Omit<ChannelOptions, 'serviceConfig'> & { readonly serviceConfig?: unknown },
): ChannelClient {
  const channel = createChannel({ ...options, serviceConfig: parseServiceConfig(options.serviceConfig ?? {}) });
  channel.connect();
  return {
    channel,
    hello: (helloOptions) => callHello(channel, helloOptions),
    async connected(endpoints) {
      const ready = () => {
        const { targets, activePriority } = channel.snapshot();
        return targets[activePriority]?.endpoints.filter(({ health }) => health === 'serving').length ?? 0;
      };
      await eventually(
        () => `${endpoints} endpoints serve, ${ready()} do`,
        () => ready() === endpoints,
      );
    },
    [Symbol.asyncDispose]: () => channel.close(0),
  };
}

/** One greeting through any caller of the seam. */
export async function callHello(caller: Caller, options: HelloOptions = {}): Promise<Outcome> {
  const { name = 'world', timeoutMs = 2_000 } = options;
  try {
    const { headers } = await invokeUnary(
      caller,
      { method: sayHello.method, deadlineMs: performance.now() + timeoutMs },
      sayHello.encode({ name }),
    );
    return { code: 'OK', servedBy: getText(headers, 'served-by') };
  } catch (error) {
    if (error instanceof RpcError) return { code: codeName(error.code) };
    throw error;
  }
}

/** A client as grpc-js alone makes it, with its own resolver, balancing and policies. */
export function createGrpcJsClient(target: string, options: GrpcJsOptions = {}): GreeterClient {
  const client = new Client(target, credentials.createInsecure(), {
    'grpc.enable_http_proxy': 0,
    'grpc.use_local_subchannel_pool': 1,
    ...options,
  });
  return {
    hello: ({ name = 'world', timeoutMs = 2_000 } = {}) =>
      new Promise((resolve) => {
        let servedBy: string | undefined;
        const onReply = (error: ServiceError | null) =>
          resolve(error === null ? { code: 'OK', servedBy } : { code: codeName(error.code) });
        const deadline = Date.now() + timeoutMs;
        client
          .makeUnaryRequest(
            sayHello.method.path,
            (request: Uint8Array) => Buffer.from(request),
            (reply) => reply,
            sayHello.encode({ name }),
            new Metadata(),
            { deadline },
            onReply,
          )
          .on('metadata', (metadata) => {
            servedBy = String(metadata.get('served-by')[0]);
          });
      }),
    [Symbol.asyncDispose]: async () => client.close(),
  };
}
