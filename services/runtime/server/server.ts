import { once } from 'node:events';
import type { ServerHttp2Session } from 'node:http2';
import { type AddressInfo, createServer as createListener, type Socket } from 'node:net';
import { promisify } from 'node:util';
import * as grpc from '@grpc/grpc-js';
import { loadFileDescriptorSetFromBuffer } from '@grpc/proto-loader';
import type { Registry } from 'prom-client';
import { Code } from '../call/status.ts';
import type { Logger } from '../process/log.ts';
import type { TlsFiles } from '../process/tls-files.ts';
import { withoutInstrumentation } from '../process/tracing.ts';
import { type CallSpan, startCallSpan } from './call-span.ts';
import { adaptHandlers, type Handlers } from './handler.ts';
import { joinFiles, splitFiles, withoutOptions } from './descriptor-files.ts';
import { createHealth } from './health.ts';
import { type CallCounters, createObserver } from './observe.ts';
import { addReflection } from './reflection.ts';
import { createSessions } from './sessions.ts';
import { createTlsListener } from './tls-listener.ts';

/** How long `force()` lets the last statuses reach their clients before it closes the connections. */
const forceFlushMs = 250;

export interface ServerOptions {
  /** A `google.protobuf.FileDescriptorSet` with the services and all that they import, as `buf build` writes it. */
  readonly descriptors: Uint8Array;
  /** The handlers of each service, by its full name: `helloworld.Greeter`. */
  readonly services: Readonly<Record<string, Handlers>>;
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
  /** PEM files: TLS with `cert` and `key`, and with `ca` mutual TLS. Read again when they change. Defaults to plaintext. */
  readonly tls?: TlsFiles | undefined;
  /** Told to each client as `served-by`. */
  readonly podName: string;
  readonly registry: Registry;
  readonly log: Logger;
  /**
   * Connections end at about this age, so that clients that know of no new replicas find them. Defaults to 5 minutes.
   * https://github.com/grpc/proposal/blob/master/A9-server-side-conn-mgt.md
   */
  readonly maxConnectionAgeMs?: number;
  /** How long the calls of such a connection may still take. Defaults to 5 minutes. */
  readonly maxConnectionAgeGraceMs?: number;
  /** Per message, both ways. Defaults to 4 MiB, which is what clients take. */
  readonly maxMessageBytes?: number;
  /** Calls at a time on one connection; clients let further ones wait. Defaults to 4,096. */
  readonly maxConcurrentStreams?: number;
  /** The share of the calls that went well which are logged; the others are, always. Defaults to 1 %. */
  readonly accessLogRatio?: number;
  /** A call that takes so long, and is no stream, is slow, and logged. Defaults to 1 second. */
  readonly slowRequestMs?: number;
}

/** A gRPC server with health checks, reflection, metrics and an orderly end. */
export interface Server {
  /** Listens; resolves with the bound port. Rejects with the error of the bind. */
  start(): Promise<number>;
  /** What health says of everything but liveness, and who watches it hears so. Serves on. No effect once draining. */
  setServing(serving: boolean): void;
  /** Sends GOAWAY on each connection: calls in flight go on, and clients connect anew for the next ones. */
  sendGoaway(): Promise<void>;
  /** Health turns NOT_SERVING for good, and whoever watches it hears so. Serves on. */
  drain(): void;
  /** Closes the listener and takes no further call; resolves once those in flight have ended. */
  finish(): Promise<void>;
  /** Ends the calls in flight with UNAVAILABLE, so that `finish()` resolves. */
  force(): void;
  /** By method. */
  counters(): Record<string, CallCounters>;
}

type StreamFlags = 'requestStream' | 'responseStream';

/**
 * What is private in a call of grpc-js (1.14.7), and known by nothing else: the session that it came on (sessions.test.ts
 * holds it), and its messages as they are on the wire (observe.test.ts).
 */
interface CallInternals {
  readonly stream: { readonly session?: ServerHttp2Session };
  serializeMessage(this: unknown, message: unknown): Buffer;
  decompressAndMaybePush(this: unknown, entry: { readonly compressedMessage: Buffer }): Promise<void>;
}

/** Before each message: whether it is compressed, and its length. */
const frameHeadBytes = 5;

/** Throws if a service is not in the descriptors, one of its methods has no handler, or TLS files cannot be used. */
export function createServer(options: ServerOptions): Server {
  const { podName, tls, registry, log, maxMessageBytes = 4 * 1024 * 1024 } = options;
  const names = Object.keys(options.services);
  const health = createHealth(names);
  const paths: string[] = [];
  /** Those that have spans and log lines: health checks would bury them. */
  const traced = new Set<string>();
  /** Calls in flight. */
  const live = new Set<grpc.ServerInterceptingCallInterface>();
  const sessions = createSessions({
    maxAgeMs: options.maxConnectionAgeMs ?? 300_000,
    graceMs: options.maxConnectionAgeGraceMs ?? 300_000,
    registry,
  });
  let draining = false;

  const server = withoutInstrumentation(
    new grpc.Server({
      'grpc.max_receive_message_length': maxMessageBytes,
      'grpc.max_send_message_length': maxMessageBytes,
      'grpc.max_concurrent_streams': options.maxConcurrentStreams ?? 4_096,
      'grpc.enable_channelz': 0, // 6 % of the throughput
      interceptors: [accept],
    }),
    ['register'],
  );
  // A listener of our own: its errors say what is wrong, and force() can close connections. grpc-js's forceShutdown()
  // (1.14) forgets them where channelz is off.
  const connections = server.createConnectionInjector(grpc.ServerCredentials.createInsecure());
  const serve = (socket: Socket) => {
    sessions.adopt(socket, { isTls: tls !== undefined });
    connections.injectConnection(socket);
  };
  const listener =
    tls === undefined ? createListener(serve) : createTlsListener(tls, { registry, log, onConnection: serve });
  const addService = (definition: grpc.ServiceDefinition, implementation: grpc.UntypedServiceImplementation) => {
    server.addService(definition, implementation);
    paths.push(...Object.values(definition).map(({ path }) => path));
  };

  const definitions = loadFileDescriptorSetFromBuffer(joinFiles(withoutOptions(splitFiles(options.descriptors))), {
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  });
  for (const [name, handlers] of Object.entries(options.services)) {
    const definition = definitions[name];
    if (definition === undefined || 'format' in definition) throw new Error(`${name} is no service of the descriptors`);
    for (const { path } of Object.values(definition)) traced.add(path);
    addService(
      definition,
      adaptHandlers(definition, handlers, (error, path) =>
        log.error({ err: error, method: path.slice(1) }, 'handler failed'),
      ),
    );
  }
  health.addTo({ addService });
  addReflection({ addService }, { descriptors: options.descriptors, services: names });
  const { accessLogRatio = 0.01, slowRequestMs = 1_000 } = options;
  const observer = createObserver({ registry, log, paths, accessLogRatio, slowRequestMs });

  /**
   * Sees each call of a known method from its headers to its end. It overrides the methods of the call and does not wrap
   * them, because some statuses come from inside grpc-js: deadline exceeded, request undecodable or too large.
   */
  function accept(
    { path, requestStream, responseStream }: Pick<grpc.MethodDefinition<unknown, unknown>, 'path' | StreamFlags>,
    call: grpc.ServerInterceptingCallInterface,
  ): grpc.ServerInterceptingCall {
    const { start, sendMetadata, sendStatus } = call;
    const internals = call as unknown as CallInternals;
    const { serializeMessage, decompressAndMaybePush } = internals;
    sessions.add(internals.stream.session);
    const ended = observer.start(path);
    let headersSent = false;
    let code: number | undefined;
    let details = '';
    let span: CallSpan | undefined;
    let requestId: string | undefined;
    const isStream = requestStream || responseStream;
    let sent = 0;
    let sentBytes = 0;
    let received = 0;
    let receivedBytes = 0;
    live.add(call);
    internals.serializeMessage = (message) => {
      const frame = serializeMessage.call(call, message);
      sent++;
      sentBytes += frame.length - frameHeadBytes;
      return frame;
    };
    internals.decompressAndMaybePush = (entry) => {
      received++;
      receivedBytes += entry.compressedMessage.length - frameHeadBytes;
      return decompressAndMaybePush.call(call, entry);
    };
    call.start = (listener) => {
      const { onCancel, onReceiveMetadata, onReceiveHalfClose } = listener;
      if (traced.has(path)) {
        // The handler is called by one of these two.
        listener.onReceiveMetadata = (metadata) => {
          span = startCallSpan(path, metadata);
          requestId = metadata.get('x-request-id')[0]?.toString();
          span.run(() => onReceiveMetadata.call(listener, metadata));
        };
        listener.onReceiveHalfClose = () => span?.run(() => onReceiveHalfClose.call(listener));
      }
      // Despite its name it runs at the end of every call.
      listener.onCancel = () => {
        live.delete(call);
        const messages = isStream ? { sent, received } : undefined;
        const end = {
          code: code ?? Code.CANCELLED,
          details,
          messages,
          sentBytes,
          receivedBytes,
          requestId,
          trace: span,
        };
        ended(end);
        span?.end(end, () => call.getConnectionInfo());
        onCancel.call(listener);
      };
      start.call(call, listener);
    };
    call.sendMetadata = (metadata) => {
      headersSent = true;
      metadata.set('served-by', podName);
      sendMetadata.call(call, metadata);
    };
    call.sendStatus = (status) => {
      if (code === undefined) ({ code, details } = status);
      if (headersSent) {
        sendStatus.call(call, status);
        return;
      }
      // Headers and trailers are one frame now. Sent before, headers would keep clients from retrying an UNAVAILABLE.
      const metadata = status.metadata?.clone() ?? new grpc.Metadata();
      metadata.set('served-by', podName);
      sendStatus.call(call, { ...status, metadata });
    };
    return call as grpc.ServerInterceptingCall;
  }

  return {
    async start() {
      listener.listen(options.port, options.host);
      await once(listener, 'listening');
      return (listener.address() as AddressInfo).port;
    },
    setServing(serving) {
      if (!draining) health.setServing(serving);
    },
    sendGoaway: sessions.sendGoaway,
    drain() {
      draining = true;
      health.setServing(false);
    },
    async finish() {
      health.endWatches();
      const closed = listener.listening ? once(listener, 'close') : undefined;
      listener.close();
      // Clients that no resolver told may still be sending.
      await sessions.sendGoaway();
      await promisify(server.tryShutdown.bind(server))();
      await closed;
    },
    force() {
      for (const call of live) {
        call.sendStatus({ code: Code.UNAVAILABLE, details: 'server is shutting down', metadata: null });
      }
      connections.drain(forceFlushMs);
    },
    counters: observer.counters,
  };
}
