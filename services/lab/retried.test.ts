import assert from 'node:assert/strict';
import test from 'node:test';
import { countRetried } from './retried.ts';

test('counts the attempts beyond the first of each call, over all labels', () => {
  const metrics = [
    '# TYPE grpc_client_attempt_duration_seconds histogram',
    'grpc_client_attempt_duration_seconds_bucket{le="+Inf",grpc_status="OK"} 100',
    'grpc_client_attempt_duration_seconds_count{grpc_status="OK"} 100',
    'grpc_client_attempt_duration_seconds_count{grpc_status="UNAVAILABLE"} 7',
    'grpc_client_call_duration_seconds_count{grpc_status="OK"} 100',
  ].join('\n');
  assert.equal(countRetried(metrics), 7);
  assert.equal(countRetried(''), 0);
});
