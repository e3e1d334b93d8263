import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** On loopback and free ports, ended without a wait. */
export const onLoopback = { HOST: '127.0.0.1', PORT: '0', ADMIN_PORT: '0', DRAIN_DELAY: '0s' };

/** The environment of a gateway that is configured by a file with that content, which goes at the end. */
export function withConfig(content: object) {
  const directory = mkdtempSync(join(tmpdir(), 'tandem-bench-'));
  const file = join(directory, 'gateway.yaml');
  writeFileSync(file, JSON.stringify(content));
  return {
    env: { ...onLoopback, GATEWAY_CONFIG: file },
    file,
    async [Symbol.asyncDispose]() {
      rmSync(directory, { recursive: true });
    },
  };
}
