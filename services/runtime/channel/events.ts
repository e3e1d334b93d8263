import type { CallStatus, ConnectionState, Method } from '../call/call.ts';

/**
 * Everything that happens in a channel, told once: metrics, spans, logs and introspection all listen to this stream.
 * Durations are milliseconds.
 */
export type ChannelEvent =
  | { readonly type: 'endpoints'; readonly endpointIds: readonly string[] }
  | { readonly type: 'resolver-error'; readonly error: Error }
  | {
      readonly type: 'connection';
      readonly endpointId: string;
      readonly state: ConnectionState;
      readonly lastError: string;
    }
  | { readonly type: 'health'; readonly endpointId: string; readonly health: Health }
  | {
      readonly type: 'attempt-started';
      readonly method: Method;
      readonly endpointId: string;
      /** 0 for the first attempt of a call. */
      readonly attempt: number;
    }
  | {
      readonly type: 'attempt-ended';
      readonly method: Method;
      readonly endpointId: string;
      readonly attempt: number;
      readonly status: CallStatus;
      readonly durationMs: number;
    }
  | {
      readonly type: 'call-ended';
      readonly method: Method;
      readonly status: CallStatus;
      readonly attempts: number;
      readonly durationMs: number;
    };

/** What the health service of an endpoint last said; `unknown` until its first answer. */
export type Health = 'unknown' | 'serving' | 'not-serving';

export type ChannelListener = (event: ChannelEvent) => void;
