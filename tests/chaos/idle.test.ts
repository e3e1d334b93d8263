import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { createGrpcJsTransport } from '#runtime/channel/transport/grpc-js.ts';
import { isInstalled } from '../harness/command.ts';
import { eventually } from '../harness/eventually.ts';
import { buildGo } from '../harness/go.ts';
import { createChannelClient, gatewayServiceConfig } from '../harness/greeter-client.ts';
import { guarantee } from '../harness/guarantee.ts';
import { createBookkeeper } from '../harness/ledger.ts';

/** A default grpc-go server takes two pings within five minutes too many; every 30 s, it would be after 120 s. */
const idleMs = 130_000;

guarantee('two idle minutes beside a default grpc-go server, its health watched, cost no connection', {
  skip: !(await isInstalled('go', ['version'])) && 'go is not installed',
  on: { keepaliveTimeMs: undefined },
  control: { keepaliveTimeMs: 10_000 },
  async scenario({ keepaliveTimeMs }: { keepaliveTimeMs: number | undefined }, t) {
    const port = await startGoServer(t);
    let lostConnections = 0;
    const books = createBookkeeper();
    await using client = createChannelClient({
      target: `ipv4:127.0.0.1:${port}`,
      serviceConfig: gatewayServiceConfig,
      transport: createGrpcJsTransport(keepaliveTimeMs === undefined ? {} : { keepaliveTimeMs }),
      onEvent(event) {
        if (event.type === 'connection' && (event.state === 'IDLE' || event.state === 'CONNECTING'))
          lostConnections += 1;
      },
    });
    await client.connected(1);
    books.begin()(await client.hello());
    lostConnections = 0;
    await eventually('the connection is lost', () => lostConnections > 0, { timeoutMs: idleMs }).catch(() => {});
    books.begin()(await client.hello());
    return { ...books.close(), figures: { lostConnections } };
  },
  valid: ({ ok }) => ok === 2,
  holds: ({ figures }) => figures.lostConnections === 0,
});

async function startGoServer(t: TestContext): Promise<number> {
  const child = spawn(await buildGo(t, 'tests/chaos/go-server'), { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  t.after(async () => {
    child.kill();
    await exited;
  });
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  return Number(line);
}
