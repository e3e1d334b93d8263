// Run by `helm test`: greets through the gateway until every ready replica has answered its share.
import { readFileSync } from 'node:fs';
import process from 'node:process';

const {
  GATEWAY,
  REQUEST_PATH,
  SERVICE,
  NAMESPACE,
  KUBERNETES_SERVICE_HOST: host,
  KUBERNETES_SERVICE_PORT: port,
} = process.env;
const url = GATEWAY + REQUEST_PATH;
const callsPerReplica = 50;
const deadline = Date.now() + 60_000;

/** The names of the pods that should answer: those ready in the EndpointSlices. Undefined where the target is no Service. */
async function readyPods() {
  if (SERVICE === undefined) return undefined;
  const token = readFileSync('/var/run/secrets/kubernetes.io/serviceaccount/token', 'utf8');
  const server = `https://${host.includes(':') ? `[${host}]` : host}:${port}`;
  const path = `/apis/discovery.k8s.io/v1/namespaces/${NAMESPACE}/endpointslices?labelSelector=kubernetes.io/service-name=${SERVICE}`;
  const response = await fetch(server + path, { headers: { authorization: `Bearer ${token}` } });
  if (!response.ok) throw new Error(`${response.status} for ${path}: ${await response.text()}`);
  const { items } = await response.json();
  const endpoints = items.flatMap((slice) => slice.endpoints ?? []);
  const names = endpoints.filter(({ conditions }) => conditions.ready).map(({ targetRef }) => targetRef.name);
  if (names.length === 0) throw new Error(`${SERVICE} in ${NAMESPACE} has no pod that is ready`);
  return [...new Set(names)];
}

/** How often each replica answered. */
async function greet(calls) {
  const answers = new Map();
  for (let call = 0; call < calls; call++) {
    const response = await fetch(url, { signal: AbortSignal.timeout(10_000) });
    const body = await response.text();
    if (!response.ok) throw new Error(`${response.status} for ${url}: ${body}`);
    const replica = response.headers.get('served-by') ?? '(unnamed)';
    answers.set(replica, (answers.get(replica) ?? 0) + 1);
    if (call === 0) console.log(`GET ${url} ${response.status} ${body}`);
  }
  return answers;
}

/** Other clients and other policies than round robin leave no exact share: half of it is enough. */
async function check() {
  const pods = await readyPods();
  const answers = await greet(callsPerReplica * (pods?.length ?? 1));
  for (const [replica, count] of answers) console.log(`${replica} answered ${count}`);
  for (const pod of pods ?? []) {
    const count = answers.get(pod) ?? 0;
    if (count < callsPerReplica / 2)
      throw new Error(`${pod} answered ${count} of ${callsPerReplica} calls that were its share`);
  }
}

// A gateway whose replicas come or go at this moment is given the time to hear of it.
for (;;) {
  try {
    await check();
    break;
  } catch (error) {
    if (Date.now() > deadline) throw error;
    console.log(`once more, since ${error.cause?.message ?? error.message}`);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
  }
}
