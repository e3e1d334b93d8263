import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { suite, test } from 'node:test';
import { promisify } from 'node:util';
import { addReflection } from './reflection.ts';
import { startServer } from './testing.ts';

const run = promisify(execFile);
const skip = await run('grpcurl', ['-version']).then(
  () => false,
  () => 'grpcurl is not installed',
);

suite('reflection, as grpcurl uses it', { skip }, () => {
  test('lists the services and describes them with their comments and imports', async () => {
    await using fixture = await startServer({});
    const grpcurl = async (...args: string[]) =>
      (await run('grpcurl', ['-plaintext', `127.0.0.1:${fixture.port}`, ...args])).stdout;
    assert.equal(await grpcurl('list'), 'grpc.health.v1.Health\nhelloworld.Greeter\n');
    const service = await grpcurl('describe', 'helloworld.Greeter');
    assert.match(service, /\/\/ Greets one name\.\n\s+rpc SayHello \( \.helloworld\.HelloRequest \)/);
    assert.match(service, /option idempotency_level = NO_SIDE_EFFECTS;/);
    assert.match(
      await grpcurl('describe', 'helloworld.HelloStreamRequest'),
      /\.google\.protobuf\.Duration reply_interval = 3;/,
    );
  });

  test('is enough for a call without proto files', async () => {
    await using fixture = await startServer({
      SayHello: async ({ name }: { readonly name: string }) => ({ message: `Hello ${name}` }),
    });
    const args = ['-plaintext', '-d', '{"name": "Ada"}', `127.0.0.1:${fixture.port}`, 'helloworld.Greeter/SayHello'];
    assert.deepEqual(JSON.parse((await run('grpcurl', args)).stdout), { message: 'Hello Ada' });
  });
});

test('what is no descriptor set stops the start', () => {
  for (const bytes of [[0x12, 0x00], [0x0a, 0x05, 0x00], [0x0a]]) {
    assert.throws(
      () => addReflection({ addService() {} }, { descriptors: Uint8Array.from(bytes), services: [] }),
      /descriptors are no FileDescriptorSet/,
    );
  }
});
