import assert from 'node:assert/strict';
import { connect } from 'node:net';
import type { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { create, type DescMessage, fromBinary, type Message, toBinary } from '@bufbuild/protobuf';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import type { CallObserver, CallStart, CallStatus, Metadata } from '#runtime/call/call.ts';
import { localStatus } from '#runtime/call/status.ts';
import type { CorsConfig } from '../edge-schema.ts';
import { createPipeline, type Upstream } from '../pipeline.ts';
import { createPolicies } from '../policies.ts';
import type { AuthProvider, PolicyConfig } from '../policy-schema.ts';
import { createAuthentication } from '../stages/authenticate.ts';
import { createCache } from '../stages/cache.ts';
import { createHttpObserver } from '../stages/observe.ts';
import { createQuotas } from '../stages/quota.ts';
import { compileProto, libraryProto } from '../testdata/build.ts';
import { createCors } from './cors.ts';
import { createErrorWriter } from './errors.ts';
import { createMetadataRules, defaultPassedNames } from './metadata.ts';
import { createEdgeServer } from './server.ts';

export const descriptors = compileProto(libraryProto);
export const book = descriptors.types.getMessage('library.v1.Book') as DescMessage;

/** A call that arrived at the upstream, answered by the test. */
export class FakeCall {
  readonly start: CallStart;
  private readonly observer: CallObserver;
  /** What was written last. */
  request: Uint8Array | undefined;
  readonly requests: Uint8Array[] = [];
  requestsEnded = false;
  /** Whether it takes further requests. */
  writable = true;
  credits = 0;
  cancelled: CallStatus | undefined;
  private ended = false;

  constructor(start: CallStart, observer: CallObserver) {
    this.start = start;
    this.observer = observer;
  }

  headers(metadata: Metadata): void {
    this.observer.onHeaders(metadata, 'replica-1');
  }

  message(message: Uint8Array): void {
    assert.ok(this.credits > 0, 'a message without credit');
    this.credits--;
    this.observer.onMessage(message);
  }

  book(title: string): void {
    this.message(toBinary(book, create(book, { title })));
  }

  /** The titles of the books that were written. */
  get titles(): string[] {
    return this.requests.map((bytes) => (fromBinary(book, bytes) as Message & { title: string }).title);
  }

  /** Takes further requests after it did not. */
  takeMore(): void {
    this.writable = true;
    this.observer.onWritable();
  }

  status(code: number, options: Partial<CallStatus> = {}): void {
    if (this.ended) return;
    this.ended = true;
    this.observer.onStatus({ code, details: '', trailers: [], from: 'peer', seenByPeer: 'maybe', ...options });
  }

  cancel(code: number, details: string): void {
    if (this.ended || this.cancelled !== undefined) return;
    this.cancelled = localStatus(code, details, 'maybe');
    queueMicrotask(() => this.status(code, { details, from: 'local' }));
  }
}

/** An edge server over the library's routes and an upstream that `onCall` answers. */
export async function startEdge(
  onCall: (call: FakeCall) => void,
  options: {
    readonly streamIdleTimeoutMs?: number;
    readonly streamHeartbeatMs?: number;
    readonly maxStreams?: number;
    readonly requestTimeoutMs?: number;
    readonly timeoutMs?: number;
    readonly bodyLimitBytes?: number;
    readonly policies?: readonly PolicyConfig[];
    readonly cors?: CorsConfig;
    readonly auth?: readonly AuthProvider[];
    readonly trustedProxies?: readonly string[];
    /** What each request is told for an overload of the event loop. Defaults to no overload. */
    readonly refusal?: CallStatus;
  } = {},
) {
  const calls: FakeCall[] = [];
  const logLines: string[] = [];
  const log = pino({ level: 'debug' }, { write: (line: string) => void logLines.push(line) });
  const registry = new Registry();
  const upstream: Upstream = {
    name: 'library',
    timeoutMs: () => options.timeoutMs,
    refusal: () => options.refusal,
    admit: (next) => next,
    start(start, observer) {
      const call = new FakeCall(start, observer);
      calls.push(call);
      return {
        request: (messages) => {
          call.credits += messages;
        },
        write: (message, end) => {
          if (call.requests.length === 0) queueMicrotask(() => onCall(call));
          call.request = message;
          call.requests.push(message);
          call.requestsEnded ||= end;
          return call.writable;
        },
        end: () => {
          if (call.requests.length === 0) queueMicrotask(() => onCall(call));
          call.requestsEnded = true;
        },
        cancel: (code, details) => call.cancel(code, details),
      };
    },
  };
  const {
    streamIdleTimeoutMs = 60_000,
    streamHeartbeatMs = 60_000,
    maxStreams = 100,
    bodyLimitBytes = 1_048_576,
    requestTimeoutMs = 30_000,
    auth = [],
  } = options;
  const settings = { streamIdleTimeoutMs, streamHeartbeatMs, maxStreams, bodyLimitBytes, requestTimeoutMs };
  const policyOf = createPolicies(
    options.policies && { policies: options.policies, auth, placeOf: () => 'here' },
    descriptors.methods.map(({ method }) => method),
  );
  const authentication = createAuthentication({ providers: auth, registry, log });
  authentication.start();
  const claimKeys = auth.flatMap(({ claims }) => Object.values(claims));
  const cache = createCache({ maxBytes: 67_108_864, registry });
  const { routes } = createPipeline({
    ...settings,
    descriptors,
    upstreamOf: () => upstream,
    policyOf,
    authenticate: authentication.guardOf,
    checkQuota: createQuotas({ policies: options.policies ?? [], redisUrl: undefined, registry, log }).guardOf,
    cache,
  });
  const observer = createHttpObserver({ registry, log, tracing: false });
  const server = createEdgeServer({
    ...settings,
    host: '127.0.0.1',
    port: 0,
    routes,
    errors: createErrorWriter(descriptors.types),
    cors: options.cors && createCors(options.cors, { request: [], reply: ['served-by'] }),
    metadata: createMetadataRules({ passed: defaultPassedNames, claimKeys, passTraceContext: true }),
    observer,
    eventLoop: { overloaded: options.refusal !== undefined },
    registry,
    log,
    keepAliveTimeoutMs: 75_000,
    trustedProxies: options.trustedProxies ?? [],
  });
  const port = await server.listen();
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    calls,
    logLines,
    observer,
    registry,
    server,
    cache,
    [Symbol.asyncDispose]: async () => {
      const closed = server.close();
      server.destroy();
      cache.close();
      authentication.stop();
      await closed;
    },
  };
}

/** Waits until it is so, at most 30 s, which only a busy machine needs. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 30_000;
  while (!condition()) {
    assert.ok(performance.now() < deadline, `waited 30 s for: ${what}`);
    await sleep(5);
  }
}

/** Sends bytes and returns all that comes back until the server closes. */
export async function exchangeRaw(port: number, text: string): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  let received = '';
  socket.setEncoding('latin1').on('data', (chunk) => {
    received += chunk;
  });
  socket.on('error', () => {});
  socket.write(text, 'latin1');
  await closeOf(socket);
  return received;
}

/**
 * Waits for the end of what may be reset: a server that closes before it has read all resets, and then `once()` rejects
 * for the `error`, or not, as the client happened to read or to write.
 */
export function closeOf(stream: Writable): Promise<void> {
  return new Promise((resolve) => stream.once('close', resolve));
}
