import assert from 'node:assert/strict';
import { get, type IncomingMessage, type OutgoingHttpHeaders } from 'node:http';
import test from 'node:test';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../harness/eventually.ts';
import { startLab } from '../harness/lab-fixture.ts';

const handshake = {
  connection: 'upgrade',
  upgrade: 'websocket',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
};
/** Two readers of each form of a stream: NDJSON, events, WebSocket. */
const readers = [{}, { accept: 'text/event-stream' }, handshake].flatMap((headers) => [headers, headers]);
/** 100,000 replies of 1 KB to each reader: 600 MB, were they made. */
const path = `/v1/hello/${'x'.repeat(1_000)}/stream?replyCount=100000`;
const megabyte = 1024 * 1024;

async function residentBytes(adminPort: number): Promise<number> {
  return readMetric(adminPort, /^process_resident_memory_bytes (\S+)$/m);
}

async function readMetric(adminPort: number, pattern: RegExp): Promise<number> {
  const [, value = ''] = pattern.exec(await text(await open(adminPort, '/metrics'))) ?? [];
  return Number(value);
}

function open(port: number, path: string, headers: OutgoingHttpHeaders = {}): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const sent = get({ host: '127.0.0.1', port, path, headers, agent: false }, resolve).once('error', reject);
    // As long as nobody listens, nothing is read.
    sent.once('upgrade', resolve);
  });
}

test('readers that stop reading cost neither the gateway nor the greeter memory', async (t) => {
  const { lab, gatewayPort } = await startLab(t, { replicas: 1 });
  const adminPorts = [lab.gateways[0], lab.replicas[0]].map((program) => program?.serving?.adminPort ?? 0);
  const before = await Promise.all(adminPorts.map(residentBytes));
  const replies = await Promise.all(readers.map((headers) => open(gatewayPort(), path, headers)));
  t.after(() => replies.map((reply) => reply.destroy()));
  assert.deepEqual(
    replies.map(({ statusCode }) => statusCode),
    [200, 200, 200, 200, 101, 101],
  );
  // Nobody has read: what was sent fills the buffers on the way, and then all stands still.
  await delay(3_000);
  const after = await Promise.all(adminPorts.map(residentBytes));
  const grownMb = after.map((bytes, index) => (bytes - (before[index] ?? 0)) / megabyte);
  t.diagnostic(`grown by ${grownMb.map((mb) => `${mb.toFixed(0)} MB`).join(' and ')}`);
  for (const mb of grownMb) assert.ok(mb < 80, `grown by ${mb.toFixed(0)} MB`);

  for (const reply of replies) reply.destroy();
  const [, greeterAdmin = 0] = adminPorts;
  await eventually('the greeter is told that its readers have gone', async () => {
    const cancelled = /^grpc_server_call_duration_seconds_count\{.*StreamReply.*CANCELLED.*\} (\d+)$/m;
    return (await readMetric(greeterAdmin, cancelled)) === readers.length;
  });
});
