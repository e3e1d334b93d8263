import { Code, RpcError } from './status.ts';

/** What is wrong with one field of a request. */
export interface FieldViolation {
  /** Its path in the message, by proto names: `reply_interval`. */
  readonly field: string;
  /** Reads on from the field: `must be <= 1024 bytes, is 2000`. */
  readonly description: string;
}

/**
 * INVALID_ARGUMENT whose trailer `grpc-status-details-bin` is a `google.rpc.Status` with one `google.rpc.BadRequest`.
 * https://cloud.google.com/apis/design/errors#error_details
 */
export function badRequest(violations: readonly FieldViolation[]): RpcError {
  const message = violations.map(({ field, description }) => `${field} ${description}`).join('; ');
  const detail = encode(
    violations.map(({ field, description }) => [
      1,
      encode([
        [1, utf8(field)],
        [2, utf8(description)],
      ]),
    ]), // field_violations
  );
  const status = encode([
    [1, Code.INVALID_ARGUMENT],
    [2, utf8(message)],
    [
      3,
      encode([
        [1, utf8('type.googleapis.com/google.rpc.BadRequest')],
        [2, detail],
      ]),
    ], // details, an Any
  ]);
  return new RpcError(Code.INVALID_ARGUMENT, message, { metadata: [['grpc-status-details-bin', status]] });
}

/** A protobuf message of integers and of what is written with its length: text, bytes, messages. */
function encode(fields: readonly (readonly [number: number, value: number | Uint8Array])[]): Uint8Array {
  return Buffer.concat(
    fields.flatMap(([number, value]) =>
      typeof value === 'number'
        ? [varint(number << 3), varint(value)]
        : [varint((number << 3) | 2), varint(value.length), value],
    ),
  );
}

function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  for (; value > 0x7f; value >>>= 7) bytes.push((value & 0x7f) | 0x80);
  return Uint8Array.from([...bytes, value]);
}

function utf8(text: string): Uint8Array {
  return Buffer.from(text);
}
