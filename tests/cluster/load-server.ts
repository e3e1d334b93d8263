import { createServer, type IncomingMessage } from 'node:http';
import process from 'node:process';
import { json } from 'node:stream/consumers';
import { createGrpcJsClient } from '../harness/greeter-client.ts';
import { createHttpCaller } from '../harness/http-caller.ts';
import type { Ledger, Outcome } from '../harness/ledger.ts';
import { type Load, sendInTurn, startLoad } from '../harness/load.ts';

/*
 * Runs in a pod: sends loads from inside the cluster, as it is told over HTTP. It goes on while nobody can reach it.
 *
 *   POST /loads/NAME    a LoadRequest: begins
 *   GET /loads/NAME     the LoadProgress
 *   DELETE /loads/NAME  ends, and answers with the LoadReport
 */

/** What is sent. */
export type LoadRequest = {
  readonly callsPerS: number;
  readonly maxMs: number;
  readonly maxInFlight?: number;
  /** False: without calls ahead, for calls that last. */
  readonly warm?: boolean;
} & (
  | {
      /** Through the gateway, the paths in turn; every fourth call over a new connection. */
      readonly http: {
        readonly host: string;
        readonly port: number;
        readonly paths: readonly string[];
        readonly headers: Readonly<Record<string, string>>;
        /** As that of an HTTP caller: for loads over gateways that stop. Defaults to false. */
        readonly resend?: boolean;
      };
    }
  | {
      /** Straight to the greeters, as grpc-js alone does it, with `round_robin`. */
      readonly grpcJs: { readonly target: string };
    }
);

export interface LoadProgress {
  readonly answered: number;
  /** The ok ones by replica: how many, and when the first and the last came, in ms since 1970. */
  readonly replicas: Readonly<
    Record<string, { readonly calls: number; readonly firstMs: number; readonly lastMs: number }>
  >;
  /** The first failures. */
  readonly failures: readonly { readonly atMs: number; readonly code: string }[];
}

/** A ledger as JSON. */
export type LoadReport = LoadProgress & {
  readonly ledger: Omit<Ledger, 'codes' | 'servedBy'> & {
    readonly codes: Readonly<Record<string, number>>;
    readonly servedBy: Readonly<Record<string, number>>;
  };
};

const port = 7000;
/** What takes longer has been lost: calls have deadlines of 8 s. */
const timeoutMs = 30_000;
/** Calls one after the other ahead of a load: neither it nor what it meets should be cold. */
const warmUpCalls = 50;
const maxFailures = 5;

interface Running {
  readonly load: Load;
  readonly progress: {
    answered: number;
    replicas: Record<string, { calls: number; firstMs: number; lastMs: number }>;
    failures: { atMs: number; code: string }[];
  };
}

const loads = new Map<string, Running>();

async function start(request: LoadRequest): Promise<Running> {
  const progress: Running['progress'] = { answered: 0, replicas: {}, failures: [] };
  const send = senderOf(request);
  await sendInTurn(send, request.warm === false ? 0 : warmUpCalls);
  const load = startLoad(async () => {
    const outcome = await send();
    const nowMs = Math.round(performance.timeOrigin + performance.now());
    progress.answered += 1;
    if (outcome.code === 'OK') {
      const replica = (progress.replicas[outcome.servedBy ?? 'unknown'] ??= {
        calls: 0,
        firstMs: nowMs,
        lastMs: nowMs,
      });
      replica.calls += 1;
      replica.lastMs = nowMs;
    } else if (progress.failures.length < maxFailures) progress.failures.push({ atMs: nowMs, code: outcome.code });
    return outcome;
  }, request);
  return { load, progress };
}

function senderOf(request: LoadRequest): () => Promise<Outcome> {
  if ('grpcJs' in request) {
    const client = createGrpcJsClient(request.grpcJs.target, {
      'grpc.service_config': '{"loadBalancingConfig":[{"round_robin":{}}]}',
    });
    return () => client.hello();
  }
  const { host, port, paths, headers, resend = false } = request.http;
  const kept = createHttpCaller([port], { host, headers, timeoutMs, resend });
  const fresh = createHttpCaller([port], { host, headers, timeoutMs, keepAlive: false });
  let calls = 0;
  return () => {
    const caller = calls % 4 === 3 ? fresh : kept;
    const path = paths[Math.floor(calls / 4) % paths.length] as string;
    calls += 1;
    return caller.get(path);
  };
}

async function stop({ load, progress }: Running): Promise<LoadReport> {
  const { codes, servedBy, ...ledger } = await load.stop();
  return {
    ...progress,
    ledger: { ...ledger, codes: Object.fromEntries(codes), servedBy: Object.fromEntries(servedBy) },
  };
}

async function answer(request: IncomingMessage): Promise<unknown> {
  const { method, url = '' } = request;
  if (method === 'POST') {
    loads.set(url, await start((await json(request)) as LoadRequest));
    return {};
  }
  const running = loads.get(url);
  if (running === undefined) throw new Error(`there is no ${url}`);
  return method === 'DELETE' ? stop(running) : running.progress;
}

createServer(async (request, response) => {
  try {
    response.end(`${JSON.stringify(await answer(request))}\n`);
  } catch (error) {
    response.writeHead(500).end(`${String(error)}\n`);
  }
}).listen(port);
process.on('SIGTERM', () => process.exit(0));
