import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fromJSON, type MessageTypeDefinition } from '@grpc/proto-loader';
import { badRequest } from './details.ts';
import { getBytes } from './metadata.ts';
import { Code } from './status.ts';

/** As https://github.com/googleapis/googleapis/tree/master/google/rpc has them. */
const messages = fromJSON({
  nested: {
    Status: {
      fields: {
        code: { type: 'int32', id: 1 },
        message: { type: 'string', id: 2 },
        details: { rule: 'repeated', type: 'Any', id: 3 },
      },
    },
    Any: { fields: { type_url: { type: 'string', id: 1 }, value: { type: 'bytes', id: 2 } } },
    BadRequest: { fields: { field_violations: { rule: 'repeated', type: 'FieldViolation', id: 1 } } },
    FieldViolation: { fields: { field: { type: 'string', id: 1 }, description: { type: 'string', id: 2 } } },
  },
}) as Record<string, MessageTypeDefinition<object, object>>;

test('a bad request is INVALID_ARGUMENT with a google.rpc.BadRequest that names each field', () => {
  const violations = [
    { field: 'name', description: `must be <= 1024 bytes, is ${'2'.repeat(300)}` },
    { field: 'reply_interval', description: 'must be ≥ 0s 🎉' },
  ];
  const error = badRequest(violations);
  const text = `name ${violations[0]?.description}; reply_interval must be ≥ 0s 🎉`;
  assert.equal(error.code, Code.INVALID_ARGUMENT);
  assert.equal(error.details, text);

  const bytes = getBytes(error.metadata, 'grpc-status-details-bin');
  assert.ok(bytes);
  const status = messages.Status?.deserialize(Buffer.from(bytes)) as {
    code: number;
    message: string;
    details: { type_url: string; value: Buffer }[];
  };
  assert.equal(status.code, Code.INVALID_ARGUMENT);
  assert.equal(status.message, text);
  assert.ok(status.details[0]);
  assert.equal(status.details.length, 1);
  assert.equal(status.details[0].type_url, 'type.googleapis.com/google.rpc.BadRequest');
  const detail = messages.BadRequest?.deserialize(status.details[0].value);
  assert.deepEqual(JSON.parse(JSON.stringify(detail)), { field_violations: violations });
});
