import type { TestContext } from 'node:test';
import { projectFile } from '../harness/command.ts';
import { eventually } from '../harness/eventually.ts';
import { images } from './images.ts';
import { getObject, helm, kubectl } from './kubectl.ts';
import { type LoadPod, startLoadPod } from './load-pod.ts';
import type { LoadRequest } from './load-server.ts';
import { createNamespace } from './namespace.ts';

export type Values = Readonly<Record<string, unknown>>;
export type Program = 'greeter' | 'gateway';

export interface Pod {
  readonly metadata: { readonly name: string; readonly uid: string; readonly deletionTimestamp?: string };
  readonly spec: { readonly nodeName: string };
  readonly status: {
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
    readonly containerStatuses?: readonly { readonly restartCount: number }[];
  };
}

/** Releases of both charts, and a pod that sends loads, in a namespace of their own. */
export interface Pair {
  readonly namespace: string;
  readonly load: LoadPod;
  /** What a load through the gateway's Service is sent to. */
  readonly http: (
    paths: readonly string[],
    headers?: Readonly<Record<string, string>>,
  ) => Extract<LoadRequest, { http: unknown }>['http'];
  /** `helm upgrade --install`, waiting for the pods unless told otherwise. */
  upgrade(release: string, program: Program, values?: Values, options?: { readonly wait?: boolean }): Promise<void>;
  /** `kubectl` in this namespace. */
  kubectl(...args: readonly string[]): Promise<string>;
  /** `helm test` of the gateway: what it printed. */
  test(): Promise<string>;
  /** The pods of a release that are not being deleted, by name. */
  pods(release: string): Promise<readonly Pod[]>;
  /** Asks the API server to evict a pod, as the drain of a node does. Throws with what it says if that may not be. */
  evict(pod: string): Promise<void>;
  /** Waits until a rollout is complete and its old pods are gone. */
  settled(release: string): Promise<void>;
}

export const unary = '/v1/hello/world';
/** Of the calls over gateways that stop, how many may meet an idle connection that is just being closed. */
export const maxResentShare = 1 / 1_000;
/** About 60 ms long, so that each replica has some in flight at any moment. */
export const shortStream = '/v1/hello/world/stream?replyCount=4&replyInterval=0.02s';

/** On a machine that is busy with the start of pods a call may take longer than the 2 s that it has by default. */
const patient = { 'grpc-timeout': '8S' };

/** A fixed limit of calls in flight: a machine that is busy with the start of pods is no overload of the greeters. */
const concurrency = { min: 1_000, max: 1_000 };
/** What the gateway is told, `upstream` beside what every test has. */
export const gatewayConfig = (upstream: Values = {}) => ({
  upstreams: [{ name: 'greeter', targets: ['kubernetes:///greeter:grpc'], concurrency, ...upstream }],
});
const ownValues: Readonly<Record<Program, Values>> = {
  // A node of two cores has room for all.
  greeter: { resources: { requests: { cpu: '20m' } } },
  gateway: { resources: { requests: { cpu: '20m' } }, config: gatewayConfig() },
};
const rolloutTimeoutS = 120;

/** Installs both charts with these values beside those of all tests, and waits until all is ready. */
export async function installPair(
  t: TestContext,
  name: string,
  values: { readonly greeter?: Values; readonly gateway?: Values } = {},
  charts: Readonly<Record<Program, string>> = {
    greeter: projectFile('helm/greeter'),
    gateway: projectFile('helm/gateway'),
  },
): Promise<Pair> {
  const namespace = await createNamespace(t, name);
  const inNamespace = (...args: readonly string[]) =>
    kubectl(['-n', namespace, ...args], { timeoutMs: (rolloutTimeoutS + 10) * 1_000 });

  const pods = async (release: string) => {
    const { items } = await getObject<{ readonly items: readonly Pod[] }>([
      '-n',
      namespace,
      'pods',
      '-l',
      `app.kubernetes.io/instance=${release}`,
      '--sort-by=.metadata.name',
    ]);
    return items.filter(({ metadata }) => metadata.deletionTimestamp === undefined);
  };
  const rolledOut = (release: string) =>
    inNamespace('rollout', 'status', `deployment/${release}`, `--timeout=${rolloutTimeoutS}s`);
  const installChart = async (chart: string, release: string, program: Program, values: Values = {}) => {
    await helm(['upgrade', '--install', release, chart, '-n', namespace, '-f', '-'], {
      input: JSON.stringify({ image: images[program], ...ownValues[program], ...values }),
    });
  };
  const install = async (program: Program) => {
    await installChart(charts[program], program, program, values[program]);
    await rolledOut(program);
  };

  const [load] = await Promise.all([startLoadPod(t, namespace), install('greeter'), install('gateway')]);
  // Not its name, which each new connection would ask for.
  const { spec } = await getObject<{ readonly spec: { readonly clusterIP: string } }>([
    '-n',
    namespace,
    'service',
    'gateway',
  ]);
  return {
    namespace,
    load,
    http: (paths, headers = patient) => ({ host: spec.clusterIP, port: 8080, paths, headers }),
    async upgrade(release, program, values, { wait = true } = {}) {
      await installChart(projectFile(`helm/${program}`), release, program, values);
      if (wait) await rolledOut(release);
    },
    kubectl: inNamespace,
    test: () => helm(['test', 'gateway', '-n', namespace, '--timeout=120s'], { timeoutMs: 130_000 }),
    pods,
    async evict(name) {
      const eviction = { apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name, namespace } };
      await kubectl(['create', '--raw', `/api/v1/namespaces/${namespace}/pods/${name}/eviction`, '-f', '-'], {
        input: JSON.stringify(eviction),
      });
    },
    async settled(release) {
      await rolledOut(release);
      const selector = ['-l', `app.kubernetes.io/instance=${release}`];
      await eventually(
        `the old pods of ${release} are gone`,
        async () => {
          const names = (await inNamespace('get', 'pods', ...selector, '-o', 'name')).split('\n').filter(Boolean);
          return names.length === (await pods(release)).length;
        },
        { timeoutMs: 60_000 },
      );
    },
  };
}
