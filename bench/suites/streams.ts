import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { built } from '../harness/build.ts';
import { onLoopback } from '../harness/gateway-config.ts';
import { startGreeters } from '../harness/replicas.ts';
import { startSubject, type Subject } from '../harness/subject.ts';
import type { Suite } from '../harness/suite.ts';

const messages = 30_000;
const openStreams = 1_000;
const idleForLong = 'reply_count=10&reply_interval=10s';

/** Server streams through the gateway: how many messages a second of its CPU brings, and what idle ones take. */
export const streams: Suite = async ({ measures, use, backends, effort }) => {
  const TARGET = `ipv4:${(await backends(3)).join(',')}`;
  const program = built('services/gateway/main.ts');
  const gateway = use(await startSubject({ name: 'gateway', program, env: { ...onLoopback, TARGET } }));
  for (const [name, accept] of [
    ['NDJSON', 'application/x-ndjson'],
    ['Server-Sent Events', 'text/event-stream'],
  ] as const) {
    for (let round = -1; round < effort.rounds; round++) {
      const before = await gateway.usage();
      await readStreams(gateway, accept, 4);
      const after = await gateway.usage();
      if (round < 0) continue; // The first one warms up.
      const cpuS = (after.cpuUs - before.cpuUs) / 1e6;
      measures.add('streams', `${name}, 4 at a time`, { 'messages per CPU s': (4 * messages) / cpuS });
    }
  }

  const [replica] = await startGreeters({ use }, 1);
  const env = { ...onLoopback, TARGET: `ipv4:${replica?.address}` };
  const idle = use(await startSubject({ name: 'gateway', program, env }));
  // No load before: what it leaves free would hide what streams take.
  const sockets = [await openStream(idle, idleForLong)];
  await delay(2_000);
  const before = await idle.usage();
  for (let i = 0; i < openStreams; i++) sockets.push(await openStream(idle, idleForLong));
  await delay(1_000);
  const after = await idle.usage();
  for (const socket of sockets) socket.destroy();
  measures.add('streams', `${openStreams.toLocaleString('en')} open and idle`, {
    'RSS kB a stream': (after.rssBytes - before.rssBytes) / 1e3 / openStreams,
  });
};

/** Reads so many whole streams at once. */
async function readStreams(gateway: Subject, accept: string, count: number): Promise<void> {
  await Promise.all(
    Array.from({ length: count }, async () => {
      const response = await fetch(`http://127.0.0.1:${gateway.port}/v1/hello/world/stream?reply_count=${messages}`, {
        headers: { accept, connection: 'close' },
      });
      let received = 0;
      let tail = '';
      for await (const chunk of response.body ?? []) {
        const text = tail + Buffer.from(chunk).toString('latin1');
        received += text.split('Hello world').length - 1;
        tail = text.slice(text.lastIndexOf('\n') + 1);
      }
      if (received !== messages) throw new Error(`${received} of ${messages} messages came`);
    }),
  );
}

/** Asks for a stream, and waits for its first message. */
async function openStream({ port }: Subject, query: string): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1' });
  socket.write(`GET /v1/hello/world/stream?${query} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n`);
  let text = '';
  for (socket.setEncoding('latin1'); !text.includes('Hello world'); ) text += String((await once(socket, 'data'))[0]);
  socket.resume();
  return socket;
}
