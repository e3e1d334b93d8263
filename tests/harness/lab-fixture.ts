import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { createLab, type Lab, type LabOptions } from '../../services/lab/lab.ts';
import { eventually } from './eventually.ts';

export interface LabFixture {
  readonly lab: Lab;
  /** Disposes of a client of the lab after the test, before the lab stops. */
  use<T extends Disposable | AsyncDisposable>(client: T): T;
  /** The port of a gateway, the first by default. */
  gatewayPort(index?: number): number;
  /** The replicas that serve: `127.0.0.1:40123`. */
  addresses(): string[];
  /** The admin port of the replica of that name. */
  adminPort(name: string): number;
  /** What the lab said of its programs: `c was killed, restarting in 0.2 s`. */
  readonly events: readonly string[];
  /** What the programs wrote. */
  readonly lines: readonly { readonly program: string; readonly line: string }[];
}

/**
 * Starts a lab on free ports, whose programs drain fast unless `env` says otherwise. After the test it is stopped, and
 * the test fails if a program does not end in order, or a process or a socket is left.
 */
export async function startLab(t: TestContext, options: LabOptions): Promise<LabFixture> {
  const clients = new AsyncDisposableStack();
  const socketsBefore = openSockets();
  const events: string[] = [];
  const lines: { program: string; line: string }[] = [];
  const pids = new Set<number>();
  const lab = createLab({
    ...options,
    env: { DRAIN_DELAY: '100ms', DRAIN_GRACE: '5s', ...options.env },
    onLine(program, line) {
      lines.push({ program, line });
      for (const { pid } of [...lab.gateways, ...lab.replicas]) if (pid !== undefined) pids.add(pid);
    },
    onEvent: (program, text) => events.push(`${program} ${text}`),
  });
  t.after(async () => {
    await clients.disposeAsync();
    const eventsBefore = events.length;
    await lab.stop();
    assert.deepEqual(events.slice(eventsBefore), [], 'a program did not end in order');
    for (const pid of pids) assert.equal(isRunning(pid), false, `process ${pid} is left`);
    await eventually('the sockets of the test are closed', () => openSockets() <= socketsBefore);
  });
  await lab.start();

  return {
    lab,
    use: (client) => clients.use(client),
    gatewayPort(index = 0) {
      const port = lab.gateways[index]?.serving?.port;
      assert.ok(port, `gateway ${index} does not serve`);
      return port;
    },
    addresses: () =>
      lab.replicas.flatMap(({ serving }) => (serving === undefined ? [] : [`127.0.0.1:${serving.port}`])),
    adminPort(name) {
      const port = lab.replicas.find((replica) => replica.name === name)?.serving?.adminPort;
      assert.ok(port, `${name} does not serve`);
      return port;
    },
    events,
    lines,
  };
}

/** Whether there is a process of that id. */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** The sockets that keep this process busy. */
function openSockets(): number {
  return process.getActiveResourcesInfo().filter((resource) => /^(TCP|TLS)/.test(resource)).length;
}
