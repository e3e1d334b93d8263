import assert from 'node:assert/strict';
import { test } from 'node:test';
import { projectFile } from '../harness/command.ts';
import { eventually } from '../harness/eventually.ts';
import { hasCluster, kubectl } from './kubectl.ts';
import { installPair } from './pair.ts';

interface Reply {
  readonly data: {
    readonly activeTargets?: readonly { readonly labels: { readonly job: string }; readonly health: string }[];
    readonly groups?: readonly { readonly rules: readonly { readonly name: string; readonly health: string }[] }[];
  };
}

test('Prometheus in the cluster scrapes both and evaluates the rules', async (t) => {
  if (!(await hasCluster())) return t.skip('kubectl reaches no cluster');
  const pair = await installPair(t, 'observe', { greeter: { replicas: 2 }, gateway: { replicas: 1 } });
  await pair.kubectl('apply', '-k', projectFile('deploy/observability'));
  await pair.kubectl('rollout', 'status', 'deployment/prometheus', '--timeout=120s');
  const ask = async (path: string): Promise<Reply['data']> => {
    const base = `/api/v1/namespaces/${pair.namespace}/services/prometheus:http/proxy/api/v1`;
    return (JSON.parse(await kubectl(['get', '--raw', `${base}/${path}`])) as Reply).data;
  };
  let state = '';
  await eventually(
    () => `all pods are scraped and all rules evaluated: ${state}`,
    async () => {
      const { activeTargets = [] } = await ask('targets?state=active');
      const rules = ((await ask('rules')).groups ?? []).flatMap(({ rules }) => rules);
      const up = activeTargets.map(({ labels: { job }, health }) => `${job} ${health}`).toSorted();
      const bad = rules.filter(({ health }) => health !== 'ok').map(({ name }) => name);
      state = JSON.stringify({ up, bad });
      return state === '{"up":["gateway up","greeter up","greeter up"],"bad":[]}' && rules.length > 30;
    },
    { timeoutMs: 90_000 },
  );
  const dashboards = await pair.kubectl(
    'get',
    'configmaps',
    '-l',
    'grafana_dashboard',
    '-o',
    'jsonpath={.items[*].data}',
  );
  assert.deepEqual(Object.keys(JSON.parse(dashboards) as object).toSorted(), [
    'channel.json',
    'gateway.json',
    'runtime.json',
    'service.json',
  ]);
});
