import { join } from 'node:path';
import { built } from '../harness/build.ts';
import { withConfig } from '../harness/gateway-config.ts';
import { hello } from '../harness/hello.ts';
import { runHttpLoad } from '../harness/http-load.ts';
import { interleave, measureLoad } from '../harness/measure.ts';
import { startSubject } from '../harness/subject.ts';
import type { Suite } from '../harness/suite.ts';

/** Requests that the cache answers, and equal ones at once that share a call, beside a server that only answers. */
export const cache: Suite = async ({ measures, use, backends, effort }) => {
  const targets = [`ipv4:${(await backends(3)).join(',')}`];
  const program = built('services/gateway/main.ts');
  const cached = (ttl: string) =>
    withConfig({
      upstreams: [{ name: 'greeter', targets }],
      policies: [{ name: [{ service: 'helloworld.Greeter', method: 'SayHello' }], cache: { ttl } }],
    });
  await using hits = cached('1h');
  await using coalesced = cached('1ms');
  await using uncached = withConfig({ upstreams: [{ name: 'greeter', targets }] });
  const subjects = [
    { name: 'cache hit', program, env: hits.env },
    { name: 'coalesced (a lifetime of 1 ms)', program, env: coalesced.env },
    { name: 'no cache', program, env: uncached.env },
    { name: 'HTTP echo', program: join(import.meta.dirname, '../peers/echo.ts') },
  ];
  const started = await Promise.all(subjects.map(async (subject) => use(await startSubject(subject))));
  const load = (port: number, durationMs: number) =>
    runHttpLoad({
      port,
      ...hello,
      connections: 64,
      durationMs,
    });
  for (const { port } of started) await load(port, effort.warmUpMs);
  await interleave(effort.rounds, started, async (subject) => {
    const figures = await measureLoad(subject, effort, (durationMs) => load(subject.port, durationMs));
    measures.add('cache, c = 64', subject.name, figures);
  });
};
