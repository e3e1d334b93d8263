import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fromBinary, type JsonValue, toJson } from '@bufbuild/protobuf';
import { readDescriptors, type ServiceMethod } from '../../services/gateway/descriptors.ts';
import { buildDescriptorSet, nastyProtos } from '../../services/gateway/testdata/build.ts';
import { type Child, startChild } from '../../services/lab/child.ts';
import { projectFile } from '../harness/command.ts';
import { type RecordingServer, startRecordingServer } from '../harness/recording-server.ts';

const directory = mkdtempSync(join(tmpdir(), 'tandem-transcoding-'));
const descriptorSet = buildDescriptorSet(nastyProtos, directory);
const descriptors = readDescriptors(descriptorSet);
const methods: ReadonlyMap<string, ServiceMethod> = new Map(
  descriptors.methods.map((service) => [service.method.path, service]),
);

let upstream: RecordingServer;
let gateway: Child;
let url: string;

before(async () => {
  upstream = await startRecordingServer(descriptors);
  gateway = startChild({
    name: 'gateway',
    entry: projectFile('services/gateway/main.ts'),
    args: ['--descriptors', descriptorSet, '--target', upstream.target, '--port', '0', '--admin-port', '0'],
    env: { HOST: '127.0.0.1', DRAIN_DELAY: '0s' },
  });
  const { port } = await gateway.ready(20_000);
  url = `http://127.0.0.1:${port}`;
});

after(async () => {
  const exit = await gateway.stop(5_000);
  await upstream[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true });
  assert.equal(exit.code, 0);
});

/** A message of a method's input as JSON. */
function toInputJson({ input }: ServiceMethod, bytes: Uint8Array): JsonValue {
  return toJson(input, fromBinary(input, bytes), { registry: descriptors.types });
}

/** Sends `POST /path` and what follows; what the replica saw is undefined if it saw nothing. */
async function send(line: string, body?: string | Uint8Array, headers: Record<string, string> = {}, hasJson = true) {
  const [method = '', path = ''] = line.split(' ');
  const seenBefore = upstream.calls.length;
  const contentType = { 'content-type': 'application/json' };
  const reply = await fetch(url + path, {
    method,
    headers: { ...(typeof body === 'string' && contentType), connection: 'close', ...headers },
    ...(body !== undefined && { body: typeof body === 'string' ? body : Buffer.from(body) }),
  });
  const bytes = Buffer.from(await reply.arrayBuffer());
  assert.ok(upstream.calls.length <= seenBefore + 1);
  const call = upstream.calls[seenBefore];
  const service = call && methods.get(call.path);
  return {
    reply,
    bytes,
    text: bytes.toString(),
    call,
    seen: hasJson && service ? toInputJson(service, call.request) : undefined,
  };
}

const nasty = '/nasty.v1.Nasty';

describe('a request becomes the bytes that the replica sees', () => {
  /** What follows the request is the message; with bytes where it must be these and no others. */
  const cases: [line: string, body: string | undefined, seen: JsonValue, hex?: string][] = [
    // Each kind of field, by its wire format.
    [`POST ${nasty}/Echo`, '{"doubleValue":-0.5}', { doubleValue: -0.5 }, '09000000000000e0bf'],
    [`POST ${nasty}/Echo`, '{"floatValue":"Infinity"}', { floatValue: 'Infinity' }, '150000807f'],
    [`POST ${nasty}/Echo`, '{"int32Value":-1}', { int32Value: -1 }, '18ffffffffffffffffff01'],
    [
      `POST ${nasty}/Echo`,
      '{"int64Value":"-9223372036854775808"}',
      { int64Value: '-9223372036854775808' },
      '2080808080808080808001',
    ],
    [`POST ${nasty}/Echo`, '{"uint32Value":4294967295}', { uint32Value: 4294967295 }, '28ffffffff0f'],
    [
      `POST ${nasty}/Echo`,
      '{"uint64Value":"18446744073709551615"}',
      { uint64Value: '18446744073709551615' },
      '30ffffffffffffffffff01',
    ],
    [`POST ${nasty}/Echo`, '{"sint32Value":-2147483648}', { sint32Value: -2147483648 }, '38ffffffff0f'],
    [
      `POST ${nasty}/Echo`,
      '{"sint64Value":"9223372036854775807"}',
      { sint64Value: '9223372036854775807' },
      '40feffffffffffffffff01',
    ],
    [`POST ${nasty}/Echo`, '{"fixed32Value":1}', { fixed32Value: 1 }, '4d01000000'],
    [`POST ${nasty}/Echo`, '{"fixed64Value":"1"}', { fixed64Value: '1' }, '510100000000000000'],
    [`POST ${nasty}/Echo`, '{"sfixed32Value":-1}', { sfixed32Value: -1 }, '5dffffffff'],
    [`POST ${nasty}/Echo`, '{"sfixed64Value":"-1"}', { sfixed64Value: '-1' }, '61ffffffffffffffff'],
    [`POST ${nasty}/Echo`, '{"boolValue":true}', { boolValue: true }, '6801'],
    [`POST ${nasty}/Echo`, '{"stringValue":"ü\\u0000"}', { stringValue: 'ü\u0000' }, '7203c3bc00'],
    [`POST ${nasty}/Echo`, '{"bytesValue":"_-8"}', { bytesValue: '/+8=' }, '7a02ffef'],
    [`POST ${nasty}/Echo`, '{"color":"ROUGE"}', { color: 'RED' }, '800101'],
    [`POST ${nasty}/Echo`, '{"color":-1}', { color: 'INFRARED' }, '8001ffffffffffffffffff01'],
    [`POST ${nasty}/Echo`, '{"color":77}', { color: 77 }, '80014d'],
    [`POST ${nasty}/Echo`, '{"child":{"child":{}}}', { child: { child: {} } }, '8a01038a0100'],
    [`POST ${nasty}/Echo`, '{"doubleValue":"NaN"}', { doubleValue: 'NaN' }],
    [
      `POST ${nasty}/Echo`,
      '{"double_value":1e-320,"float_value":1e-45}',
      { doubleValue: 1e-320, floatValue: 1.401298464324817e-45 },
    ],
    [`POST ${nasty}/Echo`, '{"int32_list":[1,"2",3e0]}', { int32List: [1, 2, 3] }, 'ba0103010203'],
    [`POST ${nasty}/Echo`, '{"uint32_list":[1,2]}', { uint32List: [1, 2] }, 'c80101c80102'],
    [`POST ${nasty}/Echo`, '{"childList":[{},{"boolValue":true}]}', { childList: [{}, { boolValue: true }] }],
    // Presence.
    [`POST ${nasty}/Echo`, '{"boolValue":false,"int32Value":0,"stringValue":""}', {}, ''],
    [`POST ${nasty}/Echo`, '{"maybeBool":false,"maybeInt32":0}', { maybeBool: false, maybeInt32: 0 }, 'e80300880400'],
    [`POST ${nasty}/Echo`, '{"child":null,"stringList":null,"byString":null,"time":null,"text":null}', {}, ''],
    [`POST ${nasty}/Echo`, '{"text":""}', { text: '' }, 'ba0400'],
    [`POST ${nasty}/Echo`, '{"nothing":null}', { nothing: null }, 'd80400'],
    [`POST ${nasty}/Echo`, '{"pause":"-0.000000001s"}', { pause: '-0.000000001s' }],
    // Maps of every key.
    [
      `POST ${nasty}/Echo`,
      '{"by_int32":{"-2147483648":0.5},"by_int64":{"-9223372036854775808":"AA=="},"by_uint32":{"4294967295":"RED"},"by_uint64":{"18446744073709551615":"18446744073709551615"},"by_sint32":{"-1":"NaN"},"by_sint64":{"-1":"-1"},"by_fixed32":{"1":"x"},"by_fixed64":{"1":"2025-01-01T00:00:00Z"},"by_sfixed32":{"-1":true},"by_sfixed64":{"-1":null},"by_bool":{"true":{},"false":{}}}',
      {
        byInt32: { '-2147483648': 0.5 },
        byInt64: { '-9223372036854775808': 'AA==' },
        byUint32: { '4294967295': 'RED' },
        byUint64: { '18446744073709551615': '18446744073709551615' },
        bySint32: { '-1': 'NaN' },
        bySint64: { '-1': '-1' },
        byFixed32: { '1': 'x' },
        byFixed64: { '1': '2025-01-01T00:00:00Z' },
        bySfixed32: { '-1': true },
        bySfixed64: { '-1': null },
        byBool: { true: {}, false: {} },
      },
    ],
    [
      `POST ${nasty}/Echo`,
      '{"by_string":{"__proto__":1,"constructor":2,"toString":3,"":4,"ü":5}}',
      { byString: JSON.parse('{"__proto__":"1","constructor":"2","toString":"3","":"4","ü":"5"}') as JsonValue },
    ],
    // Well-known types.
    [
      `POST ${nasty}/Echo`,
      '{"time":"0001-01-01T00:00:00Z","time_list":["9999-12-31T23:59:59.999999999Z","2024-02-29T12:00:00+14:00"],"duration":"315576000000s"}',
      {
        time: '0001-01-01T00:00:00Z',
        timeList: ['9999-12-31T23:59:59.999999999Z', '2024-02-28T22:00:00Z'],
        duration: '315576000000s',
      },
    ],
    [
      `POST ${nasty}/Echo`,
      '{"struct":{"__proto__":{"a":[1,null,"x",true,{}]}},"value":[[]],"list":[],"empty":{},"mask":"aB.c,d"}',
      JSON.parse(
        '{"struct":{"__proto__":{"a":[1,null,"x",true,{}]}},"value":[[]],"list":[],"empty":{},"mask":"aB.c,d"}',
      ) as JsonValue,
    ],
    [
      `POST ${nasty}/Echo`,
      '{"wrapped_bool":false,"wrapped_string":"","wrapped_bytes":"","wrapped_double":"-Infinity","wrapped_float":0.5,"wrapped_int32":0,"wrapped_uint32":0,"wrapped_int64":"-1","wrapped_uint64":0}',
      {
        wrappedBool: false,
        wrappedString: '',
        wrappedBytes: '',
        wrappedDouble: '-Infinity',
        wrappedFloat: 0.5,
        wrappedInt32: 0,
        wrappedUint32: 0,
        wrappedInt64: '-1',
        wrappedUint64: '0',
      },
    ],
    [
      `POST ${nasty}/Echo`,
      '{"any_list":[{"@type":"type.googleapis.com/nasty.v1.Thing","name":"x"},{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s"},{"@type":"type.googleapis.com/google.protobuf.Any","value":{"@type":"type.googleapis.com/nasty.proto2.Legacy","id":1}},{}]}',
      {
        anyList: [
          { name: 'x', '@type': 'type.googleapis.com/nasty.v1.Thing' },
          { value: '1s', '@type': 'type.googleapis.com/google.protobuf.Duration' },
          {
            value: { id: 1, '@type': 'type.googleapis.com/nasty.proto2.Legacy' },
            '@type': 'type.googleapis.com/google.protobuf.Any',
          },
          {},
        ],
      },
    ],
    // Any of types that the descriptors need not have.
    [
      `POST ${nasty}/Echo`,
      '{"any":{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"R"}}',
      { any: { '@type': 'type.googleapis.com/google.rpc.ErrorInfo', reason: 'R' } },
    ],
    // Messages that are one value.
    [`POST ${nasty}/EchoText`, '"x"', 'x', '0a0178'],
    [`POST ${nasty}/EchoStruct`, '{"a":1}', { a: 1 }],
    [`POST ${nasty}/EchoTime`, '"1970-01-01T00:00:01Z"', '1970-01-01T00:00:01Z', '0801'],
    [`POST ${nasty}/EchoText`, undefined, '', ''],
    [`DELETE /nasty/nothing`, undefined, {}, ''],
    // Names.
    [
      `POST ${nasty}/EchoWords`,
      '{"__proto__":"1","constructor":"2","toString":"3","has_own_property":"4","class":"5","default":"6","UPPER":"7","line1":"8","@at":"9","a.b":"10","with space & more":"11","\\"quoted\\"":"12","prototype":"13","self":{"__proto__":"14"}}',
      JSON.parse(
        '{"Proto":"1","constructor":"2","toString":"3","hasOwnProperty":"4","class":"5","default":"6","UPPER":"7","line1":"8","@at":"9","a.b":"10","with space & more":"11","\\"quoted\\"":"12","prototype":"13","self":{"Proto":"14"}}',
      ) as JsonValue,
    ],
    [
      'GET /nasty/words?constructor=1&to_string=2&line_1=3&%40at=4&dotted=5&with%20space+%26+more=6&self.class=7&self.self.hasOwnProperty=8&_underscored_=9',
      undefined,
      {
        constructor: '1',
        toString: '2',
        line1: '3',
        '@at': '4',
        'a.b': '5',
        'with space & more': '6',
        self: { class: '7', self: { hasOwnProperty: '8' } },
        Underscored: '9',
      },
    ],
    // proto2 and editions.
    [
      'POST /nasty/legacy',
      '{"id":0,"detail":{"key":"","numbers":["1"]},"level":"LOW","byName":{"a":{"id":1}},"[nasty.proto2.priority]":"5"}',
      {
        id: 0,
        detail: { key: '', numbers: ['1'] },
        level: 'LOW',
        byName: { a: { id: 1 } },
        '[nasty.proto2.priority]': '5',
      },
    ],
    ['POST /nasty/legacy', '{"id":1,"note":""}', { id: 1, note: '' }, '08011200'],
    [
      `POST ${nasty}/Echo2023`,
      '{"must":"0","explicit":"","implicit":"","expanded":[1,2],"delimited":{"must":1},"closed":"TWO"}',
      { must: '0', explicit: '', expanded: [1, 2], delimited: { must: '1' }, closed: 'TWO' },
      '0a00180118022338012428023800',
    ],
    // Paths.
    ['GET /nasty/names/a%2Fb%20%C3%BC+', undefined, { name: 'a/b ü+' }],
    ['GET /nasty/shelves/1/things/a%2Fb', undefined, { name: 'shelves/1/things/a%2Fb' }],
    ['GET /nasty/rest/a/b//c:d', undefined, { name: 'a/b//c:d' }],
    ['GET /nasty/rest', undefined, {}],
    ['GET /nasty/rest/a/b:find', undefined, { name: 'a/b' }],
    ['GET /nasty/deep/a/x/of/-5', undefined, { child: { child: { name: 'a/x' } }, size: '-5' }],
    [
      'GET /nasty/kinds/ULTRAVIOLET/1/true/2025-01-31T12:00:00Z/1.5s/NaN/AP8/7/a_b',
      undefined,
      {
        color: 'ULTRAVIOLET',
        size: '1',
        flag: true,
        since: '2025-01-31T12:00:00Z',
        ttl: '1.500s',
        ratio: 'NaN',
        key: 'AP8=',
        limit: '7',
        mask: 'aB',
      },
    ],
    ['GET /nasty/anything/wild/a/b?name=x', undefined, { name: 'x' }],
    ['GET /nasty/caf%c3%a9/x', undefined, { name: 'x' }],
    ['PUT /nasty/names/x?size=3', undefined, { name: 'x', size: '3' }],
    ['DELETE /nasty/names/x', '{"size":3,"name":"y"}', { name: 'x', size: '3' }],
    ['LINK /nasty/names/x', '{"size":3}', { name: 'x', size: '3' }],
    ['GET /nasty/any/x', undefined, { name: 'x' }],
    ['PURGE /nasty/any/x?size=1', undefined, { name: 'x', size: '1' }],
    ['REPORT /nasty/any/x', undefined, { name: 'x' }],
    // Queries.
    [
      'GET /nasty/query?double_list=1&double_list=-Infinity&int64_list=9223372036854775807&bool_list=true&bool_list=false&bytes_list=AA&color_list=RED&color_list=-1&string_list=&string_list=a%26b&time_list=2025-01-01T00:00:00Z&wrapped_list=0',
      undefined,
      {
        doubleList: [1, '-Infinity'],
        int64List: ['9223372036854775807'],
        boolList: [true, false],
        bytesList: ['AA=='],
        colorList: ['RED', 'INFRARED'],
        stringList: ['', 'a&b'],
        timeList: ['2025-01-01T00:00:00Z'],
        wrappedList: ['0'],
      },
    ],
    [
      'GET /nasty/query?child.child.wrapped_bool=false&child.maybe_string=&sub.pause=1s&wrapped_bytes=_w&mask=a.b_c,d&struct=%7B%22a%22%3A1%7D',
      undefined,
      {
        child: { child: { wrappedBool: false }, maybeString: '' },
        sub: { pause: '1s' },
        wrappedBytes: '/w==',
        mask: 'a.bC,d',
        struct: { a: 1 },
      },
    ],
    // Bodies that are a field.
    ['PUT /nasty/body/words?int32_value=1', '["a","b"]', { stringList: ['a', 'b'], int32Value: 1 }],
    ['PUT /nasty/body/counts', '{"a":"1"}', { byString: { a: '1' } }],
    ['PUT /nasty/body/number', '"-1"', { int64Value: '-1' }],
    ['PUT /nasty/body/text', '"x"', { text: 'x' }],
    ['PUT /nasty/body/value', 'null', { value: null }],
    ['PUT /nasty/body/value', '[1]', { value: [1] }],
    ['PUT /nasty/body/time', '"2025-01-01T00:00:00Z"', { time: '2025-01-01T00:00:00Z' }],
    ['PUT /nasty/body/wrapped', '0', { wrappedUint64: '0' }],
    ['PUT /nasty/body/wrapped', 'null', {}],
    [
      'PUT /nasty/body/any',
      '{"@type":"type.googleapis.com/nasty.v1.File","name":"x"}',
      { any: { '@type': 'type.googleapis.com/nasty.v1.File', name: 'x' } },
    ],
    ['PUT /nasty/body/color', '"RED"', { color: 'RED' }],
    // Update masks.
    [
      'PATCH /nasty/patch/things/1',
      '{"size":"2","child":{"flag":false,"child":null},"parts":[],"config":{"a":{"b":null}},"name":"things/2"}',
      {
        thing: { name: 'things/1', size: '2', child: {}, config: { a: { b: null } } },
        updateMask: 'size,child.flag,child.child,parts,config.a.b',
      },
    ],
    [
      'PATCH /nasty/patch/things/1?update_mask=size&allow_missing=true',
      '{"flag":true}',
      { thing: { name: 'things/1', flag: true }, updateMask: 'size', allowMissing: true },
    ],
    ['PATCH /nasty/patch', '{"thing":{"size":"1"}}', { thing: { size: '1' } }],
    ['PUT /nasty/patch/things/1', '{"size":"1"}', { thing: { name: 'things/1', size: '1' } }],
  ];
  for (const [line, body, expected, hex] of cases) {
    it(`${line} ${body ?? ''}`.slice(0, 120), async () => {
      const { reply, text, call, seen } = await send(line, body);
      assert.ok(call, text);
      assert.deepEqual(seen, expected);
      if (hex !== undefined) assert.equal(call.request.toString('hex'), hex);
      // The replica sent the same bytes back.
      assert.equal(reply.status, 200);
      assert.match(reply.headers.get('content-type') ?? '', /^application\/json/);
      assert.deepEqual(JSON.parse(text), expected);
    });
  }

  it('with a field in its mask whose name JSON cannot write', async () => {
    const { call } = await send('PATCH /nasty/patch/things/1', '{"line_1":"x"}', {}, false);
    assert.equal(call?.request.subarray(-10).toString('hex'), '12080a066c696e655f31'); // update_mask: "line_1"
  });
});

describe('a bad request never reaches the replica, and the reply names the field', () => {
  const cases: [line: string, body: string | undefined, fields: string[]][] = [
    [
      `POST ${nasty}/Echo`,
      '{"int32Value":2147483648,"uint32Value":-1,"sint64Value":"1.5"}',
      ['int32_value', 'uint32_value', 'sint64_value'],
    ],
    [`POST ${nasty}/Echo`, '{"int64Value":9223372036854775807}', ['int64_value']],
    [`POST ${nasty}/Echo`, '{"uint64Value":"18446744073709551616"}', ['uint64_value']],
    [`POST ${nasty}/Echo`, '{"floatValue":1e39,"doubleValue":"inf"}', ['float_value', 'double_value']],
    [`POST ${nasty}/Echo`, '{"doubleValue":1e400}', ['double_value']],
    [`POST ${nasty}/Echo`, '{"color":"red","color_list":["RED",2147483648]}', ['color', 'color_list[1]']],
    [`POST ${nasty}/Echo`, '{"boolValue":1,"stringValue":null,"bytesValue":"é"}', ['bool_value', 'bytes_value']],
    [`POST ${nasty}/Echo`, '{"text":"a","number":"1"}', ['number']],
    [`POST ${nasty}/Echo`, '{"nothing":null,"text":"a"}', ['text']],
    [`POST ${nasty}/Echo`, '{"by_bool":{"True":{}}}', ['by_bool[True]']],
    [`POST ${nasty}/Echo`, '{"by_uint32":{"-1":"RED"}}', ['by_uint32[-1]']],
    [`POST ${nasty}/Echo`, '{"by_uint64":{"01":"1","1":"2"}}', ['by_uint64']],
    [`POST ${nasty}/Echo`, '{"by_string":{"a":null}}', ['by_string[a]']],
    [`POST ${nasty}/Echo`, '{"by_string":{"a":1,"a":2}}', ['by_string.a']],
    [`POST ${nasty}/Echo`, '{"any":{"@type":"x/nasty.v1.Nope"}}', ['any']],
    [`POST ${nasty}/Echo`, '{"any":{"@type":"x/nasty.v1.Thing","size":"x"}}', ['any.size']],
    [`POST ${nasty}/Echo`, '{"time":"2025-02-30T00:00:00Z","duration":"1sx"}', ['time', 'duration']],
    [`POST ${nasty}/Echo`, '{"child":{"child_list":[{},{"nope":1}]}}', ['child.child_list[1].nope']],
    [`POST ${nasty}/Echo`, '{"value":1e999}', ['value']],
    [`POST ${nasty}/EchoWords`, '{"to_string":"a","toString":"b"}', ['to_string']],
    [`POST ${nasty}/EchoWords`, '{"valueOf":"a"}', ['valueOf']],
    ['POST /nasty/legacy', '{"children":[{}]}', ['id', 'children[0].id']],
    ['POST /nasty/legacy', '{"id":1,"level":"MEDIUM"}', ['level']],
    ['POST /nasty/legacy', '{"id":1,"level":3}', ['level']],
    [`POST ${nasty}/Echo2023`, '{"closed":3,"must":1}', ['closed']],
    ['GET /nasty/deep/a/x/of/y', undefined, ['size']],
    ['GET /nasty/kinds/PINK/1/true/2025-01-31T12:00:00Z/1.5s/NaN/AP8/7/a_b', undefined, ['color']],
    [
      'GET /nasty/query?child=1&by_string=a&any=x&double_list.x=1',
      undefined,
      ['child', 'by_string', 'any', 'double_list.x'],
    ],
    ['GET /nasty/names/x?name=y&size=1&size=2', undefined, ['name', 'size']],
    ['PUT /nasty/body/number', '1.5', ['int64_value']],
    ['PUT /nasty/body/words?string_list=a', '[]', ['string_list']],
    ['PATCH /nasty/patch/things/1', '{"nope":1}', ['thing.nope']],
  ];
  for (const [line, body, fields] of cases) {
    it(`${line} ${body ?? ''}`.slice(0, 120), async () => {
      const { reply, text, call } = await send(line, body);
      assert.equal(call, undefined);
      assert.equal(reply.status, 400, text);
      const { code, details } = JSON.parse(text) as {
        code: number;
        details: [{ '@type': string; fieldViolations: { field: string; description: string }[] }];
      };
      assert.equal(code, 3);
      assert.equal(details[0]['@type'], 'type.googleapis.com/google.rpc.BadRequest');
      assert.deepEqual(
        details[0].fieldViolations.map(({ field }) => field),
        fields,
        text,
      );
    });
  }
});

describe('a reply', () => {
  const all: JsonValue = {
    stringList: ['a'],
    byString: { ['__proto__']: '1' },
    int64Value: '-1',
    int32Value: 7,
    boolValue: true,
    maybeBool: false,
    color: 'RED',
    child: { int32Value: 1 },
    time: '2025-01-01T00:00:00Z',
    value: [null],
    text: 'x',
  };
  const cases: [path: string, full: string, empty: string][] = [
    ['words', '["a"]', '[]'],
    ['counts', '{"__proto__":"1"}', '{}'],
    ['number', '"-1"', '"0"'],
    ['small', '7', '0'],
    ['flag', 'true', 'false'],
    ['maybe', 'false', 'null'],
    ['color', '"RED"', '"NONE"'],
    ['child', '{"int32Value":1}', 'null'],
    ['time', '"2025-01-01T00:00:00Z"', 'null'],
    ['value', '[null]', 'null'],
    ['text', '"x"', 'null'],
  ];
  for (const [path, full, empty] of cases) {
    it(`may be a field alone: ${path}`, async () => {
      const { call } = await send(`POST ${nasty}/Echo`, JSON.stringify(all));
      assert.ok(call);
      upstream.answerNext(call.request);
      assert.equal((await send(`GET /nasty/reply/${path}`)).text, full);
      upstream.answerNext(new Uint8Array());
      assert.equal((await send(`GET /nasty/reply/${path}`)).text, empty);
    });
  }

  it('that lacks what proto2 requires is an internal error', async () => {
    upstream.answerNext(new Uint8Array());
    const { reply, text } = await send('POST /nasty/legacy', '{"id":1}');
    assert.deepEqual([reply.status, text], [500, '{"code":13,"message":"internal error"}']);
  });
});

describe('google.api.HttpBody', () => {
  const png = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0, 255);
  const image = { 'content-type': 'image/png' };

  it('is the body as it is, both ways', async () => {
    const { reply, bytes, seen } = await send('POST /nasty/raw', png, image);
    assert.deepEqual(seen, { contentType: 'image/png', data: 'iVBORwD/' });
    assert.deepEqual([reply.status, reply.headers.get('content-type')], [200, 'image/png']);
    assert.deepEqual(bytes, Buffer.from(png));
    assert.equal(reply.headers.get('content-length'), '6');
  });

  it('takes any type, JSON too, and what is not UTF-8', async () => {
    for (const contentType of ['application/json', 'text/plain; charset=latin1', 'application/x-www-form-urlencoded']) {
      const { reply, bytes, seen } = await send('POST /nasty/raw', Uint8Array.of(0x7b, 0xff), {
        'content-type': contentType,
      });
      assert.deepEqual(seen, { contentType, data: 'e/8=' });
      assert.equal(reply.headers.get('content-type'), contentType);
      assert.equal(bytes.toString('hex'), '7bff');
    }
  });

  it('may be empty', async () => {
    const { reply, bytes, seen } = await send('POST /nasty/raw');
    assert.deepEqual(seen, {});
    assert.deepEqual([reply.status, bytes.length], [200, 0]);
    assert.equal(reply.headers.get('content-type'), 'application/octet-stream');
  });

  it('is a field of the request and of the reply', async () => {
    const { reply, bytes, seen } = await send('PUT /nasty/files/a/b.png?version=2', png, image);
    assert.deepEqual(seen, { name: 'a/b.png', content: { contentType: 'image/png', data: 'iVBORwD/' }, version: 2 });
    assert.equal(reply.headers.get('content-type'), 'image/png');
    assert.deepEqual(bytes, Buffer.from(png));
  });

  it('is a stream of bytes, of the type that came first', async () => {
    // content_type = "text/csv", data = "a,b\n"; then data = "1,2\n"
    upstream.answerNext(Buffer.from('0a08746578742f6373761204612c620a', 'hex'), Buffer.from('1204312c320a', 'hex'));
    const { reply, text } = await send('GET /nasty/files/table.csv');
    assert.deepEqual([reply.status, reply.headers.get('content-type')], [200, 'text/csv']);
    assert.equal(text, 'a,b\n1,2\n');
  });

  it('has no type that could not be a header', async () => {
    upstream.answerNext(Buffer.from('0a05610d0a623a12017a', 'hex')); // content_type = "a\r\nb:"
    const { reply, text } = await send('POST /nasty/raw', png, image);
    assert.deepEqual([reply.headers.get('content-type'), text], ['application/octet-stream', 'z']);
  });

  it('is bounded like any body', async () => {
    const { reply, call } = await send('POST /nasty/raw', new Uint8Array(1_048_577), image);
    assert.deepEqual([reply.status, call], [413, undefined]);
  });
});

describe('metadata and deadline', () => {
  it('reach the replica', async () => {
    const { call } = await send('GET /nasty/names/x', undefined, {
      'grpc-metadata-x-tenant': 'blue',
      'grpc-metadata-key-bin': 'AP8',
      'grpc-timeout': '1500m',
      authorization: 'Bearer x',
      cookie: 'a=b',
      'x-other': 'c',
    });
    const { 'x-tenant': tenant, 'key-bin': key, authorization, cookie, ...rest } = call?.metadata.getMap() ?? {};
    assert.deepEqual([tenant, key, authorization, cookie], ['blue', Buffer.from([0, 255]), 'Bearer x', undefined]);
    assert.equal(rest['x-other'], undefined);
    assert.ok(call && call.timeoutMs > 0 && call.timeoutMs <= 1_500, String(call?.timeoutMs));
  });

  it('are capped at 10 s', async () => {
    const { call } = await send('GET /nasty/names/x', undefined, { 'grpc-timeout': '1H' });
    assert.ok(call && call.timeoutMs > 2_000 && call.timeoutMs <= 10_000, String(call?.timeoutMs));
  });

  for (const [name, value] of [
    ['grpc-timeout', '1.5S'],
    ['grpc-metadata-connection', 'close'],
    ['grpc-metadata-grpc-encoding', 'gzip'],
    ['grpc-metadata-a-bin', '*'],
  ] as const) {
    it(`refuse ${name}: ${value}`, async () => {
      const { reply, call, text } = await send('GET /nasty/names/x', undefined, { [name]: value });
      assert.deepEqual([reply.status, call], [400, undefined]);
      assert.ok(text.includes(`"field":"${name}"`), text);
    });
  }
});
