import {
  fromBinary,
  type JsonObject,
  type Message,
  type Registry,
  toBinary,
  toJson,
  fromJson,
} from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import type { CallStatus, Metadata } from '#runtime/call/call.ts';
import { getBytes } from '#runtime/call/metadata.ts';
import { Code, RpcError } from '#runtime/call/status.ts';
import { google, statusSchema, withGoogleTypes } from '../google.ts';

/** `google.rpc.Status` as JSON; `message` and `details` only where there are any. */
export interface StatusJson {
  readonly code: number;
  readonly message?: string;
  readonly details?: readonly JsonObject[];
}

/** https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto */
const httpStatusByCode: Readonly<Record<number, number>> = {
  [Code.OK]: 200,
  [Code.CANCELLED]: 499,
  [Code.UNKNOWN]: 500,
  [Code.INVALID_ARGUMENT]: 400,
  [Code.DEADLINE_EXCEEDED]: 504,
  [Code.NOT_FOUND]: 404,
  [Code.ALREADY_EXISTS]: 409,
  [Code.PERMISSION_DENIED]: 403,
  [Code.RESOURCE_EXHAUSTED]: 429,
  [Code.FAILED_PRECONDITION]: 400,
  [Code.ABORTED]: 409,
  [Code.OUT_OF_RANGE]: 400,
  [Code.UNIMPLEMENTED]: 501,
  [Code.INTERNAL]: 500,
  [Code.UNAVAILABLE]: 503,
  [Code.DATA_LOSS]: 500,
  [Code.UNAUTHENTICATED]: 401,
};

/** The HTTP status of a gRPC status code; 500 for a number that is none. */
export function httpStatusOf(code: number): number {
  return httpStatusByCode[code] ?? 500;
}

/**
 * What a client is told of statuses that were made in this process: their own words name addresses and libraries, and go
 * to the log only.
 */
const localMessages: Readonly<Record<number, string>> = {
  [Code.CANCELLED]: 'the call was cancelled',
  [Code.DEADLINE_EXCEEDED]: 'deadline exceeded',
  [Code.RESOURCE_EXHAUSTED]: 'the message is too large',
  [Code.UNAVAILABLE]: 'the service is unavailable',
};

export interface ErrorWriter {
  /** The status as clients see it. */
  statusJson(status: CallStatus): StatusJson;
  /** Headers that go with a status, such as `retry-after` for a `google.rpc.RetryInfo`. */
  headers(json: StatusJson): Record<string, string>;
}

/** Writes statuses with the details of Google's types and of those in `types`. */
export function createErrorWriter(types: Registry): ErrorWriter {
  const registry = withGoogleTypes(types);

  function detailJson(detail: Any): JsonObject {
    const desc = registry.getMessage(detail.typeUrl.slice(detail.typeUrl.lastIndexOf('/') + 1));
    if (desc !== undefined) {
      try {
        const json = toJson(desc, fromBinary(desc, detail.value), { registry });
        const own = typeof json === 'object' && json !== null && !Array.isArray(json);
        return { '@type': detail.typeUrl, ...(own ? json : { value: json }) };
      } catch {
        // As unreadable as a type that is not known.
      }
    }
    return { '@type': detail.typeUrl, value: Buffer.from(detail.value).toString('base64') };
  }

  return {
    statusJson({ code, details, trailers, from }) {
      if (code === Code.OK) return { code };
      const message = from === 'local' ? (localMessages[code] ?? 'internal error') : details;
      const detailList = detailsOf(trailers)
        .filter(({ typeUrl }) => typeUrl !== debugInfoUrl)
        .map(detailJson);
      return { code, ...(message && { message }), ...(detailList.length > 0 && { details: detailList }) };
    },
    headers(json) {
      const delayMs = retryDelayMs(json);
      return delayMs === undefined ? {} : { 'retry-after': String(Math.ceil(delayMs / 1_000)) };
    },
  };
}

const retryInfoUrl = 'type.googleapis.com/google.rpc.RetryInfo';
/** Stack traces, which `error_details.proto` has for eyes inside only. */
const debugInfoUrl = 'type.googleapis.com/google.rpc.DebugInfo';

/** After how long a client may come back, by the `google.rpc.RetryInfo` of a status; undefined where it has none. */
export function retryDelayMs({ details = [] }: StatusJson): number | undefined {
  const delay = details.find((detail) => detail['@type'] === retryInfoUrl)?.['retryDelay'];
  return typeof delay === 'string' ? Math.max(0, Math.round(Number.parseFloat(delay) * 1_000)) : undefined;
}

/** The details of the status in `grpc-status-details-bin`; its code and message are in the trailers themselves. */
function detailsOf(trailers: Metadata): readonly Any[] {
  const bytes = getBytes(trailers, 'grpc-status-details-bin');
  if (bytes === undefined) return [];
  try {
    return (fromBinary(statusSchema, bytes) as Message & { details: Any[] }).details;
  } catch {
    return [];
  }
}

/** A `google.rpc.RetryInfo`: when to come back. */
export function retryInfo(delayMs: number): JsonObject {
  return { '@type': retryInfoUrl, retryDelay: `${delayMs / 1_000}s` };
}

/** A `google.rpc.ErrorInfo`: what an error of the gateway's own is, in a word for programs. */
export function errorInfo(reason: string, metadata?: Readonly<Record<string, string>>): JsonObject {
  return {
    '@type': 'type.googleapis.com/google.rpc.ErrorInfo',
    reason,
    domain: 'gateway.tandem',
    ...(metadata && { metadata }),
  };
}

/** An error with typed details, which are Google's types as JSON. */
export function errorWith(code: number, message: string, details: readonly JsonObject[]): RpcError {
  return new RpcError(code, message, { metadata: detailsTrailer(code, message, details) });
}

/** UNAVAILABLE that asks the client to come back after a delay. */
export function comeBackLater(message: string, delayMs: number): RpcError {
  return errorWith(Code.UNAVAILABLE, message, [retryInfo(delayMs)]);
}

/** An error whose HTTP status no gRPC code has, such as 405, or with headers of its own. */
export class HttpError extends RpcError {
  readonly httpStatus: number;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    httpStatus: number,
    code: number,
    message: string,
    headers: Readonly<Record<string, string>> = {},
    details: readonly JsonObject[] = [],
  ) {
    super(code, message, { metadata: detailsTrailer(code, message, details) });
    this.httpStatus = httpStatus;
    this.headers = headers;
  }
}

function detailsTrailer(code: number, message: string, details: readonly JsonObject[]): Metadata {
  if (details.length === 0) return [];
  const status: JsonObject = { code, message, details: [...details] };
  const bytes = toBinary(statusSchema, fromJson(statusSchema, status, { registry: google }));
  return [['grpc-status-details-bin', bytes]];
}

/** The status of an error. What is no `RpcError` is a fault of this process: INTERNAL, with words for the log only. */
export function statusOf(error: unknown): CallStatus {
  if (error instanceof RpcError) {
    return { code: error.code, details: error.details, trailers: error.metadata, from: 'peer', seenByPeer: 'no' };
  }
  const details = error instanceof Error ? error.message : String(error);
  return { code: Code.INTERNAL, details, trailers: [], from: 'local', seenByPeer: 'no' };
}
