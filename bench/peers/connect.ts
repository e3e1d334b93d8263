/**
 * Fastify and connect-node as their documents put them together, over the gRPC protocol.
 *
 * Has: a transport for each backend, which keeps its connection, in turn; a deadline; a JSON serializer made from the
 * schema of the reply; an HTTP status for a failed call. Has not: metrics, logs, retries, limits, health checks.
 */
import { readFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createFileRegistry, fromBinary } from '@bufbuild/protobuf';
import type { GenMessage, GenService } from '@bufbuild/protobuf/codegenv2';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import type { Message } from '@bufbuild/protobuf';
import { type Client, Code, ConnectError, createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { fastify } from 'fastify';

/** What protoc-gen-es would write; the rest of it comes from the descriptors. */
type Greeter = GenService<{
  sayHello: {
    methodKind: 'unary';
    input: GenMessage<Message<'helloworld.HelloRequest'> & { name: string }>;
    output: GenMessage<Message<'helloworld.HelloReply'> & { message: string }>;
  };
}>;

const { BACKENDS = '127.0.0.1:50051' } = process.env;

const descriptors = readFileSync(new URL('../../proto/descriptors.binpb', import.meta.url));
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors));
const greeter = registry.getService('helloworld.Greeter') as Greeter;

const clients = BACKENDS.split(',').map((backend) =>
  createClient(greeter, createGrpcTransport({ baseUrl: `http://${backend}`, defaultTimeoutMs: 2_000 })),
);
let turn = 0;

function nextClient(): Client<Greeter> {
  return clients[turn++ % clients.length] as Client<Greeter>;
}

const httpStatusByCode: Readonly<Partial<Record<Code, number>>> = {
  [Code.InvalidArgument]: 400,
  [Code.NotFound]: 404,
  [Code.ResourceExhausted]: 429,
  [Code.Unavailable]: 503,
  [Code.DeadlineExceeded]: 504,
};

const server = fastify({ routerOptions: { maxParamLength: 4_096 } });

const replySchema = { type: 'object', properties: { message: { type: 'string' } } };

server.get<{ Params: { name: string } }>(
  '/v1/hello/:name',
  { schema: { response: { 200: replySchema } } },
  async ({ params: { name } }) => nextClient().sayHello({ name }),
);

server.setErrorHandler((error, _request, reply) => {
  if (!(error instanceof ConnectError)) return reply.send(error);
  return reply.code(httpStatusByCode[error.code] ?? 500).send({ error: error.rawMessage });
});

await server.listen({ port: 0, host: '127.0.0.1' });
console.log(JSON.stringify({ port: (server.server.address() as AddressInfo).port }));
