/**
 * node:http and grpc-js by hand, tuned as far as its documents and issues say, and as measuring confirms.
 *
 * Has: one pooled channel, round robin, a deadline, transparent retries, an HTTP status for a failed call; channelz and
 * the stack trace of each call off, codecs by hand in place of proto-loader's, one write for a reply. Has not: metrics,
 * logs, a retry policy, limits, health checks. A client for each backend, one `Metadata` for all calls and no transparent
 * retries made no difference.
 */
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Client, credentials, type requestCallback, type ServiceError, status } from '@grpc/grpc-js';

const { BACKENDS = '127.0.0.1:50051' } = process.env;
const prefix = '/v1/hello/';
const timeoutMs = 2_000;

const client = new Client(`ipv4:${BACKENDS}`, credentials.createInsecure(), {
  'grpc.service_config': JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
  'grpc.service_config_disable_resolution': 1,
  'grpc.enable_http_proxy': 0,
  'grpc.enable_channelz': 0,
});

const server = createServer((request, response) => {
  const { method, url = '' } = request;
  if (method !== 'GET' || !url.startsWith(prefix)) {
    reply(response, 404, '{"error":"not found"}');
    return;
  }
  let name: string;
  try {
    name = decodeURIComponent(url.slice(prefix.length));
  } catch {
    reply(response, 400, '{"error":"malformed path"}');
    return;
  }
  sayHello(name, (error, message = '') => {
    if (error) fail(response, error);
    else reply(response, 200, `{"message":${JSON.stringify(message)}}`);
  });
});

function sayHello(name: string, callback: requestCallback<string>): void {
  // grpc-js takes a stack trace for each call, in case that it fails: https://github.com/grpc/grpc-node/pull/3083
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  client.makeUnaryRequest(
    '/helloworld.Greeter/SayHello',
    encodeRequest,
    decodeReply,
    name,
    { deadline: Date.now() + timeoutMs },
    callback,
  );
  Error.stackTraceLimit = stackTraceLimit;
}

function reply(response: ServerResponse, code: number, body: string): void {
  response.writeHead(code, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }).end(body);
}

function fail(response: ServerResponse, { code, details }: ServiceError): void {
  reply(response, httpStatusByCode[code] ?? 500, JSON.stringify({ error: details }));
}

const httpStatusByCode: Readonly<Partial<Record<status, number>>> = {
  [status.INVALID_ARGUMENT]: 400,
  [status.NOT_FOUND]: 404,
  [status.RESOURCE_EXHAUSTED]: 429,
  [status.UNAVAILABLE]: 503,
  [status.DEADLINE_EXCEEDED]: 504,
};

/** `HelloRequest { string name = 1 }`. */
function encodeRequest(name: string): Buffer {
  const nameBytes = Buffer.byteLength(name);
  const lengthBytes = varintBytes(nameBytes);
  const message = Buffer.allocUnsafe(1 + lengthBytes + nameBytes);
  message[0] = 0x0a;
  let at = 1;
  let rest = nameBytes;
  for (; rest > 0x7f; rest >>>= 7) message[at++] = (rest & 0x7f) | 0x80;
  message[at++] = rest;
  message.write(name, at);
  return message;
}

function varintBytes(value: number): number {
  let bytes = 1;
  for (let rest = value >>> 7; rest > 0; rest >>>= 7) bytes++;
  return bytes;
}

/** `HelloReply { string message = 1 }`. */
function decodeReply(bytes: Buffer): string {
  if (bytes[0] !== 0x0a) return '';
  let at = 1;
  let length = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = bytes[at++] ?? 0;
    length |= (byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  return bytes.toString('utf8', at, at + length);
}

server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: (server.address() as AddressInfo).port })));
