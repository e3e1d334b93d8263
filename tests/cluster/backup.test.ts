import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../harness/eventually.ts';
import { guarantee } from '../harness/guarantee.ts';
import { skipWithoutCluster } from './cluster.ts';
import { installPair, unary } from './pair.ts';

/** The goal is 1 s. */
const limitMs = 5_000;

guarantee('when all greeters are gone the backup release answers, no idempotent call fails, and traffic returns', {
  skip: await skipWithoutCluster(),
  on: { backup: 'greeter-backup' },
  control: { backup: '' },
  async scenario({ backup }, t) {
    const pair = await installPair(t, 'backup', { gateway: { backup } });
    await pair.upgrade('greeter-backup', 'greeter', { replicas: 1 });
    const load = await pair.load.start({ callsPerS: 50, maxMs: 180_000, http: pair.http([unary]) });
    const lastOf = async (release: string) => {
      const { replicas } = await load.progress();
      const isBackup = (name: string) => name.startsWith('greeter-backup-');
      const found = Object.entries(replicas).filter(([name]) => isBackup(name) === (release === 'greeter-backup'));
      return {
        firstMs: Math.min(...found.map(([, { firstMs }]) => firstMs)),
        lastMs: Math.max(...found.map(([, { lastMs }]) => lastMs)),
      };
    };
    await eventually('the primaries answer', async () => Number.isFinite((await lastOf('greeter')).lastMs));

    await pair.kubectl('scale', 'deployment/greeter', '--replicas=0');
    await pair.settled('greeter');
    await delay(2_000);
    const { lastMs } = await lastOf('greeter');
    const { firstMs } = await lastOf('greeter-backup');

    await pair.kubectl('scale', 'deployment/greeter', '--replicas=3');
    await pair.settled('greeter');
    const backMs = Date.now();
    await eventually('the primaries answer again', async () => (await lastOf('greeter')).lastMs > backMs, {
      timeoutMs: 60_000,
    });
    const primariesAgainAfterMs = Date.now() - backMs;
    const ledger = await load.stop();
    // Before the last answer of a primary, where they overlap.
    return {
      ...ledger,
      figures: { backupAfterMs: Math.max(0, firstMs - lastMs), primariesAgainAfterMs },
    };
  },
  valid: ({ sent, ok }) => sent >= 300 && ok >= 100,
  holds: ({ failed, figures }) => failed === 0 && figures.backupAfterMs <= limitMs,
});
