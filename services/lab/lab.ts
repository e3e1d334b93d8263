import { mkdtempSync, writeFileSync } from 'node:fs';
import { rename, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { startChild } from './child.ts';
import { createReaper } from './reaper.ts';
import { createSupervised, type Supervised } from './supervisor.ts';

/** Greeters and gateways as processes on loopback, held together by a file of endpoints. */
export interface Lab {
  /** Resolves once a request to the gateway is answered. After a failure nothing runs. */
  start(): Promise<void>;
  /** Drains all, the gateways first, so that the greeters finish what they are still asked. */
  stop(): Promise<void>;
  /** Ends all processes at once; `stop()` then has nothing to wait for. */
  kill(): void;
  /** What the gateways are given: a `file:///` target that lists the replicas which serve. Known once started. */
  readonly target: string;
  /** In the order of their names. */
  readonly replicas: readonly Supervised[];
  readonly gateways: readonly Supervised[];
  /** Starts replicas, or ends the last ones, until there are so many. */
  scale(count: number): Promise<void>;
  /**
   * Replaces each replica by a new one, as a rolling update with one in surge and none unavailable: the new one serves
   * and is among the endpoints before the old one leaves them and, in the same moment, is told to stop.
   */
  roll(options?: { readonly signal?: StopSignal }): Promise<void>;
}

export type StopSignal = 'SIGTERM' | 'SIGKILL';

export interface LabOptions {
  readonly replicas: number;
  /** Defaults to 1. */
  readonly gateways?: number;
  /** The first port of each kind; those after it go to the further programs. 0, the default, is any free port. */
  readonly ports?: LabPorts;
  /** The environment of all programs. Nothing else is inherited. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Added for one kind of program. */
  readonly greeterEnv?: Readonly<Record<string, string>>;
  readonly gatewayEnv?: Readonly<Record<string, string>>;
  /** How long a program may take to stop. Defaults to 25 seconds: longer than its own grace of 20. */
  readonly stopGraceMs?: number;
  /** A line that a program wrote. */
  readonly onLine?: (program: string, line: string) => void;
  /** Something that happened unasked: a crash, a restart. */
  readonly onEvent?: (program: string, text: string) => void;
}

export interface LabPorts {
  readonly gateway: number;
  readonly admin: number;
  readonly greeter: number;
}

const greeterEntry = fileURLToPath(new URL('../greeter/main.ts', import.meta.url));
const gatewayEntry = fileURLToPath(new URL('../gateway/main.ts', import.meta.url));
/** Where the programs keep their compiled code between starts, which saves a third of the work of a start. */
const compileCache = fileURLToPath(new URL('../../node_modules/.cache/compiled', import.meta.url));
const anyPorts: LabPorts = { gateway: 0, admin: 0, greeter: 0 };
const defaultStopGraceMs = 25_000;

export function createLab(options: LabOptions): Lab {
  const { ports = anyPorts, stopGraceMs = defaultStopGraceMs } = options;
  const reaper = createReaper();
  const gateways: Supervised[] = [];
  /** By slot: the slot decides the name and the ports, and is taken again once it is free. */
  const slots: (Supervised | undefined)[] = [];
  let directory = '';
  let endpointsFile = '';
  let writing = Promise.resolve();
  let changing = Promise.resolve();
  let stopping = false;

  function program(name: string, entry: string, env: Record<string, string>): Supervised {
    return createSupervised({
      name,
      startChild() {
        const child = startChild({
          name,
          entry,
          env: {
            NODE_COMPILE_CACHE: compileCache,
            ...options.env,
            HOST: '127.0.0.1',
            LOG_FORMAT: 'json',
            POD_NAME: name,
            ...env,
          },
          onLine: (line) => options.onLine?.(name, line),
        });
        reaper.watch(child.pid);
        void child.exited.then(() => reaper.forget(child.pid));
        return child;
      },
      onChange: () => void writeEndpoints(),
      onEvent: (text) => options.onEvent?.(name, text),
    });
  }

  function createGateway(index: number): Supervised {
    return program(index === 0 ? 'gateway' : `gateway-${index + 1}`, gatewayEntry, {
      TARGET: pathToFileURL(endpointsFile).href,
      PORT: `${portAt(ports.gateway, index)}`,
      ADMIN_PORT: `${index === 0 ? ports.admin : 0}`,
      ...options.gatewayEnv,
    });
  }

  function createReplica(): Supervised {
    let slot = slots.indexOf(undefined);
    if (slot === -1) slot = slots.length;
    const replica = program(replicaName(slot), greeterEntry, {
      PORT: `${portAt(ports.greeter, slot)}`,
      ADMIN_PORT: `${portAt(ports.admin, slot + 1)}`,
      ...options.greeterEnv,
    });
    slots[slot] = replica;
    return replica;
  }

  function replicas(): Supervised[] {
    return slots.filter((replica) => replica !== undefined);
  }

  /** A frozen replica stays: nobody has noticed yet. Replaced by a rename, so that a reader never sees half a file. */
  function writeEndpoints(): Promise<void> {
    writing = writing.then(async () => {
      if (!directory) return;
      const targets = replicas()
        .filter(({ state }) => state === 'serving' || state === 'frozen')
        .map(({ serving }) => `127.0.0.1:${serving?.port}`);
      await writeFile(`${endpointsFile}.new`, JSON.stringify([{ targets }]));
      await rename(`${endpointsFile}.new`, endpointsFile);
    });
    return writing;
  }

  async function add(): Promise<void> {
    if (stopping) return;
    const replica = createReplica();
    try {
      await replica.start();
      await writing;
    } catch (error) {
      await remove(replica, 'SIGKILL');
      throw error;
    }
  }

  async function remove(replica: Supervised, signal: StopSignal): Promise<void> {
    await replica.stop(signal === 'SIGTERM' ? stopGraceMs : undefined);
    const slot = slots.indexOf(replica);
    if (slot !== -1) slots[slot] = undefined;
  }

  /** One change of the set at a time; a failed one does not hold up the next. */
  function change(action: () => Promise<unknown>): Promise<void> {
    const done = changing.then(async () => void (await action()));
    changing = done.catch(() => {});
    return done;
  }

  async function stop(): Promise<void> {
    stopping = true;
    await Promise.all(gateways.map((gateway) => gateway.stop(stopGraceMs)));
    await Promise.all(replicas().map((replica) => remove(replica, 'SIGTERM')));
    await writing;
    directory = '';
    await reaper.stop();
  }

  return {
    async start() {
      // All in one go, so that a stop that comes meanwhile finds everything there is to stop.
      directory = mkdtempSync(join(tmpdir(), 'tandem-lab-'));
      endpointsFile = join(directory, 'endpoints.json');
      writeFileSync(endpointsFile, '[]');
      reaper.start(directory);
      for (let index = 0; index < (options.gateways ?? 1); index += 1) gateways.push(createGateway(index));
      const starts = gateways.map((gateway) => gateway.start());
      for (let count = 0; count < options.replicas; count += 1) starts.push(add());
      try {
        await Promise.all(starts);
      } catch (error) {
        await stop();
        throw error;
      }
    },
    stop,
    kill() {
      for (const running of [...gateways, ...replicas()]) void running.stop();
    },
    get target() {
      return pathToFileURL(endpointsFile).href;
    },
    get replicas() {
      return replicas();
    },
    gateways,
    scale: (count) =>
      change(async () => {
        const running = replicas();
        const missing = Array.from({ length: Math.max(0, count - running.length) }, add);
        await Promise.all([...missing, ...running.slice(count).map((replica) => remove(replica, 'SIGTERM'))]);
      }),
    roll: ({ signal = 'SIGTERM' } = {}) =>
      change(async () => {
        for (const replica of replicas()) {
          await add();
          if (!stopping) await remove(replica, signal);
        }
      }),
  };
}

/** `a` to `z`, then `aa`. */
export function replicaName(slot: number): string {
  return String.fromCharCode('a'.charCodeAt(0) + (slot % 26)).repeat(1 + Math.floor(slot / 26));
}

function portAt(first: number, index: number): number {
  return first === 0 ? 0 : first + index;
}
