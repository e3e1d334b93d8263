import diagnostics from 'node:diagnostics_channel';
import { constants, type ClientHttp2Stream } from 'node:http2';
import { isIPv6 } from 'node:net';
import { gunzip, inflate } from 'node:zlib';
import {
  ChannelCredentials,
  connectivityState,
  credentials as grpcCredentials,
  type Metadata as GrpcMetadata,
  type StatusObject,
} from '@grpc/grpc-js';
import type { SubchannelCall } from '@grpc/grpc-js/build/src/subchannel-call.js';
import { Subchannel } from '@grpc/grpc-js/build/src/subchannel.js';
import { Http2SubchannelConnector } from '@grpc/grpc-js/build/src/transport.js';
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
 * Connections by `@grpc/grpc-js`: one of its subchannels for each. A subchannel has the connection, with its backoff, its
 * pings and its streams. What lies above it there (client, interceptors, filters, balancing, retries) is what this
 * channel does itself, and would take as much again: docs/performance.md. It is no public interface of the package, which
 * is pinned exactly for that.
 */
export function createGrpcJsTransport(options: GrpcJsTransportOptions = {}): Transport {
  const { credentials = grpcCredentials.createInsecure(), silentAcceptTimeoutMs = 3_000, authority } = options;
  const maxMessageBytes = options.maxReceiveMessageBytes ?? 4 * 1024 * 1024;
  const channelOptions = {
    'grpc.enable_channelz': 0,
    'grpc.enable_http_proxy': 0,
    'grpc.keepalive_time_ms': options.keepaliveTimeMs ?? 330_000,
    'grpc.keepalive_timeout_ms': options.keepaliveTimeoutMs ?? 5_000,
    'grpc.keepalive_permit_without_calls': 0,
    'grpc.initial_reconnect_backoff_ms': options.initialReconnectBackoffMs ?? 250,
    'grpc.max_reconnect_backoff_ms': options.maxReconnectBackoffMs ?? 5_000,
    'grpc.max_receive_message_length': maxMessageBytes,
    ...(authority === undefined ? {} : { 'grpc.ssl_target_name_override': hostOf(authority) }),
  };
  diagnostics.unsubscribe(streamCreated, keepOpenWhenCancelled);
  diagnostics.subscribe(streamCreated, keepOpenWhenCancelled);
  const createSubchannel: CreateSubchannel = (address, onFailure) => {
    const target = { scheme: isIPv6(hostOf(address)) ? 'ipv6' : 'ipv4', path: address };
    const impatient = new ImpatientCredentials(credentials, silentAcceptTimeoutMs, onFailure);
    const hostAndPort = { host: hostOf(address), port: portOf(address) };
    return new Subchannel(target, hostAndPort, channelOptions, impatient, new Http2SubchannelConnector(target));
  };
  return (endpoint, onState) =>
    new GrpcJsConnection(endpoint, onState, { createSubchannel, authority, maxMessageBytes });
}

/** https://nodejs.org/docs/latest-v24.x/api/diagnostics_channel.html#http2 */
const streamCreated = 'http2.client.stream.created';
/** Set while the stream of an upload is created, which tells the channel above at once. */
let isUpload = false;

/**
 * Node ends the writable side of a stream before it resets it, in a frame of its own, and a server takes what has come so
 * far for all of a stream of requests: an upload that was cut would count as complete. What is cancelled is only reset.
 */
function keepOpenWhenCancelled(message: unknown): void {
  if (!isUpload) return;
  const { stream } = message as { readonly stream: ClientHttp2Stream };
  const { _final } = stream;
  stream._final = (done) => {
    if (stream.aborted) done();
    else _final.call(stream, done);
  };
}

/** After how long an endpoint none of whose addresses answered is tried from its first address again. */
const retryAddressesMs = 5_000;

/** `onFailure` hears why a connection that was accepted fails, where grpc-js does not know. */
type CreateSubchannel = (address: string, onFailure: (reason: string) => void) => Subchannel;

interface ConnectionOptions {
  readonly createSubchannel: CreateSubchannel;
  readonly authority: string | undefined;
  readonly maxMessageBytes: number;
}

class GrpcJsConnection implements Connection {
  readonly endpoint: Endpoint;
  state: ConnectionState = 'IDLE';
  lastError = '';
  readonly maxMessageBytes: number;
  subchannel: Subchannel;
  /** The `:authority` of calls. */
  authority: string;
  private readonly calls = new Set<GrpcJsCall>();
  private closing = false;
  private addressIndex = 0;
  private readonly onState: (state: ConnectionState) => void;
  private readonly options: ConnectionOptions;
  /** Why the connection that is being made fails, where that is known. */
  private failure = '';
  private graceTimer: NodeJS.Timeout | undefined;
  private addressTimer: NodeJS.Timeout | undefined;

  constructor(endpoint: Endpoint, onState: (state: ConnectionState) => void, options: ConnectionOptions) {
    this.endpoint = endpoint;
    this.onState = onState;
    this.options = options;
    this.maxMessageBytes = options.maxMessageBytes;
    this.authority = options.authority ?? this.address;
    this.subchannel = this.connect();
  }

  get inFlight(): number {
    return this.calls.size;
  }

  start(start: CallStart, observer: CallObserver): Call {
    const call = new GrpcJsCall(this, start, observer);
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
    this.disconnect();
    this.setState('SHUTDOWN');
  }

  private setState(state: ConnectionState, reason = ''): void {
    if (state === this.state || this.state === 'SHUTDOWN') return;
    this.state = state;
    this.lastError = state === 'TRANSIENT_FAILURE' ? `cannot connect to ${this.address}${reason}` : '';
    this.onState(state);
  }

  private connect(): Subchannel {
    this.failure = '';
    const subchannel = this.options.createSubchannel(this.address, (reason) => {
      this.failure = reason;
    });
    subchannel.ref();
    subchannel.addConnectivityStateListener(this.follow);
    subchannel.startConnecting();
    return subchannel;
  }

  private disconnect(): void {
    this.subchannel.removeConnectivityStateListener(this.follow);
    this.subchannel.unref();
  }

  /** A failure lasts until a connection is made: between its attempts there is nothing new to tell. */
  private readonly follow: Parameters<Subchannel['addConnectivityStateListener']>[0] = (...change) => {
    const [subchannel, , state, , error = ''] = change;
    switch (state) {
      case connectivityState.READY:
        // grpc-js takes the connection into use only after it has told so.
        return process.nextTick(() => {
          if (subchannel === this.subchannel && subchannel.getConnectivityState() === state) this.setState('READY');
        });
      case connectivityState.CONNECTING:
        if (this.state === 'IDLE') this.setState('CONNECTING');
        return;
      case connectivityState.TRANSIENT_FAILURE: {
        if (this.triedAddress()) return;
        const reason = this.failure || reasonOf(error);
        this.failure = '';
        return this.setState('TRANSIENT_FAILURE', reason && `: ${reason}`);
      }
      default:
        // It was lost, or its backoff is over.
        if (this.closing) return;
        if (this.state === 'READY') this.setState('CONNECTING');
        subchannel.startConnecting();
    }
  };

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
    this.authority = this.options.authority ?? this.address;
    this.disconnect();
    this.subchannel = this.connect();
  }
}

/** Messages that are taken from a connection before somebody asks: as many as grpc-js's own streams take. */
const readAhead = 16;
/** Messages that a connection may have yet to send before a writer is held back. */
const maxUnsent = 16;
/** What `setTimeout` takes at most; a longer one would fire at once. */
const maxTimerMs = 2 ** 31 - 1;

/** One call on a subchannel; hears of it as its listener. */
class GrpcJsCall implements Call {
  private readonly connection: GrpcJsConnection;
  private readonly callStart: CallStart;
  private readonly observer: CallObserver;
  private stream: SubchannelCall | undefined;
  private timer: NodeJS.Timeout | undefined;
  private credits = 0;
  /** Messages that came before they were asked for. */
  private received: Uint8Array[] = [];
  private hasReply = false;
  private reading = false;
  /** Set while a compressed message is read; what comes behind it waits. */
  private inflating = false;
  private encoding = 'identity';
  private delivering = false;
  private unsent = 0;
  /** What comes before has to be consumed first. */
  private status: CallStatus | undefined;
  private cancelled = false;
  private ended = false;

  constructor(connection: GrpcJsConnection, start: CallStart, observer: CallObserver) {
    this.connection = connection;
    this.callStart = start;
    this.observer = observer;
  }

  begin(): void {
    if (this.callStart.method.requestStream) this.open();
  }

  request(messages: number): void {
    this.credits += messages;
    if (this.delivering || (this.received.length === 0 && this.status === undefined)) return;
    queueMicrotask(() => this.deliver());
  }

  write(message: Uint8Array, end: boolean): boolean {
    if (this.ended || this.cancelled) return true;
    if (!this.callStart.method.requestStream) {
      if (this.stream !== undefined) return true;
      this.open();
    }
    const { stream } = this;
    if (stream === undefined) return true;
    if (this.callStart.method.requestStream) {
      this.unsent++;
      stream.sendMessageWithContext({ callback: this.onSent }, frameOf(message));
      if (end) stream.halfClose();
      return this.unsent < maxUnsent;
    }
    stream.sendMessageWithContext(withoutCallback, frameOf(message));
    stream.halfClose();
    return true;
  }

  end(): void {
    if (this.ended) return;
    if (this.stream !== undefined) this.stream.halfClose();
    else if (!this.callStart.method.requestStream) {
      this.cancel(Code.INTERNAL, 'the request ended without a message');
    }
  }

  cancel(code: number, details: string): void {
    this.endWith(localStatus(code, details, this.stream === undefined ? 'no' : 'maybe'));
  }

  /** Ends the call with a status of our own, whatever grpc-js may still say. */
  endWith(status: CallStatus): void {
    if (this.ended || this.cancelled) return;
    this.cancelled = true;
    this.stream?.cancelWithStatus(Code.CANCELLED, '');
    queueMicrotask(() => this.finish(status));
  }

  onReceiveMetadata(metadata: GrpcMetadata): void {
    if (this.ended) return;
    const received = fromGrpcMetadata(metadata);
    for (const [key, value] of received) if (key === 'grpc-encoding') this.encoding = String(value);
    this.observer.onHeaders(received, this.connection.endpoint.id);
  }

  /** A whole frame: whether it is compressed (1 byte), the length (4 bytes), the message. */
  onReceiveMessage(frame: Buffer): void {
    this.reading = false;
    if (this.ended || this.cancelled) return;
    if (this.hasReply && !this.callStart.method.responseStream) {
      return this.cancel(Code.UNIMPLEMENTED, 'the replica sent more than one message');
    }
    this.hasReply = true;
    const message = frame.subarray(5);
    if (frame[0] === 1) return this.inflate(message);
    this.received.push(message);
    this.deliver();
  }

  onReceiveStatus(status: StatusObject): void {
    if (this.ended || this.cancelled) return;
    const { responseStream } = this.callStart.method;
    this.status =
      status.code === Code.OK && !this.hasReply && !responseStream
        ? localStatus(Code.UNIMPLEMENTED, 'the replica sent no message', 'maybe')
        : toCallStatus(status);
    this.deliver();
  }

  private readonly onSent = (): void => {
    this.unsent--;
    if (this.unsent === maxUnsent - 1 && !this.ended) this.observer.onWritable();
  };

  private open(): void {
    const { connection, callStart } = this;
    const { method, deadlineMs } = callStart;
    const metadata = new HeadersOfCall(callStart.metadata);
    const problem = metadata.problem;
    if (problem !== undefined) {
      return this.endWith(localStatus(Code.INTERNAL, `metadata cannot be sent: ${problem}`, 'maybe'));
    }
    if (deadlineMs !== Number.POSITIVE_INFINITY) {
      const timeoutMs = Math.max(1, Math.ceil(deadlineMs - performance.now()));
      metadata.setTimeout(timeoutMs);
      this.timer = setTimeout(() => this.expired(timeoutMs), Math.min(timeoutMs, maxTimerMs));
    }
    isUpload = method.requestStream;
    try {
      const { subchannel, authority } = connection;
      this.stream = subchannel.createCall(metadata as unknown as GrpcMetadata, authority, method.path, this);
    } catch (error) {
      return this.endWith(localStatus(Code.UNAVAILABLE, `cannot start the call: ${(error as Error).message}`, 'no'));
    } finally {
      isUpload = false;
    }
    this.read();
  }

  private expired(timeoutMs: number): void {
    this.cancel(
      Code.DEADLINE_EXCEEDED,
      `deadline exceeded after ${timeoutMs} ms, endpoint ${this.connection.endpoint.id}`,
    );
  }

  private read(): void {
    if (this.reading || this.inflating || this.received.length >= readAhead) return;
    this.reading = true;
    this.stream?.startRead();
  }

  private inflate(message: Uint8Array): void {
    const { encoding } = this;
    const read = encoding === 'gzip' ? gunzip : encoding === 'deflate' ? inflate : undefined;
    if (read === undefined)
      return this.cancel(Code.INTERNAL, `a message is compressed, and grpc-encoding is ${encoding}`);
    this.inflating = true;
    const { maxMessageBytes } = this.connection;
    read(message, { maxOutputLength: maxMessageBytes }, (error, whole) => {
      this.inflating = false;
      if (this.ended || this.cancelled) return;
      if (error !== null) {
        const code = 'code' in error && error.code === 'ERR_BUFFER_TOO_LARGE' ? Code.RESOURCE_EXHAUSTED : Code.INTERNAL;
        return this.cancel(code, `a compressed message cannot be read: ${error.message}`);
      }
      this.received.push(whole);
      this.deliver();
    });
  }

  /** Hands over what was asked for, and the status behind the last message. */
  private deliver(): void {
    if (this.ended || this.delivering) return;
    this.delivering = true;
    while (this.credits > 0 && !this.ended) {
      const message = this.received.shift();
      if (message === undefined) break;
      this.credits--;
      this.observer.onMessage(message);
    }
    this.delivering = false;
    if (this.ended) return;
    if (this.status === undefined) return this.read();
    // A status of the peer comes after its messages; one made here does not wait for a reader.
    const waits = this.inflating || (this.received.length > 0 && this.status.from === 'peer');
    if (!waits) this.finish(this.status);
  }

  private finish(status: CallStatus): void {
    if (this.ended) return;
    this.ended = true;
    clearTimeout(this.timer);
    this.received = [];
    this.connection.ended(this);
    this.observer.onStatus(status);
  }
}

const withoutCallback = {};

/** https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests: whether it is compressed, and its length. */
function frameOf(message: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(5 + message.length);
  frame[0] = 0;
  frame.writeUInt32BE(message.length, 1);
  frame.set(message, 5);
  return frame;
}

const keySyntax = /^[0-9a-z_.-]+$/;
const valueSyntax = /^[ -~]*$/;
/** `grpc-timeout` has eight digits at most. */
const maxTimeoutValue = 10 ** 8 - 1;

/** The headers of a call: of a grpc-js `Metadata` all that a subchannel asks for. */
class HeadersOfCall {
  /** Why they cannot be sent. */
  readonly problem: string | undefined;
  private readonly headers: Record<string, string | string[]> = { 'grpc-accept-encoding': 'identity,deflate,gzip' };

  constructor(metadata: Metadata) {
    for (const [key, value] of metadata) {
      const text = typeof value === 'string' ? value : Buffer.from(value).toString('base64');
      if (!keySyntax.test(key) || !valueSyntax.test(text)) this.problem = `${key} is not printable ASCII`;
      const existing = this.headers[key];
      this.headers[key] = existing === undefined ? text : [existing, text].flat();
    }
  }

  setTimeout(timeoutMs: number): void {
    this.headers['grpc-timeout'] =
      timeoutMs <= maxTimeoutValue ? `${timeoutMs}m` : `${Math.min(Math.ceil(timeoutMs / 1_000), maxTimeoutValue)}S`;
  }

  toHttp2Headers(): Record<string, string | string[]> {
    return this.headers;
  }
}

function fromGrpcMetadata(metadata: GrpcMetadata): Metadata {
  const result: [string, string | Uint8Array][] = [];
  const entries = metadata.toJSON();
  for (const key in entries) for (const value of entries[key] ?? []) result.push([key, value]);
  return result;
}

/** `Error: connect ECONNREFUSED 10.0.0.7:50051`, `Failed to connect (2026-…)` → without what says nothing. */
function reasonOf(error: string): string {
  return error.replace(/^(\w*Error: )+/, '').replace(/ \([-\dT:.Z]+\)$/, '');
}

/** The words of the statuses that grpc-js 1.14.7 makes itself once a call may have been sent: nothing else tells. */
const madeHere = [
  'Connection dropped',
  'Call cancelled',
  'Received RST_STREAM with code ',
  'Received HTTP status code ',
  'Write error: ',
  'Write failed with error ',
  'Bandwidth exhausted or memory limit exceeded',
];

/** Streams that ended without trailers, though nobody here cancelled them: the peer died, gave up, or ended the connection. */
const endedWithoutTrailers = [
  'Call cancelled',
  'Received RST_STREAM with code 0 ',
  'Received RST_STREAM with code 2 triggered by internal client error: Session closed with error code ',
  'Write error: ',
];

function toCallStatus(status: StatusObject & { readonly rstCode?: number | undefined }): CallStatus {
  const { code, details, metadata } = status;
  if (code === Code.OK) {
    return { code, details, trailers: fromGrpcMetadata(metadata), from: 'peer', seenByPeer: 'maybe' };
  }
  const startsDetails = (words: string) => details.startsWith(words);
  // Before a handler saw it: RFC 9113, 8.7.
  if (status.rstCode === constants.NGHTTP2_REFUSED_STREAM) return localStatus(Code.UNAVAILABLE, details, 'no');
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

/** `10.0.0.7:50051` → `10.0.0.7`, `[fd00::7]:50051` → `fd00::7`. */
export function hostOf(address: string): string {
  return address.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
}

function portOf(address: string): number {
  return Number(address.slice(address.lastIndexOf(':') + 1));
}
