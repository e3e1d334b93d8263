import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { eventually } from '../harness/eventually.ts';
import { clearFaults, sendGoaway, setFaults } from '../harness/faults.ts';
import { createHttpCaller } from '../harness/http-caller.ts';
import { startLab } from '../harness/lab-fixture.ts';
import { sendInTurn, startLoad } from '../harness/load.ts';

const hello = '/v1/hello/world';

async function startFaulty(t: TestContext) {
  const fixture = await startLab(t, { replicas: 3, greeterEnv: { FAULTS: 'enabled' } });
  const caller = fixture.use(createHttpCaller([fixture.gatewayPort()]));
  const send = () => caller.get(hello);
  const answering = async () => [...(await sendInTurn(send, 6)).servedBy.keys()].toSorted().join();
  await eventually('all replicas answer', async () => (await answering()) === 'a,b,c');
  const adminPorts = fixture.lab.replicas.map(({ serving }) => serving?.adminPort ?? 0);
  const logged = (message: string) => fixture.lines.find(({ line }) => line.includes(`"msg":"${message}"`))?.line ?? '';
  /** What the gateway logged of calls that were not fine. */
  const explained = () =>
    fixture.lines.flatMap(({ line }) => (/"grpcCode":"(?!OK")/.test(line) ? [line] : [])).join('\n');
  return { send, answering, adminPorts, logged, explained };
}

test('a replica that refuses health gets no calls until it is well again', async (t) => {
  const { answering, adminPorts } = await startFaulty(t);
  const [port = 0] = adminPorts;
  await setFaults(port, { refuseHealth: true });
  await eventually('b and c answer', async () => (await answering()) === 'b,c', { timeoutMs: 2_000 });
  await clearFaults(port);
  await eventually('all replicas answer', async () => (await answering()) === 'a,b,c', { timeoutMs: 2_000 });
});

test('GOAWAY on all connections under load costs no call', async (t) => {
  const { send, adminPorts, explained } = await startFaulty(t);
  const load = startLoad(send, { callsPerS: 200 });
  for (let round = 0; round < 3; round += 1) {
    for (const port of adminPorts) {
      await sendGoaway(port);
      await sendInTurn(send, 20);
    }
  }
  const { sent, failed } = await load.stop();
  assert.ok(sent >= 50, `${sent} calls`);
  assert.equal(failed, 0, explained());
});

test('a replica that answers no call is ejected, which costs none, and the gateway says so', async (t) => {
  const { send, adminPorts, logged, explained } = await startFaulty(t);
  const [port = 0] = adminPorts;
  await setFaults(port, { freeze: true });
  const load = startLoad(send, { callsPerS: 50 });
  await eventually('the gateway ejects it', () => logged('endpoint ejected'));
  assert.match(logged('endpoint ejected'), /"level":"warn".*"reason":"consecutive-failures"/);
  await clearFaults(port);
  await eventually('the gateway takes it back', () => logged('endpoint returned'));
  assert.match(logged('endpoint returned'), /"level":"info"/);
  const { failed } = await load.stop();
  assert.equal(failed, 0, explained());
});
