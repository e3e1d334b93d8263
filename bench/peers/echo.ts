/**
 * The floor: node:http that answers from the path alone.
 *
 * Has: the route, percent-decoding, the same reply. Has not: an upstream.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

const prefix = '/v1/hello/';

const server = createServer((request, response) => {
  const { method, url = '' } = request;
  if (method !== 'GET' || !url.startsWith(prefix)) {
    response.writeHead(404).end();
    return;
  }
  let name: string;
  try {
    name = decodeURIComponent(url.slice(prefix.length));
  } catch {
    response.writeHead(400).end();
    return;
  }
  const body = JSON.stringify({ message: `Hello ${name}` });
  response.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }).end(body);
});

server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: (server.address() as AddressInfo).port })));
