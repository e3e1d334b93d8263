import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import test from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { createTrickle } from './trickle.ts';

test('counts every call, and tells the share of each replica', async () => {
  let served = 0;
  const server = createServer((_request, response) => {
    served += 1;
    if (served % 4 === 0) response.writeHead(503).end();
    else if (served % 7 === 0) response.destroy();
    else response.writeHead(200, { 'served-by': served % 2 === 0 ? 'a' : 'b' }).end('{}');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const trickle = createTrickle({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, callsPerS: 200 });
  trickle.start();
  while (trickle.sent < 40) await delay(10);
  await trickle.stop();
  assert.equal(trickle.sent, served);
  const failed = Array.from({ length: served }, (_, index) => index + 1).filter(
    (n) => n % 4 === 0 || n % 7 === 0,
  ).length;
  assert.equal(trickle.failed, failed);
  const shares = trickle.shares();
  assert.deepEqual([...shares.keys()].toSorted(), ['a', 'b']);
  assert.ok(Math.abs([...shares.values()].reduce((sum, share) => sum + share) - 1) < 1e-9);
  server.close();
});
