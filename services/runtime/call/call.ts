/**
 * The seam: the one shape of everything between a request and a replica. A channel, a connection and each stage above
 * them are a `Caller`, so that stages compose, unary calls and streams are one path, and another transport can take
 * the place of grpc-js's without a change elsewhere. Messages are bytes here.
 */

/** Keys are lower case; a key that ends in `-bin` carries bytes. Immutable, since the attempts of a call share it. */
export type Metadata = readonly MetadataEntry[];
export type MetadataEntry = readonly [key: string, value: string | Uint8Array];

/** What the descriptors say of a method. Built once, at start, and shared by its calls. */
export interface Method {
  readonly path: `/${string}/${string}`;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  /** `google.protobuf.MethodOptions.idempotency_level`. */
  readonly idempotency: 'UNKNOWN' | 'IDEMPOTENT' | 'NO_SIDE_EFFECTS';
}

export interface CallStart {
  readonly method: Method;
  readonly metadata: Metadata;
  /** A point in time on the clock of `performance.now()`; `Infinity` for none. */
  readonly deadlineMs: number;
  readonly priority: 'high' | 'low';
  /** What follows the call; undefined where nobody does. */
  readonly context: CallContext | undefined;
  /** Ids of endpoints that another one is preferred to, such as those that earlier attempts used. */
  readonly avoid: readonly string[];
}

/** Follows one call, so that its attempts are spans of one trace. */
export interface CallContext {
  /** Runs right before an attempt is sent. */
  startAttempt(attempt: AttemptStart): AttemptSpan;
}

export interface AttemptStart {
  readonly method: Method;
  readonly endpoint: Endpoint;
  readonly reason: AttemptReason;
  /** The name of the channel; empty where it has none. */
  readonly upstream: string;
  /** The target that the endpoint is of, and its index among those of the channel: 0 is the primary. */
  readonly target: string;
  readonly priority: number;
}

/** Why there is an attempt. `repick`: the one before was never sent or refused, so that no policy or budget has a say. */
export type AttemptReason = 'first' | 'repick' | 'retry' | 'hedge';

export interface AttemptSpan {
  /** Sent along with the call's own: which span the peer's belongs to. */
  readonly metadata: Metadata;
  end(outcome: AttemptOutcome): void;
}

export interface AttemptOutcome {
  readonly status: CallStatus;
  /** Another attempt of the call answered first: this one was cancelled and counts neither way. */
  readonly lost: boolean;
  /** Messages. */
  readonly sent: number;
  readonly received: number;
}

export interface CallStatus {
  /** https://grpc.io/docs/guides/status-codes/ */
  readonly code: number;
  readonly details: string;
  readonly trailers: Metadata;
  /** Whether the peer sent this status or this process made it. */
  readonly from: 'peer' | 'local';
  /** `no`: the call was never sent, or refused before a handler saw it, so that any method may be tried again. */
  readonly seenByPeer: 'no' | 'maybe';
}

/**
 * Receives what comes back: headers at most once, then at most as many messages as were requested, then the status
 * exactly once and nothing after it. No callback runs inside `start()`.
 */
export interface CallObserver {
  /** `endpointId` is the replica that answered. */
  onHeaders(metadata: Metadata, endpointId: string): void;
  onMessage(message: Uint8Array): void;
  /** Writing may go on after `write` returned false. */
  onWritable(): void;
  onStatus(status: CallStatus): void;
}

export interface Call {
  /** Allows that many further messages to come. */
  request(messages: number): void;
  /** Sends a message, the last one if `end`. False asks to wait for `onWritable`; the message is taken all the same. */
  write(message: Uint8Array, end: boolean): boolean;
  /** Ends the request without another message. */
  end(): void;
  /** Ends the call with this status, here and, as a cancellation, at the peer. Without effect once it has ended. */
  cancel(code: number, details: string): void;
}

/** A stage is `(next: Caller) => Caller`; a channel and a connection are callers too. */
export interface Caller {
  start(call: CallStart, observer: CallObserver): Call;
}

/** One replica as a client sees it. */
export interface Endpoint {
  /** Stable for as long as the replica lives: its connection is kept while the id and the addresses stay. */
  readonly id: string;
  /** The addresses that it can be reached at, best first: `10.0.0.7:50051`, `[fd00::7]:50051`. */
  readonly addresses: readonly string[];
  /**
   * False: who keeps the list does not call it ready, nor any other one. It takes calls only while its own health service
   * says that it serves. Defaults to true.
   */
  readonly ready?: boolean;
}

/** Tells the endpoints of a target, as they are now and whenever they change. */
export interface Resolver {
  /** Neither callback runs inside `start()`. After an error the last endpoints stay in use. */
  start(onEndpoints: (endpoints: readonly Endpoint[]) => void, onError: (error: Error) => void): void;
  stop(): void;
}

/** https://github.com/grpc/grpc/blob/master/doc/connectivity-semantics-and-api.md */
export type ConnectionState = 'IDLE' | 'CONNECTING' | 'READY' | 'TRANSIENT_FAILURE' | 'SHUTDOWN';

/** One connection to one endpoint. It connects at once, and again with backoff whenever it was lost. */
export interface Connection extends Caller {
  readonly endpoint: Endpoint;
  readonly state: ConnectionState;
  /** Why it is in TRANSIENT_FAILURE; empty otherwise. */
  readonly lastError: string;
  /** Calls that have not ended. */
  readonly inFlight: number;
  /** Takes no further call, lets those in flight finish for that long, then cancels them with UNAVAILABLE. */
  close(graceMs: number): void;
}

/** `onState` runs at each change of state, never inside the transport itself. */
export type Transport = (endpoint: Endpoint, onState: (state: ConnectionState) => void) => Connection;

/**
 * Chooses the connection of an attempt. Synchronous and without effects on the call. A `CallStatus` fails the attempt;
 * `undefined` queues it until the channel changes.
 */
export type Picker = (call: CallStart) => Connection | CallStatus | undefined;
