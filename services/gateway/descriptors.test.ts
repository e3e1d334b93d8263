import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { create, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema, file_google_protobuf_empty } from '@bufbuild/protobuf/wkt';
import { ConfigError } from '#runtime/process/config.ts';
import { readDescriptors } from './descriptors.ts';
import { compileProto, libraryProto } from './testdata/build.ts';

const directory = mkdtempSync(join(tmpdir(), 'tandem-descriptors-'));
after(() => rmSync(directory, { recursive: true }));

describe('descriptors', () => {
  it('tell the methods of a service, their kinds, idempotency and routes', () => {
    const { methods } = readDescriptors(fileURLToPath(new URL('../../proto/descriptors.binpb', import.meta.url)));
    assert.deepEqual(
      methods.map(({ method, input, rule }) => [
        method.path,
        method.requestStream,
        method.responseStream,
        method.idempotency,
        input.typeName,
        rule?.get ?? rule?.post,
      ]),
      [
        [
          '/helloworld.Greeter/SayHello',
          false,
          false,
          'NO_SIDE_EFFECTS',
          'helloworld.HelloRequest',
          '/v1/hello/{name}',
        ],
        [
          '/helloworld.Greeter/SayHelloStreamReply',
          false,
          true,
          'NO_SIDE_EFFECTS',
          'helloworld.HelloStreamRequest',
          '/v1/hello/{name}/stream',
        ],
        [
          '/helloworld.Greeter/SayHelloStreamRequest',
          true,
          false,
          'NO_SIDE_EFFECTS',
          'helloworld.HelloRequest',
          '/v1/hello:collect',
        ],
        [
          '/helloworld.Greeter/SayHelloBidiStream',
          true,
          true,
          'NO_SIDE_EFFECTS',
          'helloworld.HelloRequest',
          '/v1/hello:chat',
        ],
      ],
    );
  });

  it('have response_body too, which older copies of google.api lack', () => {
    const { methods } = compileProto(libraryProto);
    const list = methods.find(({ method }) => method.path.endsWith('/ListBooks'));
    assert.deepEqual(list?.rule, { get: '/v1/{parent=shelves/*}/books', responseBody: 'books' });
    assert.equal(methods.find(({ method }) => method.path.endsWith('/Echo'))?.rule, undefined);
  });

  const bad: [name: string, bytes: Uint8Array | undefined, why: RegExp][] = [
    ['is not there', undefined, /^DESCRIPTORS .*\.binpb cannot be read: ENOENT$/],
    ['is something else', Buffer.from('syntax = "proto3";'), /is not a descriptor set with its imports/],
    ['is empty', Buffer.alloc(0), /has no service$/],
    [
      'lacks its imports',
      toBinary(
        FileDescriptorSetSchema,
        create(FileDescriptorSetSchema, { file: [{ name: 'a.proto', dependency: ['b.proto'], syntax: 'proto3' }] }),
      ),
      /with its imports, made by `buf build -o`: .*b\.proto/,
    ],
    [
      'has messages only',
      toBinary(FileDescriptorSetSchema, create(FileDescriptorSetSchema, { file: [file_google_protobuf_empty.proto] })),
      /has no service$/,
    ],
  ];
  for (const [index, [name, bytes, why]] of bad.entries()) {
    it(`stop the start if the file ${name}`, () => {
      const path = join(directory, `${index}.binpb`);
      if (bytes !== undefined) writeFileSync(path, bytes);
      assert.throws(
        () => readDescriptors(path),
        (error) => error instanceof ConfigError && why.test(error.problems[0] ?? ''),
      );
    });
  }
});
