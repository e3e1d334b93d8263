import type { TestContext } from 'node:test';
import { images } from './images.ts';
import { kubectl } from './kubectl.ts';
import { createNamespace } from './namespace.ts';

/** Sends signals to processes of a node, those inside pods among them. */
export interface NodeAgent {
  /** How many processes have got it. */
  signal(processes: Processes, signal: NodeJS.Signals): Promise<number>;
  /** SIGSTOP in a second, and SIGCONT after that time, even if nobody can reach the cluster then. */
  freeze(processes: Processes, ms: number): Promise<number>;
}

/** The node processes of a pod, or all of that command. */
export type Processes = { readonly pod: string } | { readonly command: string };

const pod = 'agent';

/**
 * Runs in the agent: `node -e SCRIPT KEY VALUE SIGNAL [MS]`. The charts give a pod's name to its process as POD_NAME. To
 * freeze is the work of a process that outlives this one, since the API server, through which its end is told, may be what
 * stands still.
 */
const script = `
  const { readdirSync, readFileSync } = require('node:fs');
  const [key, value, signal, ms] = process.argv.slice(1);
  const read = (pid, file) => { try { return readFileSync('/proc/' + pid + '/' + file, 'latin1'); } catch { return ''; } };
  const pids = readdirSync('/proc').filter((pid) => /^\\d+$/.test(pid) && Number(pid) !== process.pid).filter((pid) =>
    key === 'pod' ? read(pid, 'environ').split('\\0').includes('POD_NAME=' + value) : read(pid, 'comm').trim() === value);
  const send = (name) => { for (const pid of pids) try { process.kill(Number(pid), name); } catch {} };
  console.log(pids.length);
  if (ms === undefined) send(signal);
  else require('node:child_process').spawn(process.execPath, ['-e', \`
    const send = (name) => { for (const pid of process.argv.slice(1)) try { process.kill(Number(pid), name); } catch {} };
    setTimeout(send, 1_000, 'SIGSTOP');
    setTimeout(send, 1_000 + \${ms}, 'SIGCONT');
  \`, ...pids], { detached: true, stdio: 'ignore' }).unref();
`;

/** Starts a privileged pod on a node, which goes with the test. */
export async function startNodeAgent(t: TestContext, nodeName: string): Promise<NodeAgent> {
  const namespace = await createNamespace(t, 'agent', 'privileged');
  await kubectl(['-n', namespace, 'create', '-f', '-'], {
    input: JSON.stringify({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: pod },
      spec: {
        nodeName,
        hostPID: true,
        automountServiceAccountToken: false,
        tolerations: [{ operator: 'Exists' }],
        terminationGracePeriodSeconds: 1,
        activeDeadlineSeconds: 900,
        containers: [
          {
            name: pod,
            image: images.dev,
            imagePullPolicy: 'IfNotPresent',
            command: ['sleep', '900'],
            securityContext: { privileged: true, runAsUser: 0 },
          },
        ],
      },
    }),
  });
  await kubectl(['-n', namespace, 'wait', `pod/${pod}`, '--for=condition=Ready', '--timeout=60s'], {
    timeoutMs: 70_000,
  });
  const execute = async (processes: Processes, ...args: readonly string[]) => {
    const [entry] = Object.entries(processes) as [[string, string]];
    return Number(await kubectl(['-n', namespace, 'exec', pod, '--', 'node', '-e', script, ...entry, ...args]));
  };
  return {
    signal: (processes, signal) => execute(processes, signal),
    freeze: (processes, ms) => execute(processes, 'SIGSTOP', String(ms)),
  };
}
