import assert from 'node:assert/strict';
import { fromBinary, type Message, toJson } from '@bufbuild/protobuf';
import { getBytes } from '#runtime/call/metadata.ts';
import { Code, RpcError } from '#runtime/call/status.ts';
import { google, statusSchema } from '../google.ts';

/** `field: description` of each violation that the error of `act` carries, which must be INVALID_ARGUMENT. */
export function violationsOf(act: () => unknown): string[] {
  try {
    act();
  } catch (error) {
    assert.ok(error instanceof RpcError, String(error));
    assert.equal(error.code, Code.INVALID_ARGUMENT);
    const bytes = getBytes(error.metadata, 'grpc-status-details-bin');
    if (bytes === undefined) return [error.details];
    const status = toJson(statusSchema, fromBinary(statusSchema, bytes) as Message, { registry: google }) as {
      details: [{ fieldViolations: { field?: string; description: string }[] }];
    };
    return status.details[0].fieldViolations.map(({ field = '', description }) => `${field}: ${description}`);
  }
  assert.fail('nothing was refused');
}
