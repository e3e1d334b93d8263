import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type ClientRequest, type IncomingMessage, request, type RequestOptions } from 'node:http';
import { text } from 'node:stream/consumers';
import test from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { WebSocket } from 'ws';
import { eventually } from '../harness/eventually.ts';
import { startLab } from '../harness/lab-fixture.ts';

const ndjson = { 'content-type': 'application/x-ndjson' };
const events = { accept: 'text/event-stream' };
const endless = '/v1/hello/world/stream?replyCount=100000&replyInterval=0.01s';

function send(
  port: number,
  path: string,
  options: RequestOptions = {},
): { sent: ClientRequest; reply: Promise<IncomingMessage> } {
  const sent = request({ host: '127.0.0.1', port, path, agent: false, ...options });
  return { sent, reply: once(sent, 'response').then(([response]) => response as IncomingMessage) };
}

async function readText(port: number, path: string, options?: RequestOptions, body?: string): Promise<string> {
  const { sent, reply } = send(port, path, options);
  sent.end(body);
  return text(await reply);
}

/** A WebSocket, with the frames that it has received. */
function openWebSocket(port: number, path: string) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`);
  const frames: string[] = [];
  socket.on('message', (data: Buffer) => frames.push(data.toString()));
  const closed = once(socket, 'close').then(([code, reason]) => `${code} ${String(reason)}`.trimEnd());
  return { socket, frames, closed, opened: once(socket, 'open') };
}

test('a stream of replies comes as NDJSON, as events and by WebSocket', async (t) => {
  const { gatewayPort } = await startLab(t, { replicas: 1 });
  const path = '/v1/hello/Ada/stream?replyCount=2';
  assert.equal(
    await readText(gatewayPort(), path),
    '{"result":{"message":"Hello Ada"}}\n{"result":{"message":"Hello Ada"}}\n{"status":{"code":0}}\n',
  );
  assert.equal(
    await readText(gatewayPort(), path, { headers: events }),
    'data: {"message":"Hello Ada"}\n\ndata: {"message":"Hello Ada"}\n\nid: end\nevent: status\ndata: {"code":0}\n\n',
  );
  const { frames, closed } = openWebSocket(gatewayPort(), path);
  assert.equal(await closed, '1000');
  assert.deepEqual(frames, [
    '{"result":{"message":"Hello Ada"}}',
    '{"result":{"message":"Hello Ada"}}',
    '{"status":{"code":0}}',
  ]);
});

test('a stream of requests goes as NDJSON and by WebSocket', async (t) => {
  const { gatewayPort } = await startLab(t, { replicas: 1 });
  const path = '/v1/hello:collect';
  const options = { method: 'POST', headers: ndjson };
  const names = '{"name":"Ada"}\n{"name":"Grace"}\n';
  assert.equal(await readText(gatewayPort(), path, options, names), '{"message":"Hello Ada, Grace"}');
  assert.match(
    await readText(gatewayPort(), path, options, `${names}{"name":"${'x'.repeat(1_025)}"}\n`),
    /^\{"code":3,"message":"name of 1025 bytes must be <= 1024".*BadRequest/,
  );
  const { socket, frames, closed, opened } = openWebSocket(gatewayPort(), path);
  await opened;
  for (const frame of ['{"name":"Ada"}', '{"name":"Grace"}', '']) socket.send(frame);
  assert.equal(await closed, '1000');
  assert.deepEqual(frames, ['{"result":{"message":"Hello Ada, Grace"}}', '{"status":{"code":0}}']);
});

test('a conversation goes by WebSocket, and as NDJSON both ways', async (t) => {
  const { gatewayPort } = await startLab(t, { replicas: 1 });
  const path = '/v1/hello:chat';
  const { socket, frames, closed, opened } = openWebSocket(gatewayPort(), path);
  await opened;
  for (const [index, name] of ['Ada', 'Grace'].entries()) {
    socket.send(JSON.stringify({ name }));
    await eventually('the answer', () => frames[index] === `{"result":{"message":"Hello ${name}"}}`);
  }
  socket.send('');
  assert.equal(await closed, '1000');

  const { sent, reply } = send(gatewayPort(), path, { method: 'POST', headers: ndjson });
  sent.write('{"name":"Ada"}\n');
  const response = await reply;
  const [first] = await once(response, 'data');
  assert.equal(String(first), '{"result":{"message":"Hello Ada"}}\n');
  sent.end('{"name":"Grace"}\n');
  assert.equal(await text(response), '{"result":{"message":"Hello Grace"}}\n{"status":{"code":0}}\n');
});

test('each stream is told to come back when its gateway stops', async (t) => {
  const { gatewayPort, lab } = await startLab(t, { replicas: 1 });
  const upload = send(gatewayPort(), '/v1/hello:collect', { method: 'POST', headers: ndjson });
  upload.sent.write('{"name":"Ada"}\n');
  const line = send(gatewayPort(), endless);
  const event = send(gatewayPort(), endless, { headers: events });
  for (const { sent } of [line, event]) sent.end();
  const bodies = [line, event].map(async ({ reply }) => text(await reply));
  const { frames, closed } = openWebSocket(
    gatewayPort(),
    '/v1/hello/world/stream?replyCount=100000&replyInterval=0.01s',
  );
  await Promise.all([line.reply, event.reply, eventually('a frame', () => frames.length > 0)]);
  const stopped = lab.gateways[0]?.stop(10_000);
  const status =
    '"code":14,"message":"the gateway is shutting down","details":\\[\\{"@type":"[^"]*RetryInfo","retryDelay":"[0-9.]+s"\\}\\]\\}';
  assert.match(await (bodies[0] as Promise<string>), new RegExp(`\\n\\{"status":\\{${status}\\}\\n$`));
  assert.match(
    await (bodies[1] as Promise<string>),
    new RegExp(`\\n\\nretry: \\d+\\nevent: status\\ndata: \\{${status}\\n\\n$`),
  );
  assert.equal(await closed, '1012 UNAVAILABLE: the gateway is shutting down');
  assert.match(frames.at(-1) ?? '', new RegExp(`^\\{"status":\\{${status}\\}$`));
  const refused = await upload.reply;
  assert.equal(refused.statusCode, 503);
  assert.match(await text(refused), new RegExp(`^\\{${status}$`));
  upload.sent.destroy();
  await stopped;
});

test('whoever leaves a stream ends it at the greeter', async (t) => {
  const { gatewayPort, adminPort } = await startLab(t, { replicas: 1 });
  const cancelled = async (method: string) => {
    const metrics = await readText(adminPort('a'), '/metrics');
    const line = new RegExp(`^grpc_server_call_duration_seconds_count\\{.*/${method}".*CANCELLED.*\\} (\\d+)$`, 'm');
    return Number(line.exec(metrics)?.[1] ?? 0);
  };
  const upload = send(gatewayPort(), '/v1/hello:collect', { method: 'POST', headers: ndjson });
  upload.reply.catch(() => {});
  upload.sent.write('{"name":"Ada"}\n');
  const event = send(gatewayPort(), endless, { headers: events });
  event.sent.end();
  await event.reply;
  const chat = openWebSocket(gatewayPort(), '/v1/hello:chat');
  await chat.opened;
  chat.socket.send('{"name":"Ada"}');
  await eventually('an answer', () => chat.frames.length === 1);
  upload.sent.destroy();
  event.sent.destroy();
  chat.socket.close();
  await chat.closed;
  for (const method of ['SayHelloStreamRequest', 'SayHelloStreamReply', 'SayHelloBidiStream']) {
    await eventually(`${method} is cancelled`, async () => (await cancelled(method)) === 1);
  }
});

test('a client that sends and does not read holds itself back, and loses nothing', async (t) => {
  const { lab, gatewayPort, adminPort } = await startLab(t, { replicas: 1 });
  const adminPorts = [lab.gateways[0]?.serving?.adminPort ?? 0, adminPort('a')];
  const residentMb = async () => {
    const metrics = await Promise.all(adminPorts.map((port) => readText(port, '/metrics')));
    return metrics.map((one) => Number(/^process_resident_memory_bytes (\S+)$/m.exec(one)?.[1]) / 2 ** 20);
  };
  const before = await residentMb();
  const { socket, frames, closed, opened } = openWebSocket(gatewayPort(), '/v1/hello:chat');
  await opened;
  socket.pause();
  const total = 40_000;
  const frame = JSON.stringify({ name: 'x'.repeat(1_000) });
  for (let count = 0; count < total; count++) socket.send(frame);
  socket.send('');
  let buffered = -1;
  await eventually('all stands still', async () => {
    const still = socket.bufferedAmount === buffered;
    buffered = socket.bufferedAmount;
    await delay(200);
    return still;
  });
  assert.ok(buffered > 10_000_000, `${buffered} of 40,000,000 bytes wait at the client`);
  const after = await residentMb();
  const grownMb = after.map((mb, index) => Math.round(mb - (before[index] ?? 0)));
  t.diagnostic(
    `${Math.round(buffered / 2 ** 20)} MB wait at the client, gateway and greeter grew by ${grownMb.join(' and ')} MB`,
  );
  for (const mb of grownMb) assert.ok(mb < 60, `grown by ${mb} MB`);
  socket.resume();
  assert.equal(await closed, '1000');
  assert.equal(frames.length, total + 1);
  assert.equal(frames.at(-1), '{"status":{"code":0}}');
});
