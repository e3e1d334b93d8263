import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readDescriptors } from './descriptors.ts';
import { withGoogleTypes } from './google.ts';

describe("Google's types", () => {
  it('are there beside those of a service that imports none of them', () => {
    const { types } = readDescriptors(fileURLToPath(new URL('../../proto/descriptors.binpb', import.meta.url)));
    const all = withGoogleTypes(types);
    for (const name of [
      'rpc.ErrorInfo',
      'rpc.BadRequest',
      'protobuf.Any',
      'protobuf.Timestamp',
      'protobuf.Struct',
      'protobuf.Int64Value',
      'protobuf.Empty',
    ]) {
      assert.ok(all.getMessage(`google.${name}`), name);
    }
    assert.equal(all.getMessage('helloworld.HelloRequest'), types.getMessage('helloworld.HelloRequest'));
    assert.equal(types.getMessage('google.protobuf.Struct'), undefined);
  });
});
