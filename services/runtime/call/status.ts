import type { CallStatus, Metadata } from './call.ts';

/** https://grpc.io/docs/guides/status-codes/ */
export const Code = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;

export type CodeName = keyof typeof Code;

const codeNames = Object.keys(Code) as CodeName[];

/** The name of a status code; `UNKNOWN` for a number that is none, as gRPC treats it. */
export function codeName(code: number): CodeName {
  return codeNames[code] ?? 'UNKNOWN';
}

/** Those that say that the server is at fault, not its client: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/ */
const serverFaults = new Set<number>([
  Code.UNKNOWN,
  Code.DEADLINE_EXCEEDED,
  Code.UNIMPLEMENTED,
  Code.INTERNAL,
  Code.UNAVAILABLE,
  Code.DATA_LOSS,
]);

export function isServerFault(code: number): boolean {
  return serverFaults.has(code);
}

/** The one error of an RPC: handlers throw it, clients receive it, and the edge turns it into its wire form once. */
export class RpcError extends Error {
  override readonly name = 'RpcError';
  readonly code: number;
  /** Goes to the other side as `grpc-message`. */
  readonly details: string;
  /** Goes to the other side as trailers. */
  readonly metadata: Metadata;

  constructor(code: number, details: string, options: { readonly metadata?: Metadata; readonly cause?: unknown } = {}) {
    super(`${codeName(code)}: ${details}`, { cause: options.cause });
    this.code = code;
    this.details = details;
    this.metadata = options.metadata ?? [];
  }
}

/** A status made by this process, for a call that no peer has seen (`no`) or may have (`maybe`). */
export function localStatus(code: number, details: string, seenByPeer: CallStatus['seenByPeer']): CallStatus {
  return { code, details, trailers: [], from: 'local', seenByPeer };
}
