import type { AttemptReason, CallStatus, ConnectionState, Method } from '../call/call.ts';

/**
 * Everything that happens in a channel, told once: metrics, spans, logs and introspection all listen to this stream.
 * Durations are milliseconds.
 */
export type ChannelEvent =
  | { readonly type: 'endpoints'; readonly endpointIds: readonly string[] }
  | { readonly type: 'resolver-error'; readonly error: Error }
  | {
      /** The TLS files have changed: new connections use them, or, if there is an error, the last good ones. */
      readonly type: 'tls-files';
      readonly error: Error | undefined;
    }
  | {
      readonly type: 'connection';
      readonly endpointId: string;
      readonly state: ConnectionState;
      readonly lastError: string;
    }
  | { readonly type: 'health'; readonly endpointId: string; readonly health: Health }
  | { readonly type: 'ejected'; readonly endpointId: string; readonly reason: EjectionReason }
  | { readonly type: 'returned'; readonly endpointId: string }
  | {
      /** Calls go to this target from now on: 0 is the primary. */
      readonly type: 'priority';
      readonly priority: number;
      readonly target: string;
    }
  | {
      readonly type: 'attempt-started';
      readonly method: Method;
      readonly endpointId: string;
      /** How many attempts of the call a replica may have seen before. */
      readonly attempt: number;
      readonly reason: AttemptReason;
    }
  | {
      readonly type: 'attempt-ended';
      readonly method: Method;
      readonly endpointId: string;
      readonly attempt: number;
      readonly status: CallStatus;
      readonly durationMs: number;
      /** Of its messages, without what frames them. */
      readonly sentBytes: number;
      readonly receivedBytes: number;
      /** Another attempt of the call answered first: this one was cancelled and counts neither way. */
      readonly lost: boolean;
      /** The caller's deadline left it the whole timeout of the service config: its expiry tells of the replica. */
      readonly hadWholeTimeout: boolean;
    }
  /** The policy would have made another attempt, and the budget of all calls did not allow it. */
  | { readonly type: 'budget-exhausted'; readonly method: Method }
  | {
      readonly type: 'call-ended';
      readonly method: Method;
      readonly status: CallStatus;
      readonly attempts: number;
      readonly durationMs: number;
    };

/** Why an endpoint is out of the pick though its connection and its health service are well. */
export const ejectionReasons = ['consecutive-failures', 'success-rate', 'failure-percentage'] as const;
export type EjectionReason = (typeof ejectionReasons)[number];

/** What the health service of an endpoint last said; `unknown` until its first answer. */
export type Health = 'unknown' | 'serving' | 'not-serving';

export type ChannelListener = (event: ChannelEvent) => void;
