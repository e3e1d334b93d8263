import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { run } from '../harness/command.ts';
import { eventually } from '../harness/eventually.ts';
import { formatLedger } from '../harness/ledger.ts';
import { skipWithoutCluster } from './cluster.ts';
import { getObject, hasCluster, kubectl } from './kubectl.ts';
import { startNodeAgent } from './node-agent.ts';
import { installPair, type Pair, unary } from './pair.ts';

/** The command that starts the API server again. */
const { CLUSTER_UP = '', KUBECONFIG = '' } = process.env;
const apiServer = { command: 'kube-apiserver' };
const stoppedMs = 30_000;
const frozenMs = 100_000;
/**
 * How long the cluster itself may take to tell of a pod: a controller whose watch was opened while the API server began may
 * hear nothing by it, and opens it anew after five to ten minutes.
 */
const clusterLimitMs = 660_000;
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
      lastsMs: stoppedMs,
      skip: skipUnless(
        reachable && CLUSTER_UP !== '',
        'CLUSTER_UP must be the command that starts the API server again, and its process must be on a node',
      ),
      async outage() {
        // It would take a minute to say goodbye to its clients otherwise.
        await agent?.signal(apiServer, 'SIGKILL').catch(() => {});
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
      lastsMs: frozenMs,
      skip: skipUnless(reachable, 'the process of the API server must be on a node of the cluster'),
      async outage() {
        assert.equal(await agent?.freeze(apiServer, frozenMs), 1);
        await delay(frozenMs / 2);
        assert.equal(await hasAnswer(), false, 'it did not answer');
        await delay(frozenMs / 2 + 1_000);
      },
    },
  ];
  for (const { name, lastsMs, skip, outage } of outages) {
    await t.test(name, { skip }, async (t) => {
      // Straight to a gateway: once an API server that was silent for so long is back, the cluster calls all pods of the node
      // not ready for a while, and kube-proxy takes them out of every Service.
      const http = { ...pair.http([unary]), host: await gatewayAddress(pair) };
      const load = await pair.load.start({ callsPerS: 50, maxMs: 1_500_000, http });
      const throughService = await pair.load.start({ callsPerS: 50, maxMs: lastsMs, http: pair.http([unary]) });
      await delay(2_000);
      await outage();
      await eventually('the API server answers', hasAnswer, { timeoutMs: 60_000 });
      // What an API server that comes back makes of nodes and pods that it has not heard of.
      await delay(5_000);
      await eventually('all are ready', async () => (await readyPods(pair.namespace)).length === 3, {
        timeoutMs: clusterLimitMs,
      });
      const [victim] = await pair.pods('greeter');
      const old = new Set((await pair.pods('greeter')).map(({ metadata }) => metadata.name));
      await pair.kubectl('delete', 'pod', victim?.metadata.name ?? '');
      const replacement = await eventually(
        'the EndpointSlice has its replacement',
        async () => (await readyPods(pair.namespace)).find((name) => !old.has(name)),
        { timeoutMs: clusterLimitMs },
      );
      const readyMs = Date.now();
      await eventually('it gets calls', async () => (await load.progress()).replicas[replacement], {
        timeoutMs: caughtUpLimitMs,
      });
      const caughtUpMs = Date.now() - readyMs;
      const ledger = await load.stop();
      t.diagnostic(`${t.name}: ${formatLedger({ ...ledger, figures: { caughtUpMs } })}`);
      assert.ok(ledger.sent >= (lastsMs / 1_000) * 50 * 0.8, 'the account says nothing');
      assert.equal(ledger.failed, 0);
      const serviceLedger = await throughService.stop();
      t.diagnostic(`${t.name}, through the Service until then: ${formatLedger(serviceLedger)}`);
      assert.ok(serviceLedger.sent >= (lastsMs / 1_000) * 50 * 0.8, 'the account says nothing');
      assert.equal(serviceLedger.failed, 0);
    });
  }
});

async function hasAnswer(): Promise<boolean> {
  return hasCluster().catch(() => false);
}

async function gatewayAddress({ namespace }: Pair): Promise<string> {
  const selector = ['-l', 'app.kubernetes.io/instance=gateway'];
  return kubectl(['-n', namespace, 'get', 'pods', ...selector, '-o', 'jsonpath={.items[0].status.podIP}']);
}

/** The pods of the greeter that its EndpointSlices call ready. */
async function readyPods(namespace: string): Promise<readonly string[]> {
  const columns = '{range .items[*].endpoints[?(@.conditions.ready==true)]}{.targetRef.name}{"\\n"}{end}';
  const selector = ['-l', 'kubernetes.io/service-name=greeter'];
  const text = await kubectl(['-n', namespace, 'get', 'endpointslices', ...selector, '-o', `jsonpath=${columns}`]);
  return text.split('\n').filter(Boolean);
}
