import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import { createHttpCaller } from '../harness/http-caller.ts';
import { startLab } from '../harness/lab-fixture.ts';
import { sendInTurn } from '../harness/load.ts';
import { sumOfMetric } from '../harness/metrics.ts';

const request = 'GET /v1/hello/world HTTP/1.1\r\nHost: localhost\r\n\r\n';
const replyHead = /^HTTP\/1\.1 (\d+)[^]*?\r\ncontent-length: (\d+)\r\n[^]*?\r\n\r\n/i;

/** Keeps so many requests under way on each connection, and counts the replies by status. */
async function load(
  port: number,
  { connections, requestsOnEach, forMs }: Record<'connections' | 'requestsOnEach' | 'forMs', number>,
): Promise<Map<string, number>> {
  const statuses = new Map<string, number>();
  const untilMs = performance.now() + forMs;
  await Promise.all(
    Array.from({ length: connections }, async () => {
      const socket = connect(port, '127.0.0.1').setEncoding('latin1');
      let underWay = 0;
      let unread = '';
      const send = () => {
        underWay = requestsOnEach;
        socket.write(request.repeat(requestsOnEach));
      };
      socket.on('data', (text) => {
        unread += String(text);
        for (let reply = replyHead.exec(unread); reply !== null; reply = replyHead.exec(unread)) {
          const [head, status = '', length] = reply;
          const end = head.length + Number(length);
          if (unread.length < end) break;
          unread = unread.slice(end);
          underWay--;
          statuses.set(status, (statuses.get(status) ?? 0) + 1);
        }
        if (underWay > 0) return;
        if (performance.now() < untilMs) send();
        else socket.end();
      });
      send();
      await once(socket, 'close');
      assert.equal(underWay, 0, 'a request without a reply');
    }),
  );
  return statuses;
}

test('a gateway with more to do than it can refuses requests when it has read their head, and serves the others', async (t) => {
  const { lab, use, gatewayPort } = await startLab(t, { replicas: 2 });
  const adminPort = lab.gateways[0]?.serving?.adminPort ?? 0;
  const refused = () => sumOfMetric(adminPort, 'tandem_admission_shed_total', { reason: 'event-loop' });
  const isReady = async () => (await fetch(`http://127.0.0.1:${adminPort}/readyz`)).status === 200;

  const light = await load(gatewayPort(), { connections: 2, requestsOnEach: 1, forMs: 1_000 });
  assert.deepEqual([[...light.keys()], await refused()], [['200'], 0], 'control: two at a time are no overload');

  const loading = load(gatewayPort(), { connections: 100, requestsOnEach: 20, forMs: 2_500 });
  assert.equal(await isReady(), true, 'the admin port is never shed');
  const heavy = await loading;
  const count = await refused();
  t.diagnostic(
    `two at a time: ${light.get('200')} replies; 2,000: ${JSON.stringify([...heavy])}, ${count} by the event loop`,
  );
  assert.deepEqual([...heavy.keys()].toSorted(), ['200', '503']);
  assert.ok(count > 0, 'nothing was refused by the event loop');

  const caller = use(createHttpCaller([gatewayPort()]));
  const after = await sendInTurn(() => caller.get('/v1/hello/world'), 20);
  assert.equal(after.failed, 0, [...after.codes].join());
  assert.equal(await refused(), count, 'refused without an overload');
});
