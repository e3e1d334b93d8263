import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { DescFile } from '@bufbuild/protobuf';
import { readDescriptors } from '../descriptors.ts';
import { commentOf, firstSentence } from './comments.ts';

const { types } = readDescriptors(fileURLToPath(new URL('../../../proto/descriptors.binpb', import.meta.url)));
const greeter = types.getService('helloworld.Greeter');
const request = types.getMessage('helloworld.HelloStreamRequest');

/** A service with this comment above it. */
function serviceWith(leadingComments: string, trailingComments = '') {
  assert.ok(greeter);
  const { proto } = greeter.file;
  const location = { path: [6, 0], span: [], leadingComments, trailingComments, leadingDetachedComments: [] };
  const file = {
    ...greeter.file,
    proto: { ...proto, sourceCodeInfo: { location: [location] } },
  } as unknown as DescFile;
  return { ...greeter, file };
}

describe('comments', () => {
  it('are those above services, methods, messages and fields', () => {
    assert.ok(greeter && request);
    assert.equal(commentOf(greeter), 'Greets people by name.');
    assert.match(
      commentOf(greeter.method['sayHelloStreamRequest'] ?? greeter),
      /^Collects names and.*\n1,000 names\.$/s,
    );
    assert.match(commentOf(request), /^Whom to greet, how often and how far apart\./);
    assert.match(commentOf(request.fields[1] ?? request), /^How many replies to send: /);
  });

  it('are those behind, where there are none above', () => {
    assert.equal(commentOf(serviceWith('', ' Behind.\n')), 'Behind.');
  });

  it('leave out what is for the authors', () => {
    const comment =
      ' Greets.\r\n (-- api-linter: disabled\n     for a reason --)\n buf:lint:ignore SERVICE_SUFFIX\n\n   - indented  \n';
    assert.equal(commentOf(serviceWith(comment)), 'Greets.\n\n\n  - indented');
  });

  it('are empty where the descriptors have no source info', () => {
    assert.ok(greeter);
    const file = {
      ...greeter.file,
      proto: { ...greeter.file.proto, sourceCodeInfo: undefined },
    } as unknown as DescFile;
    assert.equal(commentOf({ ...greeter, file }), '');
  });
});

describe('first sentence', () => {
  const sentences: [comment: string, sentence: string][] = [
    ['', ''],
    ['Greets one name.', 'Greets one name.'],
    ['Greets one\nname. And another.', 'Greets one name.'],
    ['Takes text, e.g. a name. Not more.', 'Takes text, e.g. a name.'],
    ['Version 1.2 of it. `x` is next.', 'Version 1.2 of it.'],
    ['No end\n\nThe next paragraph.', 'No end'],
    ['Why? Because.', 'Why?'],
  ];
  for (const [comment, sentence] of sentences) {
    it(`of ${JSON.stringify(comment)} is ${JSON.stringify(sentence)}`, () => {
      assert.equal(firstSentence(comment), sentence);
    });
  }
});
