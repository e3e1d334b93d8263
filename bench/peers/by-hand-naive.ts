/**
 * node:http and grpc-js as the first results of a web search put them together.
 *
 * Has: one pooled client over all backends, round robin, a deadline, an HTTP status for a failed call. Has not: metrics,
 * logs, retries, limits, health checks.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import {
  type CallOptions,
  credentials,
  loadPackageDefinition,
  type ServiceClientConstructor,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

interface Greeter {
  SayHello(
    request: { name: string },
    options: CallOptions,
    callback: (error: ServiceError | null, reply: { message: string }) => void,
  ): void;
}

const { BACKENDS = '127.0.0.1:50051' } = process.env;

const packageDefinition = loadSync('helloworld/helloworld.proto', {
  keepCase: true,
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
  includeDirs: ['../../proto', '../../third_party/googleapis'].map((path) =>
    fileURLToPath(new URL(path, import.meta.url)),
  ),
});
const { helloworld } = loadPackageDefinition(packageDefinition) as unknown as {
  helloworld: { Greeter: ServiceClientConstructor };
};
const client = new helloworld.Greeter(`ipv4:${BACKENDS}`, credentials.createInsecure(), {
  'grpc.service_config': JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
}) as unknown as Greeter;

const server = createServer((request, response) => {
  const { pathname } = new URL(request.url ?? '/', 'http://localhost');
  const match = /^\/v1\/hello\/([^/]+)$/.exec(pathname);
  if (request.method !== 'GET' || match?.[1] === undefined) {
    response.writeHead(404, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ error: 'not found' }));
    return;
  }
  let name: string;
  try {
    name = decodeURIComponent(match[1]);
  } catch {
    response.writeHead(400, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ error: 'malformed path' }));
    return;
  }
  client.SayHello({ name }, { deadline: Date.now() + 2_000 }, (error, reply) => {
    if (error) {
      response.writeHead(httpStatusOf(error.code), { 'content-type': 'application/json' });
      response.end(JSON.stringify({ error: error.details }));
      return;
    }
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(reply));
  });
});

function httpStatusOf(code: status): number {
  switch (code) {
    case status.INVALID_ARGUMENT:
      return 400;
    case status.UNAVAILABLE:
      return 503;
    case status.DEADLINE_EXCEEDED:
      return 504;
    default:
      return 500;
  }
}

server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: (server.address() as AddressInfo).port })));
