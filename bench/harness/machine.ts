import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import os from 'node:os';
import process from 'node:process';

/** What the figures were taken on. */
export function machine(): Readonly<Record<string, string | number>> {
  const { model } = os.cpus()[0] ?? { model: 'unknown' };
  const packages = ['@grpc/grpc-js', 'fastify', '@nestjs/core', '@connectrpc/connect-node'];
  return {
    cpu: model,
    cpus: os.cpus().length,
    memoryGb: Math.round(os.totalmem() / 1e9),
    os: `${os.type()} ${os.release()} ${os.arch()}`,
    node: process.versions.node,
    ...Object.fromEntries(packages.map((name) => [name, versionOf(name)])),
    go: goVersion() ?? 'none',
  };
}

/** `go1.26.1`; undefined where Go is not installed. */
export function goVersion(): string | undefined {
  try {
    return execFileSync('go', ['env', 'GOVERSION'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return undefined;
  }
}

function versionOf(name: string): string {
  const file = new URL(`../node_modules/${name}/package.json`, import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { readonly version: string }).version;
}
