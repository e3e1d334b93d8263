import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { TestContext } from 'node:test';
import { Redis } from 'ioredis';
import { eventually } from './eventually.ts';
import { freePort } from './loopback.ts';

/** A Redis of the test's own, which keeps nothing when it ends. */
export interface RedisServer {
  readonly url: string;
  start(): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
  freeze(): void;
  thaw(): void;
  /** What it has been told to remember. */
  keys(): Promise<string[]>;
}

/** Starts a Redis on a free port, which is killed after the test. */
export async function startRedis(t: TestContext): Promise<RedisServer> {
  const port = await freePort();
  let child: ChildProcess | undefined;

  async function ask<T>(question: (redis: Redis) => Promise<T>): Promise<T> {
    const redis = new Redis(port, '127.0.0.1', { lazyConnect: true, retryStrategy: () => null });
    redis.on('error', () => {});
    try {
      await redis.connect();
      return await question(redis);
    } finally {
      redis.disconnect();
    }
  }

  const server: RedisServer = {
    url: `redis://127.0.0.1:${port}`,
    async start() {
      const args = ['--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', '/'];
      child = spawn('redis-server', args, { stdio: 'ignore' });
      await eventually('Redis answers', () => ask((redis) => redis.ping()).catch(() => undefined));
    },
    async kill() {
      if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
    },
    freeze: () => void child?.kill('SIGSTOP'),
    thaw: () => void child?.kill('SIGCONT'),
    keys: () => ask((redis) => redis.keys('*')),
  };
  t.after(() => server.kill());
  await server.start();
  return server;
}
