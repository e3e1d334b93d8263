import assert from 'node:assert/strict';
import test from 'node:test';
import { Client, credentials, status as Status, type ServiceError } from '@grpc/grpc-js';
import { projectFile } from '../harness/command.ts';
import { eventually } from '../harness/eventually.ts';
import { setFaults } from '../harness/faults.ts';
import { readTrace, type TraceReply } from '../harness/jaeger.ts';
import { formatTree, type Span, traceparent } from '../harness/spans.ts';
import { skipWithoutCluster } from './cluster.ts';
import { forwardPort, kubectl } from './kubectl.ts';
import { installPair } from './pair.ts';

const skip = await skipWithoutCluster();

test('installed from nothing into a restricted namespace', { skip }, async (t) => {
  const startedMs = Date.now();
  // As the charts are: nothing of the tests beside the images.
  const asTheyAre = { resources: {} };
  const pair = await installPair(t, 'install', { greeter: asTheyAre, gateway: { ...asTheyAre, config: {} } });
  t.diagnostic(`both charts are ready after ${Date.now() - startedMs} ms`);

  await t.test('such a namespace refuses a pod of another kind', async () => {
    const rooted = pair.kubectl('run', 'rooted', '--image=none', '--restart=Never');
    await assert.rejects(rooted, /violates PodSecurity "restricted/);
  });

  await t.test('helm test greets, and finds the calls spread', async () => {
    assert.match(await pair.test(), /Phase:\s+Succeeded/);
  });

  await t.test('the health service answers what grpc_health_probe asks, through a port-forward', async (t) => {
    await using client = healthClient(await forwardPort(t, pair.namespace, 'service/greeter', 50051));
    for (const service of ['', 'helloworld.Greeter', 'readiness', 'liveness']) {
      assert.equal(await client.check(service), 'SERVING', service);
    }
    assert.equal(await client.check('no.such.Service'), 'NOT_FOUND');
  });

  await t.test('greeting and OpenAPI from outside', async (t) => {
    const port = await forwardPort(t, pair.namespace, 'service/gateway', 8080);
    const greeting = await fetch(`http://127.0.0.1:${port}/v1/hello/Ada`);
    assert.deepEqual([greeting.status, await greeting.json()], [200, { message: 'Hello Ada' }]);
    assert.match(greeting.headers.get('served-by') ?? '', /^greeter-/);
    const openapi = (await (await fetch(`http://127.0.0.1:${port}/openapi.json`)).json()) as Record<string, unknown>;
    assert.match(String(openapi.openapi), /^3\.1/);
    assert.ok(Object.hasOwn(openapi.paths as object, '/v1/hello/{name}'));
  });

  await t.test('the token of the gateway reads EndpointSlices of its namespace and nothing else', async (t) => {
    const account = `system:serviceaccount:${pair.namespace}:gateway`;
    const mine = await rights(pair.namespace, account);
    const anybodys = await rights(pair.namespace, `system:serviceaccount:${pair.namespace}:default`);
    const own = mine.filter((right) => !anybodys.includes(right));
    t.diagnostic(`beyond what any account may: ${own.join('; ')}`);
    assert.deepEqual(own, ['endpointslices.discovery.k8s.io [get list watch]']);
    assert.deepEqual(
      (await rights('kube-system', account)).filter((right) => !anybodys.includes(right)),
      [],
    );

    const answers = await pair.kubectl('exec', 'deployment/gateway', '--', '/nodejs/bin/node', '-e', askScript);
    assert.deepEqual(JSON.parse(answers), {
      '/apis/discovery.k8s.io/v1/namespaces/NAMESPACE/endpointslices': 200,
      '/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices': 403,
      '/api/v1/namespaces/NAMESPACE/secrets': 403,
      '/api/v1/namespaces/NAMESPACE/pods': 403,
      '/api/v1/namespaces/NAMESPACE/configmaps': 403,
      '/api/v1/nodes': 403,
    });
    const noToken = `require('node:fs').existsSync('/var/run/secrets/kubernetes.io')`;
    const mounted = await pair.kubectl('exec', 'deployment/greeter', '--', '/nodejs/bin/node', '-p', noToken);
    assert.equal(mounted.trim(), 'false', 'a greeter has no token');
  });

  await t.test('a request that is retried is found in Jaeger by its traceparent', async (t) => {
    await pair.kubectl('apply', '-f', projectFile('deploy/jaeger.yaml'));
    await pair.kubectl('rollout', 'status', 'deployment/jaeger', '--timeout=120s');
    const tracing = { tracing: { endpoint: 'http://jaeger:4318' } };
    const faulty = { ...tracing, extraEnv: [{ name: 'FAULTS', value: 'enabled' }] };
    await Promise.all([pair.upgrade('greeter', 'greeter', faulty), pair.upgrade('gateway', 'gateway', tracing)]);
    await Promise.all([pair.settled('greeter'), pair.settled('gateway')]);
    const pods = (await pair.pods('greeter')).map(({ metadata }) => metadata.name);
    for (const pod of pods) {
      await setFaults(await forwardPort(t, pair.namespace, `pod/${pod}`, 9090), { errorCode: 'UNAVAILABLE' });
    }
    const port = await forwardPort(t, pair.namespace, 'service/gateway', 8080);
    const traceId = '0af7651916cd43dd8448eb211c80319c';
    const reply = await fetch(`http://127.0.0.1:${port}/v1/hello/Ada`, { headers: traceparent(traceId) });
    assert.equal(reply.status, 503);
    const tree = [
      'gateway SERVER GET /v1/hello/{name} 503 UNAVAILABLE',
      ...['first', 'retry', 'retry'].flatMap((reason) => [
        `  gateway CLIENT helloworld.Greeter/SayHello ${reason} UNAVAILABLE`,
        '    greeter SERVER helloworld.Greeter/SayHello UNAVAILABLE',
      ]),
    ];
    const path = `/api/v1/namespaces/${pair.namespace}/services/jaeger:http/proxy/api/traces/${traceId}`;
    let spans: readonly Span[] = [];
    await eventually(
      () => `${spans.length} of ${tree.length} spans are in Jaeger`,
      async () => {
        const text = await kubectl(['get', '--raw', path]).catch(() => '{}'); // not found while there are none
        spans = readTrace(JSON.parse(text) as TraceReply);
        return spans.length >= tree.length;
      },
      { timeoutMs: 60_000 },
    );
    const attributes = ['http.response.status_code', 'tandem.attempt.reason', 'rpc.response.status_code'];
    const withoutPod = (line: string) => line.replace(/(gateway|greeter) \1-\S+/, '$1');
    assert.deepEqual(formatTree(spans, traceId, attributes).map(withoutPod), tree);
    const tried = spans.filter(({ process, kind }) => process.startsWith('greeter') && kind === 'SERVER');
    assert.deepEqual(tried.map(({ process }) => process).toSorted(), pods.map((pod) => `greeter ${pod}`).toSorted());
  });
});

/** What an account may do in a namespace, a line each. */
async function rights(namespace: string, account: string): Promise<readonly string[]> {
  const text = await kubectl(['auth', 'can-i', '--list', '--no-headers', '-n', namespace, `--as=${account}`]);
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) =>
      line
        .replaceAll(/\s+\[\]/g, '')
        .replaceAll(/\s+/g, ' ')
        .trim(),
    );
}

/** Run in a pod of the gateway, with its own token: what the API server answers to each path. */
const askScript = `
  const { readFileSync } = require('node:fs');
  const folder = '/var/run/secrets/kubernetes.io/serviceaccount/';
  const [token, ca, namespace] = ['token', 'ca.crt', 'namespace'].map((name) => readFileSync(folder + name, 'utf8'));
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = process.env;
  const ask = (path) => new Promise((resolve, reject) => {
    const options = { host, port, path: path.replace('NAMESPACE', namespace), ca, headers: { authorization: 'Bearer ' + token } };
    require('node:https').get(options, (response) => { response.resume(); resolve(response.statusCode); }).on('error', reject);
  });
  const paths = [
    '/apis/discovery.k8s.io/v1/namespaces/NAMESPACE/endpointslices',
    '/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices',
    ...['secrets', 'pods', 'configmaps'].map((kind) => '/api/v1/namespaces/NAMESPACE/' + kind),
    '/api/v1/nodes',
  ];
  Promise.all(paths.map(async (path) => [path, await ask(path)])).then((all) => console.log(JSON.stringify(Object.fromEntries(all))));
`;

const healthNames = ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN'];

/** Asks `grpc.health.v1.Health/Check`: a request is a string in field 1, a reply an enum in field 1. */
function healthClient(port: number) {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), { 'grpc.enable_http_proxy': 0 });
  return {
    check: (service: string) =>
      new Promise<string>((resolve, reject) => {
        const onReply = (error: ServiceError | null, reply?: Buffer) => {
          if (error?.code === Status.NOT_FOUND) resolve('NOT_FOUND');
          else if (error !== null) reject(error);
          else resolve(healthNames[reply?.[1] ?? 0] ?? 'UNKNOWN');
        };
        const request = Buffer.from(service === '' ? [] : [10, service.length, ...Buffer.from(service)]);
        const deadline = { deadline: Date.now() + 10_000 };
        client.makeUnaryRequest(
          '/grpc.health.v1.Health/Check',
          (bytes: Buffer) => bytes,
          (bytes) => bytes,
          request,
          deadline,
          onReply,
        );
      }),
    async [Symbol.asyncDispose]() {
      client.close();
    },
  };
}
