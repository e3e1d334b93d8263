import { readFile } from 'node:fs/promises';
import type { TestContext } from 'node:test';
import { projectFile } from '../harness/command.ts';
import type { Ledger } from '../harness/ledger.ts';
import { images } from './images.ts';
import { kubectl } from './kubectl.ts';
import type { LoadProgress, LoadReport, LoadRequest } from './load-server.ts';

/** A load that a pod sends. */
export interface PodLoad {
  progress(): Promise<LoadProgress>;
  /** Ends it. What failed first is printed. */
  stop(): Promise<Ledger>;
}

export interface LoadPod {
  start(request: LoadRequest): Promise<PodLoad>;
}

const pod = 'load';
/** What of this folder and of the harness runs in the pod, beside what its image has. */
const sources = [
  'tests/cluster/load-server.ts',
  ...['command', 'eventually', 'greeter-client', 'http-caller', 'ledger', 'load'].map(
    (name) => `tests/harness/${name}.ts`,
  ),
];

/**
 * Starts a pod that sends loads from inside the cluster. It runs the sources of this tree over the image for development,
 * and is spoken to through the API server: nothing of the cluster has to be reachable from here.
 */
export async function startLoadPod(t: TestContext, namespace: string): Promise<LoadPod> {
  const data = await Promise.all(
    sources.map(async (path) => [keyOf(path), await readFile(projectFile(path), 'utf8')] as const),
  );
  await kubectl(['-n', namespace, 'create', '-f', '-'], {
    input: JSON.stringify({
      apiVersion: 'v1',
      kind: 'List',
      items: [
        { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: pod }, data: Object.fromEntries(data) },
        manifest(),
      ],
    }),
  });
  await kubectl(['-n', namespace, 'wait', `pod/${pod}`, '--for=condition=Ready', '--timeout=60s'], {
    timeoutMs: 70_000,
  });
  let loads = 0;
  return {
    async start(request) {
      const path = `/api/v1/namespaces/${namespace}/pods/${pod}:7000/proxy/loads/${(loads += 1)}`;
      await kubectl(['create', '--raw', path, '-f', '-'], { input: JSON.stringify(request) });
      return {
        progress: async () => JSON.parse(await kubectl(['get', '--raw', path])) as LoadProgress,
        async stop() {
          const { ledger, failures } = JSON.parse(await kubectl(['delete', '--raw', path])) as LoadReport;
          for (const { atMs, code } of failures) t.diagnostic(`failed at ${new Date(atMs).toISOString()}: ${code}`);
          return {
            ...ledger,
            codes: new Map(Object.entries(ledger.codes)),
            servedBy: new Map(Object.entries(ledger.servedBy)),
          };
        },
      };
    },
  };
}

/** Keys of ConfigMaps have no slashes. */
function keyOf(path: string): string {
  return path.replaceAll('/', '_');
}

function manifest(): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: pod, labels: { 'app.kubernetes.io/name': pod } },
    spec: {
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      terminationGracePeriodSeconds: 1,
      // Should nobody be left to end it.
      activeDeadlineSeconds: 900,
      securityContext: { runAsNonRoot: true, runAsUser: 65532, seccompProfile: { type: 'RuntimeDefault' } },
      containers: [
        {
          name: pod,
          image: images.dev,
          imagePullPolicy: 'IfNotPresent',
          command: ['node', 'tests/cluster/load-server.ts'],
          readinessProbe: { tcpSocket: { port: 7000 }, periodSeconds: 1 },
          resources: { requests: { cpu: '20m', memory: '256Mi' }, limits: { memory: '512Mi' } },
          securityContext: {
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ['ALL'] },
          },
          // Each by itself, so that it is a file: Node follows links, and would look for imports where they lead.
          volumeMounts: sources.map((path) => ({
            name: 'sources',
            mountPath: `/app/${path}`,
            subPath: keyOf(path),
            readOnly: true,
          })),
        },
      ],
      volumes: [{ name: 'sources', configMap: { name: pod } }],
    },
  };
}
