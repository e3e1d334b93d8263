import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, toBinary } from '@bufbuild/protobuf';
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FileDescriptorProtoSchema,
} from '@bufbuild/protobuf/wkt';
import { loadFileDescriptorSetFromBuffer } from '@grpc/proto-loader';
import { joinFiles, splitFiles, withoutOptions } from './descriptor-files.ts';
import { callMethod, descriptors, startServer } from './testing.ts';

const files = splitFiles(descriptors);
/** A file with an option of a team's own, as protovalidate and many others bring it. */
const ownOption = {
  name: 'team/options.proto',
  bytes: Buffer.from(
    toBinary(
      FileDescriptorProtoSchema,
      create(FileDescriptorProtoSchema, {
        name: 'team/options.proto',
        package: 'team',
        syntax: 'proto3',
        dependency: ['google/protobuf/descriptor.proto'],
        extension: [
          {
            name: 'owner',
            extendee: '.google.protobuf.MethodOptions',
            number: 50_000,
            label: FieldDescriptorProto_Label.OPTIONAL,
            type: FieldDescriptorProto_Type.STRING,
          },
        ],
      }),
    ),
  ),
};

test('a set is its files, one behind the other', () => {
  assert.deepEqual(
    files.map(({ name }) => name).toSorted(),
    [
      'google/api/annotations.proto',
      'google/api/http.proto',
      'google/protobuf/descriptor.proto',
      'google/protobuf/duration.proto',
      'helloworld/helloworld.proto',
    ].toSorted(),
  );
  assert.deepEqual(splitFiles(joinFiles(files)), files);
});

test('what only HTTP rules are made of is left out', () => {
  assert.deepEqual(
    withoutOptions(files)
      .map(({ name }) => name)
      .toSorted(),
    ['google/protobuf/duration.proto', 'helloworld/helloworld.proto'],
  );
});

test("what other files import stays: a team's own options, messages made of descriptors", async () => {
  const all = [...files, ownOption];
  const kept = withoutOptions(all);
  assert.ok(kept.some(({ name }) => name === 'google/protobuf/descriptor.proto'));
  // The control: without it nothing can be loaded.
  const tooFew = kept.filter(({ name }) => name !== 'google/protobuf/descriptor.proto');
  assert.throws(() => loadFileDescriptorSetFromBuffer(joinFiles(tooFew)));
  await using fixture = await startServer(
    { SayHello: async ({ name }: { readonly name: string }) => ({ message: `Hello ${name}` }) },
    { descriptors: joinFiles(all) },
  );
  const { messages } = await callMethod(fixture.client, 'SayHello', [{ name: 'Ada' }]);
  assert.deepEqual(messages, [{ message: 'Hello Ada' }]);
});
