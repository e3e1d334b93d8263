import { once } from 'node:events';
import { type ClientHttp2Session, connect } from 'node:http2';
import { setTimeout as delay } from 'node:timers/promises';
import type { LoadResult } from './http-load.ts';

export interface GrpcLoadOptions {
  readonly port: number;
  /** `/package.Service/Method` */
  readonly path: string;
  /** The whole body of each request, in a frame. */
  readonly request: Buffer;
  /** The whole body of each reply that is right, in frames. */
  readonly reply: Buffer;
  /** Calls at a time, over four connections. */
  readonly inFlight: number;
  readonly durationMs: number;
}

const connections = 4;

/** Makes calls by node:http2, and looks at each reply and its status. */
export async function runGrpcLoad(options: GrpcLoadOptions): Promise<LoadResult> {
  const { port, inFlight, durationMs } = options;
  const sessions = await Promise.all(
    Array.from({ length: Math.min(connections, inFlight) }, async () => {
      const session = connect(`http://127.0.0.1:${port}`);
      await once(session, 'connect');
      return session;
    }),
  );
  const latenciesMs: number[] = [];
  const wrong = new Map<string, number>();
  const startedMs = performance.now();
  let stopped = false;
  const callInTurn = async (session: ClientHttp2Session | undefined) => {
    while (!stopped && session !== undefined) {
      const sentMs = performance.now();
      const problem = await call(session, options);
      if (problem === undefined) latenciesMs.push(performance.now() - sentMs);
      else wrong.set(problem, (wrong.get(problem) ?? 0) + 1);
    }
  };
  const all = Promise.all(
    Array.from({ length: inFlight }, (_, index) => callInTurn(sessions[index % sessions.length])),
  );
  await delay(durationMs);
  stopped = true;
  const tookMs = performance.now() - startedMs;
  await all;
  for (const session of sessions) session.close();
  latenciesMs.sort((a, b) => a - b);
  return { ok: latenciesMs.length, wrong, durationMs: tookMs, latenciesMs };
}

/** Resolves with what was wrong. */
function call(session: ClientHttp2Session, { path, request, reply }: GrpcLoadOptions): Promise<string | undefined> {
  return new Promise((resolve) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
      'grpc-timeout': '10S',
    });
    const chunks: Buffer[] = [];
    let status: unknown;
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('trailers', (trailers) => {
      status = trailers['grpc-status'];
    });
    stream.on('error', () => {}); // It closes, and that is heard.
    stream.on('close', () => {
      const [only = Buffer.alloc(0)] = chunks;
      const whole = chunks.length === 1 ? only : Buffer.concat(chunks);
      resolve(status === '0' && whole.equals(reply) ? undefined : `status ${String(status)}, ${whole.length} bytes`);
    });
    stream.end(request);
  });
}

/** Puts messages into frames of gRPC. */
export function frames(...messages: readonly Buffer[]): Buffer {
  return Buffer.concat(
    messages.flatMap((message) => {
      const head = Buffer.alloc(5);
      head.writeUInt32BE(message.length, 1);
      return [head, message];
    }),
  );
}

/** `string … = 1`, shorter than 128 bytes: a HelloRequest or a HelloReply. */
export function text(value: string): Buffer {
  return Buffer.concat([Buffer.from([0x0a, Buffer.byteLength(value)]), Buffer.from(value)]);
}
