import { built } from '../harness/build.ts';
import { onLoopback } from '../harness/gateway-config.ts';
import { hello } from '../harness/hello.ts';
import { runHttpLoad } from '../harness/http-load.ts';
import { interleave, measureLoad } from '../harness/measure.ts';
import { startSubject } from '../harness/subject.ts';
import type { Suite } from '../harness/suite.ts';

/** The same load over more and more replicas, each with its connection and its health watched. */
export const endpoints: Suite = async ({ measures, use, backends, effort }) => {
  const subjects = [];
  for (const replicas of [3, 50, 200]) {
    const TARGET = `ipv4:${(await backends(replicas)).join(',')}`;
    const program = built('services/gateway/main.ts');
    const name = `${replicas} endpoints`;
    subjects.push(use(await startSubject({ name, program, env: { ...onLoopback, TARGET } })));
  }
  const load = (port: number, durationMs: number) =>
    runHttpLoad({
      port,
      ...hello,
      connections: 64,
      durationMs,
    });
  for (const { port } of subjects) await load(port, effort.warmUpMs);
  await interleave(effort.rounds, subjects, async (subject) => {
    const figures = await measureLoad(subject, effort, (durationMs) => load(subject.port, durationMs));
    const { rssBytes } = await subject.usage();
    measures.add('endpoints, c = 64', subject.name, { ...figures, 'RSS MB': rssBytes / 1e6 });
  });
};
