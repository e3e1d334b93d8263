import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../harness/eventually.ts';
import { guarantee } from '../harness/guarantee.ts';
import { createHttpCaller, type HttpCaller } from '../harness/http-caller.ts';
import { type LabFixture, startLab } from '../harness/lab-fixture.ts';
import { sendInTurn, startLoad } from '../harness/load.ts';

const hello = '/v1/hello/world';

function createCaller(fixture: LabFixture): HttpCaller {
  return fixture.use(createHttpCaller([fixture.gatewayPort()]));
}

test('spreads 300 greetings over three replicas with a difference of at most one', async (t) => {
  const fixture = await startLab(t, { replicas: 3 });
  const caller = createCaller(fixture);
  await eventually(
    'all replicas answer',
    async () => (await sendInTurn(() => caller.get(hello), 3)).servedBy.size === 3,
  );
  const ledger = await sendInTurn(() => caller.get(hello), 300);
  assert.equal(ledger.ok, 300);
  const counts = [...ledger.servedBy.values()];
  assert.equal(counts.length, 3);
  assert.ok(Math.max(...counts) - Math.min(...counts) <= 1, `${counts}`);
});

test('sends calls to a replica that was added, and none to one that was taken out', async (t) => {
  const fixture = await startLab(t, { replicas: 1 });
  const caller = createCaller(fixture);
  const replicasThatAnswer = async (names: string) => {
    const { servedBy, ok, sent } = await sendInTurn(() => caller.get(hello), 4);
    assert.equal(ok, sent);
    return [...servedBy.keys()].toSorted().join() === names;
  };
  await eventually('a answers alone', () => replicasThatAnswer('a'));
  await fixture.lab.scale(2);
  await eventually('a and b answer', () => replicasThatAnswer('a,b'), { timeoutMs: 2_000 });
  await fixture.lab.scale(1);
  await eventually('a answers alone', () => replicasThatAnswer('a'), { timeoutMs: 2_000 });
});

guarantee('a replica that hangs and dies costs no idempotent call, and its successor is found', {
  on: { retries: true },
  control: { retries: false },
  async scenario({ retries }, t: TestContext) {
    const gatewayEnv = retries ? {} : { SERVICE_CONFIG: '{"healthCheckConfig":{"serviceName":""}}' };
    const fixture = await startLab(t, { replicas: 3, gatewayEnv });
    const caller = createCaller(fixture);
    const load = startLoad(() => caller.get(hello), { callsPerS: 100 });
    const victim = fixture.lab.replicas[2];
    assert.ok(victim);
    await delay(300);
    // Calls gather in it, so that killing it has some to lose.
    victim.freeze();
    await delay(200);
    await victim.kill();
    await eventually('the successor serves', () => victim.state === 'serving');
    await eventually(
      'the successor gets calls',
      async () => (await sendInTurn(() => caller.get(hello), 3)).servedBy.has(victim.name),
      { timeoutMs: 2_000 },
    );
    return load.stop();
  },
  valid: ({ sent, ok, servedBy }) => sent >= 80 && ok >= sent * 0.8 && servedBy.size === 3,
  holds: ({ failed }) => failed === 0,
});
