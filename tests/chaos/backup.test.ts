import { setTimeout as delay } from 'node:timers/promises';
import { createEndpointsFile } from '../harness/endpoints-file.ts';
import { eventually } from '../harness/eventually.ts';
import { guarantee } from '../harness/guarantee.ts';
import { createHttpCaller } from '../harness/http-caller.ts';
import { startLab } from '../harness/lab-fixture.ts';
import { startLoad } from '../harness/load.ts';

/** The goal is 1 s. */
const limitMs = 5_000;

guarantee('when all primaries die the backup answers within a second, no idempotent call fails, and traffic returns', {
  on: { backup: true },
  control: { backup: false },
  async scenario({ backup: hasBackup }, t) {
    const backup = await startLab(t, { replicas: 1, gateways: 0, greeterEnv: { POD_NAME: 'backup' } });
    const { lab, addresses } = await startLab(t, { replicas: 3, gateways: 0 });
    // Whoever keeps the list does not notice the crash.
    const primaries = await createEndpointsFile(addresses());
    t.after(() => primaries[Symbol.asyncDispose]());
    const target = hasBackup ? `${primaries.target} ${backup.lab.target}` : primaries.target;
    const gateway = await startLab(t, { replicas: 0, gatewayEnv: { TARGET: target } });
    const caller = gateway.use(createHttpCaller([gateway.gatewayPort()]));

    /** When each replica answered last. */
    const answeredMs = new Map<string | undefined, number>();
    const load = startLoad(
      async () => {
        const outcome = await caller.get('/v1/hello/world');
        answeredMs.set(outcome.servedBy, performance.now());
        return outcome;
      },
      { callsPerS: 100 },
    );
    await eventually('the primaries answer', () => answeredMs.size === 3);
    await delay(1_000);
    const goneMs = performance.now();
    await Promise.all(lab.replicas.map((replica) => replica.stop()));
    const backupAnswers = eventually('the backup answers', () => answeredMs.get('backup'), { timeoutMs: limitMs });
    const backupMs = (await backupAnswers.catch(() => Number.POSITIVE_INFINITY)) - goneMs;
    await delay(1_000);

    await Promise.all(lab.replicas.map((replica) => replica.start()));
    await primaries.write(addresses());
    const backMs = performance.now();
    const names = lab.replicas.map(({ name }) => name);
    await eventually('the primaries answer again', () => names.every((name) => (answeredMs.get(name) ?? 0) > backMs), {
      timeoutMs: 30_000,
    });
    const primariesMs = performance.now() - backMs;
    await delay(500);
    const ledger = await load.stop();
    return { ...ledger, figures: { backupAfterMs: backupMs, primariesAgainAfterMs: primariesMs } };
  },
  valid: ({ sent, ok }) => sent >= 300 && ok >= 100,
  holds: ({ failed, figures }) => failed === 0 && figures.backupAfterMs <= limitMs,
});
