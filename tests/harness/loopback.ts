import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';

/** Why a test that needs several addresses of its own cannot run: only Linux has all of 127.0.0.0/8. */
export const withoutLoopbackAddresses =
  process.platform !== 'linux' && 'only Linux has loopback addresses besides 127.0.0.1';

/** A port for programs that share it at several loopback addresses: free at the first, it is taken to be free at all. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
