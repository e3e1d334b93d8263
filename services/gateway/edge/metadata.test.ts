import assert from 'node:assert/strict';
import type { IncomingHttpHeaders } from 'node:http';
import { describe, it } from 'node:test';
import type { Metadata } from '#runtime/call/call.ts';
import { violationsOf } from '../transcoding/testing.ts';
import { createMetadataRules, defaultPassedNames, type PassedNames } from './metadata.ts';

function rules(options: { passed?: PassedNames; claimKeys?: readonly string[]; passTraceContext?: boolean } = {}) {
  return createMetadataRules({ passed: defaultPassedNames, claimKeys: [], passTraceContext: false, ...options });
}

function read(headers: IncomingHttpHeaders, options?: Parameters<typeof rules>[0]): Metadata {
  return rules(options).ofRequest(headers, 'r').slice(1);
}

const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';

describe('metadata of a request', () => {
  const cases: [name: string, headers: IncomingHttpHeaders, metadata: Metadata][] = [
    ['nothing of its own accord', { cookie: 'a=b', 'x-forwarded-for': '10.0.0.1', 'x-tenant': 'blue' }, []],
    ['what has the prefix', { 'grpc-metadata-x-tenant': 'blue' }, [['x-tenant', 'blue']]],
    [
      'what is allowed by name',
      { authorization: 'Bearer x', 'accept-language': 'de' },
      [
        ['authorization', 'Bearer x'],
        ['accept-language', 'de'],
      ],
    ],
    ['no header beyond ASCII', { 'accept-language': 'd\xe9' }, []],
    ['text with its commas', { 'grpc-metadata-a': 'x, y' }, [['a', 'x, y']]],
    ['empty text', { 'grpc-metadata-a': '' }, [['a', '']]],
    ['bytes', { 'grpc-metadata-a-bin': 'AP8=' }, [['a-bin', Buffer.from([0, 255])]]],
    ['bytes without padding, for URLs', { 'grpc-metadata-a-bin': '_-8' }, [['a-bin', Buffer.from([255, 239])]]],
    ['no bytes', { 'grpc-metadata-a-bin': '' }, [['a-bin', Buffer.alloc(0)]]],
    [
      'bytes of several headers',
      { 'grpc-metadata-a-bin': 'AA==,/w, Ag' },
      [
        ['a-bin', Buffer.from([0])],
        ['a-bin', Buffer.from([255])],
        ['a-bin', Buffer.from([2])],
      ],
    ],
    [
      'nothing that is for this hop only',
      {
        connection: 'Authorization, grpc-metadata-a',
        authorization: 'x',
        'grpc-metadata-a': '1',
        'grpc-metadata-b': '2',
      },
      [['b', '2']],
    ],
  ];
  for (const [name, headers, metadata] of cases) {
    it(`has ${name}`, () => {
      assert.deepEqual(read(headers), metadata);
    });
  }

  it('has the trace context where this process makes no spans', () => {
    const headers = { traceparent, tracestate: 'a=b', baggage: 'c=d' };
    assert.deepEqual(read(headers, { passTraceContext: true }), Object.entries(headers));
    assert.deepEqual(read(headers), []);
  });

  it('has under their own names what it is told to pass on, and nothing else', () => {
    const passed = { request: ['x-api-key'], reply: [] };
    assert.deepEqual(read({ 'x-api-key': 'k', authorization: 'x', 'grpc-metadata-a': '1' }, { passed }), [
      ['x-api-key', 'k'],
      ['a', '1'],
    ]);
    for (const key of ['x-api-key', 'authorization']) {
      assert.deepEqual(
        violationsOf(() => read({ [`grpc-metadata-${key}`]: 'x' }, { passed })),
        [`grpc-metadata-${key}: is reserved`],
      );
    }
  });

  it('may not have what stands for a claim', () => {
    assert.deepEqual(
      violationsOf(() => read({ 'grpc-metadata-x-user-id': 'root' }, { claimKeys: ['x-user-id'] })),
      ['grpc-metadata-x-user-id: is reserved'],
    );
  });

  const reserved =
    'connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade ' +
    'host content-length content-type user-agent http2-settings date authorization traceparent x-request-id ' +
    'grpc-timeout grpc-status grpc-encoding grpc-x-bin';
  const bad: [key: string, value: string, description: string][] = [
    ...reserved.split(' ').map((key): [string, string, string] => [key, 'AA==', 'is reserved']),
    ['', 'x', 'must be of 0-9 a-z _ . - behind the prefix'],
    ['a b', 'x', 'must be of 0-9 a-z _ . - behind the prefix'],
    [':path', 'x', 'must be of 0-9 a-z _ . - behind the prefix'],
    ['a', '\t', 'must be printable ASCII'],
    ['a', '\xff', 'must be printable ASCII'],
    ['a-bin', '*', 'must be base64'],
    ['a-bin', 'A', 'must be base64'],
    ['a-bin', 'AAAA=', 'must be base64'],
    ['a-bin', 'AA==,*', 'must be base64'],
  ];
  for (const [key, value, description] of bad) {
    it(`may not have ${JSON.stringify(key)} ${JSON.stringify(value)}: ${description}`, () => {
      const name = `grpc-metadata-${key}`;
      assert.deepEqual(
        violationsOf(() => read({ [name]: value })),
        [`${name}: ${description}`],
      );
    });
  }
});

describe('headers of a reply', () => {
  it('have the prefix, but for those that are allowed by name', () => {
    assert.deepEqual(
      rules().ofReply([
        ['served-by', 'a'],
        ['x-cost', '1'],
        ['x-cost', '2'],
        ['x-bin', Uint8Array.of(0, 255)],
      ]),
      { 'served-by': 'a', 'grpc-metadata-x-cost': ['1', '2'], 'grpc-metadata-x-bin': 'AP8=' },
    );
  });

  it('have under their own names what is told so, as HTTP can carry it', () => {
    const passed = { request: [], reply: ['set-cookie', 'x-bin'] };
    const metadata: Metadata = [
      ['set-cookie', 'a=1'],
      ['set-cookie', 'b=2'],
      ['set-cookie', 'c=3\r\nx: y'],
      ['x-bin', Uint8Array.of(0, 255)],
      ['served-by', 'a'],
    ];
    assert.deepEqual(rules({ passed }).ofReply(metadata), {
      'set-cookie': ['a=1', 'b=2'],
      'x-bin': 'AP8=',
      'grpc-metadata-served-by': 'a',
    });
  });

  it('have nothing that is reserved, and nothing that HTTP could not carry', () => {
    const reserved = [
      'connection',
      'transfer-encoding',
      'content-length',
      'content-type',
      'date',
      'grpc-status',
      'trailer',
    ];
    const broken: Metadata = [
      ['a', 'x\r\nset-cookie: y'],
      ['b', '\u0000'],
      ['c d', 'x'],
    ];
    assert.deepEqual(rules().ofReply([...reserved.map((key) => [key, '1'] as const), ...broken]), {});
  });
});
