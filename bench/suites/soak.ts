import { setTimeout as delay } from 'node:timers/promises';
import { built } from '../harness/build.ts';
import { onLoopback } from '../harness/gateway-config.ts';
import { hello } from '../harness/hello.ts';
import { runHttpLoad } from '../harness/http-load.ts';
import { startSubject } from '../harness/subject.ts';
import type { Suite } from '../harness/suite.ts';

/** How long a process has to settle before its memory is read. */
const settleMs = 3_000;
const soakRequests = 1_000_000;

/** What the gateway takes in memory after a million requests. */
export const soak: Suite = async ({ measures, use, backends }) => {
  const TARGET = `ipv4:${(await backends(3)).join(',')}`;
  const program = built('services/gateway/main.ts');
  const gateway = use(await startSubject({ name: 'gateway', program, env: { ...onLoopback, TARGET } }));
  let sent = 0;
  for (const goal of [10_000, 100_000, soakRequests]) {
    while (sent < goal) {
      const { ok, wrong } = await runHttpLoad({
        port: gateway.port,
        ...hello,
        connections: 64,
        durationMs: 2_000,
      });
      if (wrong.size > 0) throw new Error(`soak: ${[...wrong].join(', ')}`);
      sent += ok;
    }
    await delay(settleMs);
    const { rssBytes } = await gateway.usage();
    measures.add('memory of the gateway', `after ${goal.toLocaleString('en')} requests`, { 'RSS MB': rssBytes / 1e6 });
  }
};
