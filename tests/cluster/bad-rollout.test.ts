import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../harness/eventually.ts';
import { formatLedger } from '../harness/ledger.ts';
import { skipWithoutCluster } from './cluster.ts';
import { images } from './images.ts';
import { helm } from './kubectl.ts';
import { gatewayConfig, installPair, type Program, unary, type Values } from './pair.ts';

/** For how long the old pods are watched beside a new one that does not come up. */
const watchedMs = 6_000;

interface Waiting {
  readonly name: string;
  /** Why the container waits or has ended. */
  readonly reason: string;
}

const cases: readonly { what: string; program: Program; values: Values; reason: RegExp; log?: RegExp }[] = [
  {
    what: 'an image that does not exist',
    program: 'greeter',
    values: { image: { ...images.greeter, tag: 'no-such-tag' } },
    reason: /ErrImagePull|ImagePullBackOff/,
  },
  {
    what: 'a variable that does not parse',
    program: 'greeter',
    values: { extraEnv: [{ name: 'MAX_CONNECTION_AGE', value: 'old' }] },
    reason: /Error|CrashLoopBackOff/,
    log: /MAX_CONNECTION_AGE "old" must be a duration/,
  },
  {
    what: 'a file with what no schema can know',
    program: 'gateway',
    values: {
      config: gatewayConfig({ services: ['helloworld.Gretter'] }),
    },
    reason: /Error|CrashLoopBackOff/,
    log: /upstreams\[0\]\.services\[0\] "helloworld\.Gretter" must be a service of the descriptors/,
  },
];

test('a rollout that cannot work stops, and the old pods serve on', { skip: await skipWithoutCluster() }, async (t) => {
  const pair = await installPair(t, 'bad');
  for (const { what, program, values, reason, log } of cases) {
    await t.test(`${what}, of the ${program}`, async (t) => {
      const old = (await pair.pods(program)).map(({ metadata }) => metadata.name);
      const load = await pair.load.start({ callsPerS: 100, maxMs: 120_000, http: pair.http([unary]) });
      await pair.upgrade(program, program, values, { wait: false });
      const waiting = await eventually(
        'the new pod says why it waits',
        async () => (await waitingPods(pair.kubectl, program)).find((pod) => reason.test(pod.reason)),
        { timeoutMs: 60_000 },
      );
      await delay(watchedMs);
      if (log !== undefined) assert.match(await logOf(pair.kubectl, waiting.name), log);
      const stillThere = (await pair.pods(program)).map(({ metadata }) => metadata.name);
      assert.deepEqual(
        stillThere.filter((name) => name !== waiting.name),
        old,
        'the old pods are all there',
      );
      await helm(['rollback', program, '-n', pair.namespace]);
      await pair.settled(program);
      const ledger = await load.stop();
      t.diagnostic(`${t.name}: ${waiting.reason}; ${formatLedger(ledger)}`);
      assert.ok(ledger.sent >= 300, 'the account says nothing');
      assert.equal(ledger.failed, 0);
      assert.deepEqual(
        (await pair.pods(program)).map(({ metadata }) => metadata.name),
        old,
        'the rollback needed no new pod',
      );
    });
  }
  await t.test('what the chart itself can tell never gets so far', async () => {
    const upgraded = pair.upgrade('gateway', 'gateway', { config: { upstreams: [{ name: 'greeter', target: 'x' }] } });
    await assert.rejects(upgraded, /values don't meet the specifications of the schema[\s\S]*upstreams/);
  });
});

async function waitingPods(
  kubectl: (...args: readonly string[]) => Promise<string>,
  program: Program,
): Promise<Waiting[]> {
  const state = '{.status.containerStatuses[0].state';
  const columns = `{range .items[*]}{.metadata.name} ${state}.waiting.reason}${state}.terminated.reason}{"\\n"}{end}`;
  const text = await kubectl('get', 'pods', '-l', `app.kubernetes.io/instance=${program}`, '-o', `jsonpath=${columns}`);
  return text.split('\n').flatMap((line) => {
    const [name = '', reason = ''] = line.split(' ');
    return reason === '' ? [] : [{ name, reason }];
  });
}

/** That of the container's last run, or of this one. */
async function logOf(kubectl: (...args: readonly string[]) => Promise<string>, pod: string): Promise<string> {
  return kubectl('logs', pod, '--previous').catch(() => kubectl('logs', pod));
}
