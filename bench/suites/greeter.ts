import { join } from 'node:path';
import { built } from '../harness/build.ts';
import { frames, runGrpcLoad, text } from '../harness/grpc-load.ts';
import { interleave, measureLoad } from '../harness/measure.ts';
import { startSubject } from '../harness/subject.ts';
import type { Suite } from '../harness/suite.ts';

const peer = (name: string) => join(import.meta.dirname, '../peers', name);
const messages = 100;
const shapes = [
  {
    table: 'greeter, unary, 64 calls at a time',
    path: '/helloworld.Greeter/SayHello',
    request: frames(text('world')),
    reply: frames(text('Hello world')),
    inFlight: 64,
  },
  {
    table: `greeter, streams of ${messages} messages, 16 at a time`,
    path: '/helloworld.Greeter/SayHelloStreamReply',
    // `int32 reply_count = 2`
    request: frames(Buffer.concat([text('world'), Buffer.from([0x10, messages])])),
    reply: frames(...Array.from({ length: messages }, () => text('Hello world'))),
    inFlight: 16,
  },
];

/** Our greeter, with its health, reflection, metrics, logs and deadlines, beside what has nothing but the calls. */
export const greeter: Suite = async ({ measures, use, effort }) => {
  const ours = { HOST: '127.0.0.1', PORT: '0', ADMIN_PORT: '0', DRAIN_DELAY: '0s' };
  const subjects = [
    { name: 'tandem', program: built('services/greeter/main.ts'), env: ours },
    { name: 'grpc-js by hand', program: peer('greeter-by-hand.ts') },
    { name: 'node:http2 by hand', program: peer('greeter-raw.ts') },
  ];
  const started = await Promise.all(subjects.map(async (subject) => use(await startSubject(subject))));
  for (const { table, ...shape } of shapes) {
    for (const { port } of started) await runGrpcLoad({ ...shape, port, durationMs: effort.warmUpMs });
    await interleave(effort.rounds, started, async (subject) => {
      const { port } = subject;
      const figures = await measureLoad(subject, effort, (durationMs) => runGrpcLoad({ ...shape, port, durationMs }));
      measures.add(table, subject.name, figures);
    });
  }
};
