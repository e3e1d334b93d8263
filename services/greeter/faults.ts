import type { IncomingMessage, ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import * as v from 'valibot';
import { Code, type CodeName, RpcError } from '#runtime/call/status.ts';
import { type AdminRoutes, readJsonBody, RequestError } from '#runtime/process/admin.ts';
import type { Logger } from '#runtime/process/log.ts';
import type { Handler, Handlers, ServerCall } from '#runtime/server/handler.ts';
import type { Server } from '#runtime/server/server.ts';

/** How many calls wait for `capacity` at most; the next one ends with RESOURCE_EXHAUSTED. */
const maxQueued = 1_000;

/** What is wrong with this replica. Absent: nothing of that kind. */
export interface Faults {
  /** How long each call takes longer; its client may leave meanwhile. */
  readonly delayMs?: number;
  /** Added to the delay at random, from none to all of it. */
  readonly jitterMs?: number;
  /** How many calls are worked on at a time, streams from their first to their last message; the others wait in order. 0: all. */
  readonly capacity?: number;
  /** What calls fail with, after the delay. */
  readonly errorCode?: Exclude<CodeName, 'OK'>;
  /** Which share of the calls fails with `errorCode`, 0…1. Defaults to 1. */
  readonly errorRate?: number;
  /**
   * Calls get no further message until this is taken back. Health still answers, as in a process whose workers hang:
   * SIGSTOP is for one that is silent altogether.
   */
  readonly freeze?: boolean;
  /** Health says NOT_SERVING to whoever asks where to send calls; liveness stays SERVING, and calls are served. */
  readonly refuseHealth?: boolean;
}

/** The faults of this process: to test with, never in production. */
export interface FaultInjector {
  /** The same handlers, with the faults of the moment. */
  wrap(handlers: Handlers): Handlers;
  /** `GET /faults`, `PUT /faults` which sets all of them, `DELETE /faults`, and `POST /faults/goaway`. */
  readonly routes: AdminRoutes;
}

export function createFaults(options: {
  readonly log: Logger;
  /** Looked up when it is needed, since the server is built from the wrapped handlers. */
  readonly server: () => Pick<Server, 'setServing' | 'sendGoaway'>;
}): FaultInjector {
  const { log, server } = options;
  let faults: Faults = {};
  let working = 0;
  const queued = new Set<() => void>();
  const frozen = new Set<() => void>();

  function set(next: Faults): void {
    const { refuseHealth } = faults;
    faults = next;
    log.warn({ faults }, 'faults changed');
    if (faults.refuseHealth !== refuseHealth) server().setServing(!faults.refuseHealth);
    admit();
    if (!faults.freeze) for (const proceed of frozen) proceed();
  }

  function hasRoom(): boolean {
    return !faults.capacity || working < faults.capacity;
  }

  /** Lets in whoever waits, as far as there is room. */
  function admit(): void {
    for (const proceed of queued) {
      if (!hasRoom()) return;
      working++;
      proceed();
    }
  }

  async function enter({ signal }: ServerCall): Promise<void> {
    signal.throwIfAborted();
    if (hasRoom()) {
      working++;
      return;
    }
    if (queued.size >= maxQueued) {
      throw new RpcError(Code.RESOURCE_EXHAUSTED, `capacity ${faults.capacity} is used, and ${maxQueued} calls wait`);
    }
    await waitIn(queued, signal);
  }

  function leave(): void {
    working--;
    admit();
  }

  async function suffer({ signal }: ServerCall): Promise<void> {
    const { delayMs = 0, jitterMs = 0 } = faults;
    const takesMs = delayMs + Math.random() * jitterMs;
    if (takesMs > 0) await sleep(takesMs, undefined, { signal });
    if (faults.freeze) await waitIn(frozen, signal);
    const { errorCode, errorRate = 1 } = faults;
    if (errorCode !== undefined && Math.random() < errorRate) throw new RpcError(Code[errorCode], 'injected fault');
  }

  function wrapReply(handler: (request: never, call: ServerCall) => Promise<unknown>): Handler {
    return async (request, call) => {
      await enter(call);
      try {
        await suffer(call);
        return await handler(request, call);
      } finally {
        leave();
      }
    };
  }

  function wrapReplies(handler: (request: never, call: ServerCall) => AsyncIterable<unknown>): Handler {
    return async function* (request, call) {
      await enter(call);
      try {
        await suffer(call);
        for await (const reply of handler(request, call)) {
          if (faults.freeze) await waitIn(frozen, call.signal);
          yield reply;
        }
      } finally {
        leave();
      }
    };
  }

  function show(_request: IncomingMessage, response: ServerResponse): void {
    response.setHeader('content-type', 'application/json').end(`${JSON.stringify(faults)}\n`);
  }

  return {
    wrap: (handlers) =>
      Object.fromEntries(
        Object.entries(handlers).map(([name, handler]) => [
          name,
          (handler instanceof AsyncGeneratorFunction ? wrapReplies : wrapReply)(handler.bind(handlers) as never),
        ]),
      ),
    routes: {
      'GET /faults': show,
      'PUT /faults': async (request, response) => {
        set(parseFaults(await readJsonBody(request)));
        show(request, response);
      },
      'DELETE /faults': (request, response) => {
        set({});
        show(request, response);
      },
      'POST /faults/goaway': async (_request, response) => {
        log.warn('sending GOAWAY on all connections');
        await server().sendGoaway();
        response.writeHead(204).end();
      },
    },
  };
}

const AsyncGeneratorFunction = async function* () {}.constructor as FunctionConstructor;

/** Waits in `line` until it is called from there. Leaves it, with the reason, once the call is over. */
function waitIn(line: Set<() => void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const abort = () => {
      line.delete(proceed);
      reject(signal.reason as RpcError);
    };
    const proceed = () => {
      line.delete(proceed);
      signal.removeEventListener('abort', abort);
      resolve();
    };
    line.add(proceed);
    signal.addEventListener('abort', abort, { once: true });
  });
}

const codeNames = (Object.keys(Code) as CodeName[]).filter((name) => name !== 'OK');

const between = (min: number, max: number) =>
  v.pipe(v.number('must be a number'), v.minValue(min, `must be >= ${min}`), v.maxValue(max, `must be <= ${max}`));

const flag = v.boolean('must be true or false');

const faultsSchema = v.pipe(
  v.unknown(),
  v.check((json) => !Array.isArray(json), 'must be an object'),
  // Not strictObject, which names the first unknown key alone.
  v.objectWithRest(
    {
      delayMs: v.exactOptional(between(0, 600_000)),
      jitterMs: v.exactOptional(between(0, 600_000)),
      capacity: v.exactOptional(v.pipe(between(0, 1_000_000), v.integer('must be an integer'))),
      errorCode: v.exactOptional(v.picklist(codeNames, 'must be a status code other than OK, such as UNAVAILABLE')),
      errorRate: v.exactOptional(between(0, 1)),
      freeze: v.exactOptional(flag),
      refuseHealth: v.exactOptional(flag),
    },
    v.never('is not a fault'),
    'must be an object',
  ),
  v.forward(
    v.partialCheck(
      [['errorCode'], ['errorRate']],
      ({ errorCode, errorRate }) => errorRate === undefined || errorCode !== undefined,
      'must stand beside an errorCode',
    ),
    ['errorRate'],
  ),
);

/** @throws RequestError that lists every problem, one a line. */
function parseFaults(json: unknown): Faults {
  const { success, output, issues } = v.safeParse(faultsSchema, json);
  if (success) return output;
  const problems = issues.map(({ path, message }) => {
    const { key, value } = path?.[0] ?? { key: 'faults', value: json };
    return `${String(key)} ${JSON.stringify(value)} ${message}`;
  });
  throw new RequestError(400, problems.join('\n'));
}
