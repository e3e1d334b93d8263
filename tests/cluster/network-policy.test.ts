import assert from 'node:assert/strict';
import test from 'node:test';
import { eventually } from '../harness/eventually.ts';
import { skipWithoutCluster } from './cluster.ts';
import { getObject } from './kubectl.ts';
import { installPair } from './pair.ts';

/** Tries to connect; what a policy keeps out is dropped without an answer. */
const connectScript = `
  const [host, port] = process.argv.slice(1);
  const socket = require('node:net').connect(Number(port), host).setTimeout(2_000);
  const end = (word) => { console.log(word); process.exit(); };
  socket.on('connect', () => end('open')).on('timeout', () => end('shut')).on('error', () => end('shut'));
`;

test('a network policy lets in what it should and nothing else', { skip: await skipWithoutCluster() }, async (t) => {
  const pair = await installPair(t, 'policy');
  const addressOf = async (selector: string) => {
    const { items } = await getObject<{ readonly items: readonly { readonly status: { readonly podIP: string } }[] }>([
      '-n',
      pair.namespace,
      'pods',
      '-l',
      selector,
    ]);
    return items[0]?.status.podIP ?? '';
  };
  const [greeter, gateway, load] = await Promise.all(
    ['app.kubernetes.io/instance=greeter', 'app.kubernetes.io/instance=gateway', 'app.kubernetes.io/name=load'].map(
      addressOf,
    ),
  );
  const { spec } = await getObject<{ readonly spec: { readonly clusterIP: string } }>([
    '-n',
    'default',
    'service',
    'kubernetes',
  ]);
  const node = { greeter: '/nodejs/bin/node', gateway: '/nodejs/bin/node', load: 'node' };
  const pods = { greeter: 'deployment/greeter', gateway: 'deployment/gateway', load: 'pod/load' };

  /** From whom, to where, and whether it should get there. */
  const ways = [
    { from: 'load', to: 'the gateway', host: gateway, port: 8080, open: true },
    { from: 'load', to: 'the admin port of the gateway', host: gateway, port: 9090, open: false },
    { from: 'load', to: 'a greeter', host: greeter, port: 50051, open: false },
    { from: 'load', to: 'the admin port of a greeter', host: greeter, port: 9090, open: false },
    { from: 'gateway', to: 'a greeter', host: greeter, port: 50051, open: true },
    { from: 'gateway', to: 'the admin port of a greeter', host: greeter, port: 9090, open: false },
    { from: 'gateway', to: 'the API server', host: spec.clusterIP, port: 443, open: true },
    { from: 'gateway', to: 'another pod', host: load, port: 7000, open: false },
    { from: 'greeter', to: 'another pod', host: load, port: 7000, open: false },
    { from: 'greeter', to: 'the API server', host: spec.clusterIP, port: 443, open: false },
  ] as const;
  const isOpen = async ({ from, host, port }: (typeof ways)[number]) => {
    const args = ['exec', pods[from], '--', node[from], '-e', connectScript, host ?? '', String(port)];
    return (await pair.kubectl(...args)).trim() === 'open';
  };
  const table = async () =>
    Object.fromEntries(
      await Promise.all(ways.map(async (way) => [`${way.from} → ${way.to}`, await isOpen(way)] as const)),
    );

  const allOpen = Object.fromEntries(ways.map(({ from, to }) => [`${from} → ${to}`, true]));
  assert.deepEqual(await table(), allOpen, 'the control: without a policy all is open');

  const enabled = { networkPolicy: { enabled: true } };
  await Promise.all([pair.upgrade('greeter', 'greeter', enabled), pair.upgrade('gateway', 'gateway', enabled)]);
  const wanted = Object.fromEntries(ways.map(({ from, to, open }) => [`${from} → ${to}`, open]));
  // Rules reach the nodes a little later than the objects the API server.
  await eventually('the policies hold', async () => JSON.stringify(await table()) === JSON.stringify(wanted), {
    timeoutMs: 30_000,
  }).catch(() => {});
  assert.deepEqual(await table(), wanted);
  t.diagnostic(
    Object.entries(wanted)
      .map(([way, open]) => `${way} ${open ? 'open' : 'shut'}`)
      .join(', '),
  );

  // Probes go on, new connections are made, and `helm test` comes through.
  await pair.kubectl('rollout', 'restart', 'deployment/greeter', 'deployment/gateway');
  await Promise.all([pair.settled('greeter'), pair.settled('gateway')]);
  await pair.test();
});
