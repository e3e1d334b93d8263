/** A program as the lab expects it, for tests. BEHAVIOUR says how it differs from a good one. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

const behaviour = process.env.BEHAVIOUR;

if (behaviour === 'broken') {
  process.stderr.write('cannot read the descriptors\n');
  process.exit(1);
}
process.on('SIGTERM', () => {
  if (behaviour !== 'stubborn') process.exit(0);
});
const server = createServer((_request, response) => response.writeHead(behaviour === 'unready' ? 503 : 200).end());
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`${JSON.stringify({ level: 'info', msg: 'serving', port, adminPort: port })}\n`);
});
