import assert from 'node:assert/strict';
import test from 'node:test';
import { run, skipWithout } from '../harness/command.ts';
import { buildGo } from '../harness/go.ts';
import { startLab } from '../harness/lab-fixture.ts';

test('a plain Go helloworld client is greeted', async (t) => {
  if (await skipWithout(t, 'go', ['version'])) return;
  const client = await buildGo(t, 'tests/integration/go-hello');
  const { lab } = await startLab(t, { replicas: 1, gateways: 0 });
  const { stdout, stderr } = await run(client, [`127.0.0.1:${lab.replicas[0]?.serving?.port}`, 'Go']);
  assert.equal(stdout, 'Greeting: Hello Go\n', stderr);
});
