import { createServer } from 'node:net';
import { type LabPorts, replicaName } from './lab.ts';

/** A port that the lab is about to use: who wants it and the variable that moves it. */
export interface WantedPort {
  readonly port: number;
  readonly who: string;
  readonly variable: string;
}

/** The ports that the programs start with, in the order of the programs. Port 0 is nobody's. */
export function wantedPorts({ gateway, admin, greeter }: LabPorts, replicas: number): WantedPort[] {
  const wanted = [
    { port: gateway, who: 'the gateway', variable: 'PORT' },
    { port: admin, who: 'the admin port of the gateway', variable: 'ADMIN_PORT' },
  ];
  for (let slot = 0; slot < replicas; slot += 1) {
    const name = `greeter ${replicaName(slot)}`;
    wanted.push({ port: greeter && greeter + slot, who: name, variable: 'GREETER_PORT' });
    wanted.push({ port: admin && admin + slot + 1, who: `the admin port of ${name}`, variable: 'ADMIN_PORT' });
  }
  return wanted.filter(({ port }) => port !== 0);
}

/** Says of each port that two programs want, or that does not exist or is taken, who wants it and what to change. */
export async function findPortProblems(wanted: readonly WantedPort[]): Promise<string[]> {
  const problems: string[] = [];
  const taken = new Map<number, WantedPort>();
  for (const { port, who, variable } of wanted) {
    const other = taken.get(port);
    if (port > 65_535) problems.push(`port ${port} for ${who} must be <= 65535: lower ${variable}`);
    else if (other)
      problems.push(`port ${port} is for ${other.who} and ${who}: change ${other.variable} or ${variable}`);
    else taken.set(port, { port, who, variable });
  }
  const busy = await Promise.all([...taken.values()].map(async (one) => ((await isBusy(one.port)) ? [one] : [])));
  for (const { port, who, variable } of busy.flat())
    problems.push(`port ${port} for ${who} is busy: free it or set ${variable}`);
  return problems;
}

/** On either loopback, since `localhost` may mean both. */
async function isBusy(port: number): Promise<boolean> {
  const hosts = ['127.0.0.1', '::1'];
  return (await Promise.all(hosts.map((host) => isBusyOn(host, port)))).includes(true);
}

function isBusyOn(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', ({ code }: NodeJS.ErrnoException) => resolve(code === 'EADDRINUSE' || code === 'EACCES'));
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(false)));
  });
}
