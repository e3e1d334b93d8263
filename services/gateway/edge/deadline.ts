import { badRequest } from '#runtime/call/details.ts';

/** Without a `Grpc-Timeout` header and a `timeout` in the service config. */
const defaultTimeoutMs = 2_000;
/** What a call that answers once may take at most, whoever asks. */
const maxTimeoutMs = 10_000;
/** The longest that a timer of Node takes, 24 days: a longer one would end at once. */
const maxStreamTimeoutMs = 2 ** 31 - 1;

/** One to eight digits and a unit: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md */
const grpcTimeoutSyntax = /^(\d{1,8})([HMSmun])$/;
const unitMs = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/** The duration of a `Grpc-Timeout` header, in milliseconds. Throws RpcError INVALID_ARGUMENT if it is none. */
export function parseGrpcTimeout(text: string): number {
  const [, digits = '0', unit] = grpcTimeoutSyntax.exec(text) ?? [];
  const timeoutMs = Number(digits) * unitMs[unit as keyof typeof unitMs];
  if (!(timeoutMs > 0)) {
    throw badRequest([
      {
        field: 'grpc-timeout',
        description: `must be 1 to 8 digits, not all 0, and one of HMSmun, is ${JSON.stringify(text)}`,
      },
    ]);
  }
  return timeoutMs;
}

/**
 * When a call that begins at `nowMs` must have ended. A call with one reply: the header, else the method's timeout, else
 * 2 s, and at most 10 s. A stream may last: only the header or the method's timeout end it, and otherwise its idle timeout.
 */
export function deadlineOf(options: {
  readonly grpcTimeout: string | undefined;
  readonly methodTimeoutMs: number | undefined;
  readonly stream: boolean;
  readonly nowMs: number;
}): number {
  const { grpcTimeout, methodTimeoutMs, stream, nowMs } = options;
  const timeoutMs = grpcTimeout === undefined ? methodTimeoutMs : parseGrpcTimeout(grpcTimeout);
  if (stream) return nowMs + (timeoutMs === undefined ? Infinity : Math.min(timeoutMs, maxStreamTimeoutMs));
  return nowMs + Math.min(timeoutMs ?? defaultTimeoutMs, maxTimeoutMs);
}
