import { setTimeout as delay } from 'node:timers/promises';
import type { TestContext } from 'node:test';
import { EndpointSliceServer, endpointSlice, podEndpoint } from '#runtime/channel/testing/endpointslice-server.ts';
import { startDnsServer } from '../harness/dns-server.ts';
import { eventually } from '../harness/eventually.ts';
import { guarantee } from '../harness/guarantee.ts';
import type { GreeterClient } from '../harness/greeter-client.ts';
import { startLab } from '../harness/lab-fixture.ts';
import { startLoad } from '../harness/load.ts';
import { freePort, withoutLoopbackAddresses } from '../harness/loopback.ts';

// Read by grpc-js when it is imported: its resolver then asks the server that the target names.
process.env.GRPC_NODE_USE_ALTERNATIVE_RESOLVER = 'true';
const { createChannelClient, createGrpcJsClient } = await import('../harness/greeter-client.ts');

/** The goal is 1 s. */
const limitMs = 5_000;

/** Where clients hear of the replicas: the same at the same time from DNS and from EndpointSlices. */
interface Registry {
  announce(addresses: readonly string[]): void;
  readonly clients: Readonly<Record<string, () => GreeterClient>>;
}

async function startRegistry(t: TestContext, port: number): Promise<Registry> {
  const dns = await startDnsServer();
  const slices = new EndpointSliceServer();
  await slices.start();
  t.after(async () => {
    await dns[Symbol.asyncDispose]();
    await slices.stop();
  });
  return {
    announce(addresses) {
      dns.addresses = addresses;
      const endpoints = addresses.map((address) => podEndpoint(address, address));
      slices.setSlices([endpointSlice('greeter-x', { endpoints, ports: [{ name: 'grpc', port }] })]);
    },
    clients: {
      'kubernetes:///': () =>
        createChannelClient({ target: 'kubernetes:///greeter.default:grpc', kubernetes: { server: slices.url } }),
      'grpc-js dns:///': () =>
        createGrpcJsClient(`dns://127.0.0.1:${dns.port}/greeter.test:${port}`, {
          'grpc.service_config': '{"loadBalancingConfig":[{"round_robin":{}}]}',
        }),
    },
  };
}

guarantee('a new replica gets traffic within a second of being ready', {
  skip: withoutLoopbackAddresses,
  on: { client: 'kubernetes:///' },
  control: { client: 'grpc-js dns:///' },
  async scenario({ client: name }, t) {
    const port = await freePort();
    const registry = await startRegistry(t, port);
    const addresses: string[] = [];
    const add = async (podName: string) => {
      const address = `127.0.0.${addresses.length + 2}`;
      const greeterEnv = { HOST: address, PORT: `${port}`, POD_NAME: podName };
      const fixture = await startLab(t, { replicas: 1, gateways: 0, greeterEnv });
      addresses.push(address);
      registry.announce(addresses);
      return fixture;
    };
    const fixture = await add('a');
    await add('b');
    const client = fixture.use(registry.clients[name]?.() as GreeterClient);
    await eventually('two replicas answer', async () => {
      const served = await Promise.all([client.hello(), client.hello()]);
      return new Set(served.map(({ servedBy }) => servedBy)).size === 2;
    });

    let firstCallMs = Number.POSITIVE_INFINITY;
    let readyMs = Number.POSITIVE_INFINITY;
    const load = startLoad(
      async () => {
        const outcome = await client.hello();
        if (outcome.servedBy === 'c') firstCallMs = Math.min(firstCallMs, performance.now() - readyMs);
        return outcome;
      },
      { callsPerS: 100 },
    );
    await add('c');
    readyMs = performance.now();
    await eventually('c answers', () => Number.isFinite(firstCallMs), { timeoutMs: limitMs }).catch(() => {});
    // A replica may be ready before there is much of an account.
    await delay(500);
    const ledger = await load.stop();
    return { ...ledger, figures: { firstCallMs } };
  },
  valid: ({ sent, ok, servedBy }) => sent >= 50 && ok === sent && servedBy.has('a') && servedBy.has('b'),
  holds: ({ figures }) => figures.firstCallMs <= limitMs,
});
