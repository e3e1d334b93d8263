import diagnostics from 'node:diagnostics_channel';
import type { ClientHttp2Stream } from 'node:http2';
import { isIPv6 } from 'node:net';
import {
  type CallOptions,
  ChannelCredentials,
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  type ClientUnaryCall,
  type ClientWritableStream,
  connectivityState,
  credentials as grpcCredentials,
  Metadata as GrpcMetadata,
  type StatusObject,
} from '@grpc/grpc-js';
import type {
  Call,
  CallObserver,
  CallStart,
  CallStatus,
  Connection,
  ConnectionState,
  Endpoint,
  Metadata,
  Transport,
} from '../../call/call.ts';
import { Code, localStatus } from '../../call/status.ts';
import { withoutInstrumentation } from '../../process/tracing.ts';

export interface GrpcJsTransportOptions {
  /** Defaults to plaintext. */
  readonly credentials?: ChannelCredentials;
  /** The `:authority` of calls and the name in the server's certificate. Defaults to the endpoint's address. */
  readonly authority?: string;
  /** How long a peer may say nothing after it accepted a connection. Defaults to 3 s. */
  readonly silentAcceptTimeoutMs?: number;
  /**
   * How often a connection with calls in flight, a health Watch among them, is pinged. Defaults to 330 s: servers that
   * allow a ping each 300 s, as those of Go and Java do, end connections that ask more often.
   */
  readonly keepaliveTimeMs?: number;
  /** How long the ping may stay unanswered. Defaults to 5 s. */
  readonly keepaliveTimeoutMs?: number;
  /** First reconnect backoff; it grows to `maxReconnectBackoffMs`, with jitter. Defaults to 250 ms. */
  readonly initialReconnectBackoffMs?: number;
  /** Defaults to 5 s. */
  readonly maxReconnectBackoffMs?: number;
  /** Defaults to 4 MiB. */
  readonly maxReceiveMessageBytes?: number;
}

/**
 * Connections by `@grpc/grpc-js`: one `Client` an endpoint, with nothing of its balancing, retries or health in use.
 * Calls go through `Client.make*Request` with bytes.
 */
export function createGrpcJsTransport(options: GrpcJsTransportOptions = {}): Transport {
  const { credentials = grpcCredentials.createInsecure(), silentAcceptTimeoutMs = 3_000 } = options;
  const clientOptions = {
    'grpc.enable_retries': 0,
    'grpc.enable_channelz': 0,
    'grpc.enable_http_proxy': 0,
    'grpc.service_config_disable_resolution': 1,
    // Without it two connections to one address would share one socket.
    'grpc.use_local_subchannel_pool': 1,
    // Connections stay until `close`.
    'grpc.client_idle_timeout_ms': 2 ** 31 - 1,
    'grpc.keepalive_time_ms': options.keepaliveTimeMs ?? 330_000,
    'grpc.keepalive_timeout_ms': options.keepaliveTimeoutMs ?? 5_000,
    'grpc.keepalive_permit_without_calls': 0,
    'grpc.initial_reconnect_backoff_ms': options.initialReconnectBackoffMs ?? 250,
    'grpc.max_reconnect_backoff_ms': options.maxReconnectBackoffMs ?? 5_000,
    'grpc.max_receive_message_length': options.maxReceiveMessageBytes ?? 4 * 1024 * 1024,
    ...(options.authority === undefined
      ? {}
      : { 'grpc.default_authority': options.authority, 'grpc.ssl_target_name_override': hostOf(options.authority) }),
  };
  diagnostics.unsubscribe(streamCreated, keepOpenWhenCancelled);
  diagnostics.subscribe(streamCreated, keepOpenWhenCancelled);
  return (endpoint, onState) =>
    new GrpcJsConnection(endpoint, onState, (address, onFailure) => {
      const impatient = new ImpatientCredentials(credentials, silentAcceptTimeoutMs, onFailure);
      return withoutInstrumentation(new Client(grpcTarget(address), impatient, clientOptions), requestNames);
    });
}

const requestNames = [
  'makeUnaryRequest',
  'makeClientStreamRequest',
  'makeServerStreamRequest',
  'makeBidiStreamRequest',
] as const;

/** https://nodejs.org/docs/latest-v24.x/api/diagnostics_channel.html#http2 */
const streamCreated = 'http2.client.stream.created';

/**
 * Node ends the writable side of a stream before it resets it, in a frame of its own, and a server takes what has come so
 * far for all of a stream of requests: an upload that was cut would count as complete. What is cancelled is only reset.
 */
function keepOpenWhenCancelled(message: unknown): void {
  const { stream } = message as { readonly stream: ClientHttp2Stream };
  const { _final } = stream;
  stream._final = (done) => {
    if (stream.aborted) done();
    else _final.call(stream, done);
  };
}

/** After how long an endpoint none of whose addresses answered is tried from its first address again. */
const retryAddressesMs = 5_000;

const stateNames = Object.fromEntries(
  Object.entries(connectivityState).map(([name, value]) => [value, name]),
) as Record<number, ConnectionState>;

/** `onFailure` hears why a connection that was accepted fails: grpc-js keeps that to itself. */
type ConnectTo = (address: string, onFailure: (reason: string) => void) => Client;

class GrpcJsConnection implements Connection {
  readonly endpoint: Endpoint;
  state: ConnectionState = 'IDLE';
  lastError = '';
  client: Client;
  private readonly calls = new Set<GrpcJsCall>();
  private closing = false;
  private addressIndex = 0;
  private readonly onState: (state: ConnectionState) => void;
  private readonly connectTo: ConnectTo;
  /** Why the connection that is being made fails, where that is known. */
  private failure = '';
  private graceTimer: NodeJS.Timeout | undefined;
  private addressTimer: NodeJS.Timeout | undefined;

  constructor(endpoint: Endpoint, onState: (state: ConnectionState) => void, connectTo: ConnectTo) {
    this.endpoint = endpoint;
    this.onState = onState;
    this.connectTo = connectTo;
    this.client = this.connect(endpoint.addresses[0] ?? '');
    process.nextTick(() => this.watch(this.client));
  }

  get inFlight(): number {
    return this.calls.size;
  }

  start(start: CallStart, observer: CallObserver): Call {
    const call = start.method.responseStream
      ? new StreamingResponseCall(this, start, observer)
      : new UnaryResponseCall(this, start, observer);
    this.calls.add(call);
    if (this.closing) call.endWith(localStatus(Code.UNAVAILABLE, 'connection is closed', 'no'));
    else call.begin();
    return call;
  }

  ended(call: GrpcJsCall): void {
    this.calls.delete(call);
    if (this.closing && this.calls.size === 0) this.shutDown();
  }

  close(graceMs: number): void {
    if (this.state === 'SHUTDOWN') return;
    this.closing = true;
    if (this.calls.size === 0) return this.shutDown();
    if (graceMs === Number.POSITIVE_INFINITY) return;
    clearTimeout(this.graceTimer);
    this.graceTimer = setTimeout(() => {
      for (const call of this.calls) call.cancel(Code.UNAVAILABLE, 'connection closed after its grace');
    }, graceMs);
  }

  private shutDown(): void {
    if (this.state === 'SHUTDOWN') return;
    clearTimeout(this.graceTimer);
    clearTimeout(this.addressTimer);
    this.client.close();
    this.setState('SHUTDOWN');
  }

  private setState(state: ConnectionState): void {
    if (state === this.state) return;
    this.state = state;
    this.lastError = state === 'TRANSIENT_FAILURE' ? `cannot connect to ${this.address}${this.failure}` : '';
    this.failure = '';
    this.onState(state);
  }

  /** Reports the client's state, asks an idle client to connect, and goes on at each change. */
  private watch(client: Client): void {
    if (this.state === 'SHUTDOWN' || client !== this.client) return;
    const channel = client.getChannel();
    if (!this.closing) channel.getConnectivityState(true);
    // Asking may already have changed it, and the next change to what it was before would go unheard.
    const state = channel.getConnectivityState(false);
    if (state === connectivityState.TRANSIENT_FAILURE && this.triedAddress()) return;
    channel.watchConnectivityState(state, Number.POSITIVE_INFINITY, (error) => {
      if (error !== undefined || client !== this.client) return;
      // At once the picker must not see a connection as ready that no longer is; the rest waits until grpc-js is done.
      if (this.state === 'READY') this.setState('CONNECTING');
      process.nextTick(() => this.watch(client));
    });
    this.setState(stateNames[state] ?? 'IDLE');
  }

  private connect(address: string): Client {
    return this.connectTo(address, (reason) => {
      this.failure = `: ${reason}`;
    });
  }

  private get address(): string {
    return this.endpoint.addresses[this.addressIndex] ?? '';
  }

  /** Goes on to the next address. After the last one the endpoint counts as failed, and the first is tried again later. */
  private triedAddress(): boolean {
    const { length } = this.endpoint.addresses;
    if (this.closing || length < 2) return false;
    if (this.addressIndex + 1 < length) {
      this.switchTo(this.addressIndex + 1);
      return true;
    }
    clearTimeout(this.addressTimer);
    this.addressTimer = setTimeout(() => {
      if (!this.closing && this.state === 'TRANSIENT_FAILURE') this.switchTo(0);
    }, retryAddressesMs);
    this.addressTimer.unref();
    return false;
  }

  private switchTo(addressIndex: number): void {
    this.addressIndex = addressIndex;
    this.client.close();
    this.client = this.connect(this.address);
    process.nextTick(() => this.watch(this.client));
  }
}

/** What the two shapes of a response share: the start with grpc-js, the status, and the end exactly once. */
abstract class GrpcJsCall implements Call {
  protected readonly connection: GrpcJsConnection;
  protected readonly callStart: CallStart;
  protected readonly observer: CallObserver;
  protected credits = 0;
  protected ended = false;
  /** What comes before has to be consumed first. */
  protected status: CallStatus | undefined;
  private cancelled = false;
  protected grpcCall:
    | ClientUnaryCall
    | ClientReadableStream<Buffer>
    | ClientWritableStream<Uint8Array>
    | ClientDuplexStream<Uint8Array, Buffer>
    | undefined;

  constructor(connection: GrpcJsConnection, start: CallStart, observer: CallObserver) {
    this.connection = connection;
    this.callStart = start;
    this.observer = observer;
  }

  abstract request(messages: number): void;
  protected abstract open(request: Uint8Array | undefined): void;
  /** Delivers the status as soon as what came before it is consumed. */
  protected abstract finish(): void;

  begin(): void {
    if (this.callStart.method.requestStream) this.open(undefined);
  }

  write(message: Uint8Array, end: boolean): boolean {
    if (this.ended) return true;
    if (!this.callStart.method.requestStream) {
      if (this.grpcCall === undefined) this.open(message);
      return true;
    }
    const stream = this.grpcCall as ClientWritableStream<Uint8Array> | undefined;
    if (stream === undefined) return true;
    const writable = stream.write(message);
    if (end) stream.end();
    return writable;
  }

  end(): void {
    if (this.ended) return;
    if (this.callStart.method.requestStream) (this.grpcCall as ClientWritableStream<Uint8Array> | undefined)?.end();
    else if (this.grpcCall === undefined) this.cancel(Code.INTERNAL, 'the request ended without a message');
  }

  cancel(code: number, details: string): void {
    this.endWith(localStatus(code, details, this.grpcCall === undefined ? 'no' : 'maybe'));
  }

  /** Ends the call with a status of our own, whatever grpc-js may still say. */
  endWith(status: CallStatus): void {
    if (this.ended || this.cancelled) return;
    this.cancelled = true;
    this.grpcCall?.cancel();
    queueMicrotask(() => this.deliver(status));
  }

  protected startWith<T extends NonNullable<GrpcJsCall['grpcCall']>>(
    begin: (metadata: GrpcMetadata, options: CallOptions) => T,
  ): T | undefined {
    const { metadata, deadlineMs } = this.callStart;
    const options: CallOptions =
      deadlineMs === Number.POSITIVE_INFINITY ? {} : { deadline: Date.now() + (deadlineMs - performance.now()) };
    let grpcMetadata: GrpcMetadata;
    try {
      grpcMetadata = toGrpcMetadata(metadata);
    } catch (error) {
      this.endWith(localStatus(Code.INTERNAL, `metadata cannot be sent: ${(error as Error).message}`, 'maybe'));
      return undefined;
    }
    let call: T;
    try {
      call = begin(grpcMetadata, options);
    } catch (error) {
      this.endWith(localStatus(Code.UNAVAILABLE, `cannot start the call: ${(error as Error).message}`, 'no'));
      return undefined;
    }
    this.grpcCall = call;
    call.on('metadata', (received: GrpcMetadata) => {
      if (!this.ended) this.observer.onHeaders(fromGrpcMetadata(received), this.connection.endpoint.id);
    });
    call.on('status', (status: StatusObject) => {
      if (this.ended || this.cancelled) return;
      this.status = toCallStatus(status);
      this.finish();
    });
    return call;
  }

  protected watchWritable(stream: ClientWritableStream<Uint8Array> | ClientDuplexStream<Uint8Array, Buffer>): void {
    stream.on('drain', () => {
      if (!this.ended) this.observer.onWritable();
    });
  }

  protected deliver(status: CallStatus): void {
    if (this.ended) return;
    this.ended = true;
    this.connection.ended(this);
    this.observer.onStatus(status);
  }
}

/** Unary and client streaming: one message comes back. */
class UnaryResponseCall extends GrpcJsCall {
  private message: Buffer | undefined;

  request(messages: number): void {
    this.credits += messages;
    if (this.status !== undefined) queueMicrotask(() => this.finish());
  }

  protected open(request: Uint8Array | undefined): void {
    const { client } = this.connection;
    const { path } = this.callStart.method;
    // The status event brings the error and the trailers.
    const onReply = (_error: unknown, reply?: Buffer) => {
      this.message = reply;
    };
    if (request !== undefined) {
      this.startWith((metadata, options) =>
        client.makeUnaryRequest(path, sameBytes, sameBuffer, request, metadata, options, onReply),
      );
      return;
    }
    const stream = this.startWith((metadata, options) =>
      client.makeClientStreamRequest(path, sameBytes, sameBuffer, metadata, options, onReply),
    );
    if (stream === undefined) return;
    stream.on('error', ignoreError);
    this.watchWritable(stream);
  }

  protected finish(): void {
    if (this.ended || this.status === undefined) return;
    if (this.message !== undefined) {
      if (this.credits === 0) return;
      const { message } = this;
      this.credits--;
      this.message = undefined;
      this.observer.onMessage(message);
    }
    this.deliver(this.status);
  }
}

/** Server and bidirectional streaming: messages come while there is credit; without, grpc-js holds the peer back. */
class StreamingResponseCall extends GrpcJsCall {
  private stream: ClientReadableStream<Buffer> | undefined;

  request(messages: number): void {
    const wasStopped = this.credits === 0;
    this.credits += messages;
    if (wasStopped && !this.ended) this.stream?.resume();
  }

  protected open(request: Uint8Array | undefined): void {
    const { client } = this.connection;
    const { path } = this.callStart.method;
    let stream: ClientReadableStream<Buffer> | undefined;
    if (request === undefined) {
      const duplex = this.startWith((metadata, options) =>
        client.makeBidiStreamRequest(path, sameBytes, sameBuffer, metadata, options),
      );
      if (duplex !== undefined) this.watchWritable(duplex);
      stream = duplex;
    } else {
      stream = this.startWith((metadata, options) =>
        client.makeServerStreamRequest(path, sameBytes, sameBuffer, request, metadata, options),
      );
    }
    if (stream === undefined) return;
    this.stream = stream;
    stream.on('error', ignoreError);
    if (this.credits === 0) stream.pause();
    stream.on('data', (message: Buffer) => {
      if (this.ended) return;
      this.credits--;
      this.observer.onMessage(message);
      if (this.status !== undefined) this.finish();
      else if (this.credits === 0) this.stream?.pause();
    });
  }

  protected finish(): void {
    if (this.ended || this.status === undefined) return;
    const { stream } = this;
    // A status of the peer comes after its messages; one made here, such as an expired deadline, does not wait for a reader.
    const waiting = stream !== undefined && stream.readableLength > 0 && this.status.from === 'peer';
    if (!waiting) return this.deliver(this.status);
    if (this.credits === 0) stream.pause();
  }
}

/** grpc-js calls `copy`, which a plain `Uint8Array` does not have. */
function sameBytes(message: Uint8Array): Buffer {
  return Buffer.isBuffer(message) ? message : Buffer.from(message.buffer, message.byteOffset, message.byteLength);
}

function sameBuffer(message: Buffer): Buffer {
  return message;
}

/** The `error` event repeats what `status` tells; unheard it would end the process. */
function ignoreError(): void {}

function toGrpcMetadata(metadata: Metadata): GrpcMetadata {
  const result = new GrpcMetadata();
  for (const [key, value] of metadata) result.add(key, value as string | Buffer);
  return result;
}

function fromGrpcMetadata(metadata: GrpcMetadata): Metadata {
  const result: [string, string | Uint8Array][] = [];
  // getMap() would keep only the first of several values.
  for (const key of Object.keys(metadata.getMap())) for (const value of metadata.get(key)) result.push([key, value]);
  return result;
}

/**
 * grpc-js 1.14.7 tells only in these words that a call never left, or was refused (RFC 9113, 8.7) before a handler saw
 * it. `grpc-js.test.ts` holds them; the package is pinned exactly.
 */
const neverSent = [
  'Stream refused by server',
  'Failed to start HTTP/2 stream with error ',
  'No connection established',
  'Channel closed before call started',
];

/** The words of statuses that grpc-js makes itself once a call may have been sent. */
const madeHere = [
  'Connection dropped',
  'Call cancelled',
  'Cancelled on client',
  'Deadline exceeded',
  'Received RST_STREAM with code ',
  'Received HTTP status code ',
  'Write error: ',
  'Write failed with error ',
  'Bandwidth exhausted or memory limit exceeded',
  'No message received',
  'Too many responses received',
];

/** Streams that ended without trailers, though nobody here cancelled them: the peer died, gave up, or ended the connection. */
const endedWithoutTrailers = [
  'Call cancelled',
  'Received RST_STREAM with code 0 ',
  'Received RST_STREAM with code 2 triggered by internal client error: Session closed with error code ',
  'Write error: ',
];

function toCallStatus({ code, details, metadata }: StatusObject): CallStatus {
  if (code === Code.OK) {
    return { code, details, trailers: fromGrpcMetadata(metadata), from: 'peer', seenByPeer: 'maybe' };
  }
  const startsDetails = (words: string) => details.startsWith(words);
  if (neverSent.some(startsDetails)) return localStatus(Code.UNAVAILABLE, details, 'no');
  if (endedWithoutTrailers.some(startsDetails)) {
    return localStatus(Code.UNAVAILABLE, `the stream ended without a status: ${details}`, 'maybe');
  }
  if (madeHere.some(startsDetails)) return localStatus(code, details, 'maybe');
  return { code, details, trailers: fromGrpcMetadata(metadata), from: 'peer', seenByPeer: 'maybe' };
}

/** Idle time after which the kernel asks whether the peer's host is there: a dead one is found in 40 s, without a ping. */
const tcpKeepaliveMs = 30_000;

/** Drops a connection whose peer accepted it and then said nothing: grpc-js would wait for SETTINGS without end. */
class ImpatientCredentials extends ChannelCredentials {
  private readonly inner: ChannelCredentials;
  private readonly timeoutMs: number;
  private readonly onFailure: (reason: string) => void;

  constructor(inner: ChannelCredentials, timeoutMs: number, onFailure: (reason: string) => void) {
    super();
    this.inner = inner;
    this.timeoutMs = timeoutMs;
    this.onFailure = onFailure;
  }

  override _isSecure(): boolean {
    return this.inner._isSecure();
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(
    ...parameters: Parameters<ChannelCredentials['_createSecureConnector']>
  ): ReturnType<ChannelCredentials['_createSecureConnector']> {
    const connector = this.inner._createSecureConnector(...parameters);
    const { timeoutMs, onFailure } = this;
    return {
      connect(socket) {
        socket.setKeepAlive(true, tcpKeepaliveMs);
        let bytesRead = () => 0;
        const timer = setTimeout(() => {
          if (bytesRead() > 0) return;
          onFailure(`the peer said nothing for ${timeoutMs} ms`);
          socket.destroy();
        }, timeoutMs);
        socket.once('close', () => clearTimeout(timer));
        timer.unref();
        return connector.connect(socket).then(
          (connected) => {
            // With TLS those of the handshake do not count.
            bytesRead = () => connected.socket.bytesRead;
            return connected;
          },
          (error: Error) => {
            onFailure(error.message);
            throw error;
          },
        );
      },
      waitForReady: () => connector.waitForReady(),
      getCallCredentials: () => connector.getCallCredentials(),
      destroy: () => connector.destroy(),
    };
  }
}

/** `10.0.0.7:50051` → `ipv4:10.0.0.7:50051`, `[fd00::7]:50051` → `ipv6:[fd00::7]:50051`. */
function grpcTarget(address: string): string {
  return `${isIPv6(hostOf(address)) ? 'ipv6' : 'ipv4'}:${address}`;
}

/** `10.0.0.7:50051` → `10.0.0.7`, `[fd00::7]:50051` → `fd00::7`. */
export function hostOf(address: string): string {
  return address.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
}
