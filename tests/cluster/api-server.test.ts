import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { run } from '../harness/command.ts';
import { eventually } from '../harness/eventually.ts';
import { formatLedger } from '../harness/ledger.ts';
import { skipWithoutCluster } from './cluster.ts';
import { getObject, hasCluster } from './kubectl.ts';
import { startNodeAgent } from './node-agent.ts';
import { installPair, type Pod, unary } from './pair.ts';

/** The command that starts the API server again. */
const { CLUSTER_UP = '', KUBECONFIG = '' } = process.env;
const apiServer = { command: 'kube-apiserver' };
const stoppedMs = 30_000;
const frozenMs = 100_000;
/** A goal of 10 s: the resolver asks again every 5 s, and takes 5 s to give up what says nothing. */
const caughtUpLimitMs = 50_000;

const skip = await skipWithoutCluster();

test('traffic flows on without the API server, and new pods are found when it is back', { skip }, async (t) => {
  const pair = await installPair(t, 'api');
  const { items: nodes } = await getObject<{
    readonly items: readonly { readonly metadata: { readonly name: string } }[];
  }>(['nodes', '-l', 'node-role.kubernetes.io/control-plane']);
  const [controlPlane] = nodes;
  const agent = controlPlane && (await startNodeAgent(t, controlPlane.metadata.name));
  const reachable = agent !== undefined && (await agent.signal(apiServer, 'SIGCONT')) === 1;
  const skipUnless = (possible: boolean, why: string) => {
    if (!possible && process.env.CI) throw new Error(why);
    return possible ? false : why;
  };

  const outages = [
    {
      name: `the API server is stopped for ${stoppedMs / 1_000} s`,
      skip: skipUnless(
        reachable && CLUSTER_UP !== '',
        'CLUSTER_UP must be the command that starts the API server again, and its process must be on a node',
      ),
      async outage() {
        await agent?.signal(apiServer, 'SIGTERM');
        try {
          await delay(stoppedMs);
          assert.equal(await hasAnswer(), false, 'it did not answer');
        } finally {
          const { code, stderr } = await run('sh', ['-c', CLUSTER_UP], { env: { KUBECONFIG }, timeoutMs: 120_000 });
          assert.equal(code, 0, stderr);
        }
      },
    },
    {
      name: `the API server is frozen for ${frozenMs / 1_000} s`,
      skip: skipUnless(reachable, 'the process of the API server must be on a node of the cluster'),
      async outage() {
        assert.equal(await agent?.freeze(apiServer, frozenMs), 1);
        await delay(frozenMs / 2);
        assert.equal(await hasAnswer(), false, 'it did not answer');
        await delay(frozenMs / 2 + 1_000);
      },
    },
  ];
  for (const { name, skip, outage } of outages) {
    await t.test(name, { skip }, async (t) => {
      const load = await pair.load.start({ callsPerS: 50, maxMs: 300_000, http: pair.http([unary]) });
      await delay(2_000);
      await outage();
      await eventually('the API server answers', hasAnswer, { timeoutMs: 60_000 });
      // What an API server that comes back makes of nodes and pods that it has not heard of.
      await delay(5_000);
      const { replicas: before } = await load.progress();
      const isFresh = (pod: Pod) => isReady(pod) && before[pod.metadata.name] === undefined;
      const [victim] = await pair.pods('greeter');
      await pair.kubectl('delete', 'pod', victim?.metadata.name ?? '');
      const replacement = await eventually(
        'its replacement is ready',
        async () => (await pair.pods('greeter')).find(isFresh),
        { timeoutMs: 60_000 },
      );
      const readyMs = Date.now();
      await eventually('it gets calls', async () => (await load.progress()).replicas[replacement.metadata.name], {
        timeoutMs: caughtUpLimitMs,
      });
      const caughtUpMs = Date.now() - readyMs;
      const ledger = await load.stop();
      t.diagnostic(`${t.name}: ${formatLedger({ ...ledger, figures: { caughtUpMs } })}`);
      assert.ok(ledger.sent >= (stoppedMs / 1_000) * 50 * 0.8, 'the account says nothing');
      assert.equal(ledger.failed, 0);
    });
  }
});

async function hasAnswer(): Promise<boolean> {
  return hasCluster().catch(() => false);
}

function isReady({ status }: Pod): boolean {
  return status.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false;
}
