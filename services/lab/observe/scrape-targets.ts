import { rename, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { maxReplicas } from '../config.ts';
import { replicaName } from '../lab.ts';

/**
 * Writes the admin ports of a lab at which somebody listens to a file that Prometheus reads (`file_sd`): the gateway's
 * and, above it, those of the greeters. Not `ownPort`, which may be among them.
 */
export async function writeScrapeTargets(file: string, adminPort: number, ownPort: number): Promise<void> {
  const candidates = Array.from({ length: 1 + maxReplicas }, (_, index) => ({
    port: adminPort + index,
    labels: index === 0 ? { job: 'gateway', pod: 'gateway' } : { job: 'greeter', pod: replicaName(index - 1) },
  })).filter(({ port }) => port !== ownPort && port <= 65_535);
  const listening = await Promise.all(candidates.map(({ port }) => isListening(port)));
  const found = candidates.filter((_, index) => listening[index]);
  const groups = found.map(({ port, labels }) => ({ targets: [`127.0.0.1:${port}`], labels }));
  await writeFile(`${file}.new`, JSON.stringify(groups));
  await rename(`${file}.new`, file);
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
