import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import process from 'node:process';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { built } from '../harness/build.ts';
import { onLoopback } from '../harness/gateway-config.ts';
import { frames, runGrpcLoad, text } from '../harness/grpc-load.ts';
import { hello } from '../harness/hello.ts';
import { runHttpLoad } from '../harness/http-load.ts';
import { interleave } from '../harness/measure.ts';
import { endWithThis } from '../harness/subject.ts';
import type { Suite } from '../harness/suite.ts';

/** How long an idle process has to settle before its memory is read. */
const settleMs = 2_000;

/** From the start of the process to its first answer, and what it takes when it has nothing to do. */
export const startUp: Suite = async ({ measures, backends, effort }) => {
  const TARGET = `ipv4:${(await backends(3)).join(',')}`;
  const tracing = {
    // Nobody listens there: spans are made and thrown away.
    OTEL_TRACES_EXPORTER: 'otlp',
    OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9',
  };
  const programs = [
    { name: 'gateway', program: built('services/gateway/main.ts'), env: { ...onLoopback, TARGET }, ask: askGateway },
    { name: 'greeter', program: built('services/greeter/main.ts'), env: onLoopback, ask: askGreeter },
  ];
  const subjects = programs.flatMap((one) => [
    { ...one, name: `${one.name}, tracing off` },
    { ...one, name: `${one.name}, tracing on`, env: { ...one.env, ...tracing } },
  ]);
  await interleave(effort.rounds, subjects, async ({ name, program, env, ask }) => {
    const startedMs = performance.now();
    const child = spawn(process.execPath, [program], {
      env: { NODE_ENV: 'production', ...env },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    endWithThis(child);
    await ask(await portOf(child));
    const tookMs = performance.now() - startedMs;
    await delay(settleMs);
    const rssMb = Number(execFileSync('ps', ['-o', 'rss=', '-p', String(child.pid)])) / 1_000;
    measures.add('start-up and idle', name, { 'first answer ms': tookMs, 'idle RSS MB': rssMb });
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  });
};

async function portOf(child: ChildProcess): Promise<number> {
  if (child.stdout === null) throw new Error('no output');
  for await (const line of createInterface({ input: child.stdout })) {
    const { port } = JSON.parse(line) as { readonly port?: number };
    if (port === undefined) continue;
    child.stdout.resume();
    return port;
  }
  throw new Error('the program ended');
}

async function askGateway(port: number): Promise<void> {
  const { ok } = await runHttpLoad({
    port,
    ...hello,
    connections: 1,
    durationMs: 0,
  });
  if (ok !== 1) throw new Error('another reply');
}

async function askGreeter(port: number): Promise<void> {
  const { ok } = await runGrpcLoad({
    port,
    path: '/helloworld.Greeter/SayHello',
    request: frames(text('world')),
    reply: frames(text('Hello world')),
    inFlight: 1,
    durationMs: 0,
  });
  if (ok !== 1) throw new Error('another reply');
}
