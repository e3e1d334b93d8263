import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { startCollector } from '../harness/collector.ts';
import { formatTree } from '../harness/spans.ts';

const program = fileURLToPath(new URL('../../services/runtime/server/testdata/own-client.ts', import.meta.url));

test('calls that a handler makes by a client of its own are in its trace, and each call has one span a side', async (t) => {
  const { spans, env } = await startCollector(t);
  await promisify(execFile)(process.execPath, [program], { env });
  assert.deepEqual(formatTree(spans, spans[0]?.traceId ?? '', ['rpc.response.status_code', 'rpc.grpc.status_code']), [
    'fixture CLIENT grpc.helloworld.Greeter/SayHello 0',
    '  fixture SERVER helloworld.Greeter/SayHello OK',
    '    fixture CLIENT grpc.helloworld.Greeter/SayHello 0',
    '      fixture SERVER helloworld.Greeter/SayHello OK',
  ]);
  assert.equal(spans.length, 4);
});
