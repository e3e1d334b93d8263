import assert from 'node:assert/strict';
import type { Faults } from '../../services/greeter/faults.ts';

/** Sets what is wrong with a replica that runs with `FAULTS=enabled`, in place of what was before. */
export async function setFaults(adminPort: number, faults: Faults): Promise<void> {
  await send(adminPort, 'PUT /faults', faults);
}

/** Nothing is wrong with it any more. */
export async function clearFaults(adminPort: number): Promise<void> {
  await send(adminPort, 'DELETE /faults');
}

/** Makes the replica send GOAWAY on all its connections. */
export async function sendGoaway(adminPort: number): Promise<void> {
  await send(adminPort, 'POST /faults/goaway');
}

async function send(adminPort: number, route: string, body?: Faults): Promise<void> {
  const [method = '', path = ''] = route.split(' ');
  const response = await fetch(`http://127.0.0.1:${adminPort}${path}`, {
    method,
    // Else the connection is kept for a while, and looks like one that the test forgot.
    headers: { connection: 'close', 'content-type': 'application/json' },
    ...(body && { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  assert.ok(response.ok, `${route}: ${response.status} ${text}`);
}
