import assert from 'node:assert/strict';
import test from 'node:test';
import { exchangeText, hostileRequests, readReply } from '../harness/hostile-requests.ts';
import { startLab } from '../harness/lab-fixture.ts';
import { sumOfMetric } from '../harness/metrics.ts';

const startedName = 'grpc_server_call_started_total';

test('each hostile request gets a clear answer, and none reaches the replica', async (t) => {
  const lab = await startLab(t, { replicas: 1 });
  const port = lab.gatewayPort();
  const calls = () => sumOfMetric(lab.adminPort('a'), startedName);
  const before = await calls(); // the lab has asked whether it serves
  for (const { name, text, status: expected } of hostileRequests) {
    await t.test(`${expected} for ${name}`, async () => {
      const { status, body } = readReply(await exchangeText(port, text));
      assert.equal(status, expected, body);
      if (status === 'closed') return;
      const json = JSON.parse(body) as { code: number; message: string };
      assert.ok(json.code > 0 && json.code <= 16, body);
      assert.ok(json.message.length > 0, body);
      assert.doesNotMatch(body, /node_modules|\.ts\b|undefined|\[object|Error:/, 'no words of the inside');
    });
  }
  assert.equal((await calls()) - before, 0);
  for (const { name, wellFormed } of hostileRequests) {
    const { status, body } = readReply(await exchangeText(port, wellFormed));
    assert.equal(status, 200, `${name}: ${body}`);
  }
  assert.equal((await calls()) - before, hostileRequests.length);
});
