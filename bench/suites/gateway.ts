import { join } from 'node:path';
import { built } from '../harness/build.ts';
import { hello } from '../harness/hello.ts';
import { runHttpLoad } from '../harness/http-load.ts';
import { interleave, measureLoad } from '../harness/measure.ts';
import { startSubject } from '../harness/subject.ts';
import type { Suite } from '../harness/suite.ts';

const peer = (name: string) => join(import.meta.dirname, '../peers', name);

/** Unary GET over three replicas: we, everything on and bare, beside what else one would put there. */
export const gateway: Suite = async ({ measures, use, backends, effort, goGateway }) => {
  const addresses = await backends(3);
  const env = { BACKENDS: addresses.join(',') };
  const ours = { TARGET: `ipv4:${addresses.join(',')}`, HOST: '127.0.0.1', PORT: '0', ADMIN_PORT: '0' };
  const subjects = [
    { name: 'tandem', program: built('services/gateway/main.ts'), env: ours },
    { name: 'tandem, bare', program: built('bench/subjects/gateway.ts'), env: ours },
    { name: 'by hand, naive', program: peer('by-hand-naive.ts'), env },
    { name: 'by hand, tuned', program: peer('by-hand-tuned.ts'), env },
    { name: 'NestJS', program: peer('nest.ts'), env },
    { name: 'Fastify + connect-node', program: peer('connect.ts'), env },
    { name: 'pass-through', program: peer('pass-through.ts'), env },
    { name: 'HTTP echo', program: peer('echo.ts'), env },
    ...(goGateway === undefined ? [] : [{ name: 'Go grpc-gateway', program: goGateway, env }]),
  ];
  const started = await Promise.all(subjects.map(async (subject) => use(await startSubject(subject))));
  const load = (port: number, connections: number, durationMs: number) =>
    runHttpLoad({
      port,
      ...hello,
      connections,
      durationMs,
    });
  for (const { port } of started) await load(port, 64, effort.warmUpMs);
  for (const connections of [64, 1]) {
    await interleave(effort.rounds, started, async (subject) => {
      const figures = await measureLoad(subject, effort, (durationMs) => load(subject.port, connections, durationMs));
      measures.add(`gateway, c = ${connections}`, subject.name, figures);
    });
  }
};
