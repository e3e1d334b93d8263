import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import test from 'node:test';
import { findPortProblems, wantedPorts } from './ports.ts';

test('lists each program with its ports and variables', () => {
  const wanted = wantedPorts({ gateway: 8080, admin: 9090, greeter: 50_051 }, 2);
  assert.deepEqual(
    wanted.map(({ port, who, variable }) => `${port} ${who} ${variable}`),
    [
      '8080 the gateway PORT',
      '9090 the admin port of the gateway ADMIN_PORT',
      '50051 greeter a GREETER_PORT',
      '9091 the admin port of greeter a ADMIN_PORT',
      '50052 greeter b GREETER_PORT',
      '9092 the admin port of greeter b ADMIN_PORT',
    ],
  );
  assert.deepEqual(wantedPorts({ gateway: 0, admin: 0, greeter: 0 }, 2), []);
});

const hasIpv6 = Object.values(networkInterfaces()).some((all) => all?.some(({ address }) => address === '::1'));

for (const host of ['127.0.0.1', '0.0.0.0', '::1']) {
  const skip = host === '::1' && !hasIpv6 && 'this machine has no IPv6';
  test(`names a port that is busy on ${host}, who wanted it and the variable to change`, { skip }, async () => {
    const server = createServer().listen(0, host);
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const problems = await findPortProblems(wantedPorts({ gateway: 0, admin: 0, greeter: port }, 1));
    assert.deepEqual(problems, [`port ${port} for greeter a is busy: free it or set GREETER_PORT`]);
    server.close();
  });
}

test('names ports that two programs want or that do not exist', async () => {
  const problems = await findPortProblems(wantedPorts({ gateway: 9091, admin: 9090, greeter: 65_535 }, 2));
  assert.deepEqual(problems.slice(0, 2), [
    'port 9091 is for the gateway and the admin port of greeter a: change PORT or ADMIN_PORT',
    'port 65536 for greeter b must be <= 65535: lower GREETER_PORT',
  ]);
});
