import { connect } from 'node:net';

/** A request that no server may take, and the same one without what is wrong with it. All that is sent is latin1. */
export interface HostileRequest {
  readonly name: string;
  readonly text: string;
  /** The HTTP status that it must get; `closed` where there is no HTTP to answer. */
  readonly status: number | 'closed';
  readonly wellFormed: string;
}

const host = 'host: x\r\nconnection: close\r\n';
const json = 'content-type: application/json\r\n';
const hello = '{"name":"x"}';

function get(path: string, headers = ''): string {
  return `GET ${path} HTTP/1.1\r\n${host}${headers}\r\n`;
}

/** With `framing` in place of the length. */
function post(body: string, framing = `content-length: ${body.length}\r\n`, path = '/v1/hello'): string {
  return `POST ${path} HTTP/1.1\r\n${host}${json}${framing}\r\n${body}`;
}

function utf8(text: string): string {
  return Buffer.from(text).toString('latin1');
}

const good = get('/v1/hello/x');
const goodPost = post(hello);
const goodChunks = post(`c\r\n${hello}\r\n0\r\n\r\n`, 'transfer-encoding: chunked\r\n');
const chunked = 'transfer-encoding: chunked\r\n';
const smuggled = 'GET /v1/hello/smuggled HTTP/1.1\r\nhost: x\r\n\r\n';

/** Requests by what is wrong with them. */
export const hostileRequests: readonly HostileRequest[] = [
  // Too much.
  ...toRequests(413, [
    ['a long body', post(`{"name":"${'x'.repeat(1_100_000)}"}`), post(`{"name":"${'x'.repeat(1_000)}"}`)],
    ['a body that says it is long', post('', 'content-length: 10000000000\r\n'), goodPost],
    [
      'a long body in chunks',
      post(`${`40000\r\n${' '.repeat(0x40000)}\r\n`.repeat(5)}0\r\n\r\n`, chunked),
      post(`400\r\n${' '.repeat(0x400)}\r\nc\r\n${hello}\r\n0\r\n\r\n`, chunked),
    ],
  ]),
  ...toRequests(431, [
    ['a long path', get(`/v1/hello/${'x'.repeat(20_000)}`), get(`/v1/hello/${'x'.repeat(1_000)}`)],
    ['a long query', get(`/v1/hello/x?${'x'.repeat(20_000)}`), get(`/v1/hello/x?${'&'.repeat(1_000)}`)],
    [
      'a long header',
      get('/v1/hello/x', `a: ${'x'.repeat(20_000)}\r\n`),
      get('/v1/hello/x', `a: ${'x'.repeat(1_000)}\r\n`),
    ],
    ['100,000 headers', get('/v1/hello/x', 'a: b\r\n'.repeat(100_000)), get('/v1/hello/x', 'a: b\r\n'.repeat(100))],
    ['a header without an end', `GET /v1/hello/x HTTP/1.1\r\n${'a'.repeat(100_000)}`, good],
  ]),

  // No HTTP.
  ...toRequests(400, [
    ['SMTP', 'HELO example.org\r\n\r\n', good],
    ['TLS', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', good],
    ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', good],
    ['HTTP/0.9', 'GET /v1/hello/x\r\n\r\n', good],
    ['HTTP/3.0', good.replace('HTTP/1.1', 'HTTP/3.0'), good],
    ['a method that is none', good.replace('GET', 'FROB'), good],
    ['a method in lower case', good.replace('GET', 'get'), good],
    ['no host', good.replace('host: x\r\n', ''), good],
    ['two hosts', good.replace('host: x\r\n', 'host: x\r\nhost: y\r\n'), good],
    ['a header without a colon', get('/v1/hello/x', 'abc\r\n'), get('/v1/hello/x', 'abc:\r\n')],
    ['a header with a space in its name', get('/v1/hello/x', 'a b: c\r\n'), get('/v1/hello/x', 'a-b: c\r\n')],
    ['a header with NUL', get('/v1/hello/x', 'a: b\0c\r\n'), get('/v1/hello/x', 'a: bc\r\n')],
    ['a header with CR alone', get('/v1/hello/x', 'a: b\rc\r\n'), get('/v1/hello/x', 'a: b c\r\n')],
    ['a path with a space', get('/v1/hello/x y'), get('/v1/hello/x%20y')],
    ['a path with NUL', get('/v1/hello/\0'), good],
  ]),

  // What a proxy before us could understand in another way.
  ...toRequests(400, [
    ['a length and chunks', post(`0\r\n\r\n${smuggled}`, `content-length: 5\r\n${chunked}`), goodChunks],
    ['chunks and a length', post(`0\r\n\r\n${smuggled}`, `${chunked}content-length: 5\r\n`), goodChunks],
    ['two lengths', post(hello, `content-length: 12\r\ncontent-length: 13\r\n`), goodPost],
    ['the same length twice', post(hello, `content-length: 12\r\ncontent-length: 12\r\n`), goodPost],
    ['a list of lengths', post(hello, 'content-length: 12, 12\r\n'), goodPost],
    ['a length with a sign', post(hello, 'content-length: +12\r\n'), goodPost],
    ['a negative length', post(hello, 'content-length: -1\r\n'), goodPost],
    ['a hexadecimal length', post(hello, 'content-length: 0xc\r\n'), goodPost],
    ['a length past 2^64', post(hello, 'content-length: 18446744073709551628\r\n'), goodPost],
    ['a space before the colon', post(hello, 'content-length : 12\r\n'), goodPost],
    ['a space before the colon of chunks', post(`0\r\n\r\n${smuggled}`, 'transfer-encoding : chunked\r\n'), goodChunks],
    ['an encoding after chunks', post(hello, 'transfer-encoding: chunked, identity\r\n'), goodChunks],
    ['an encoding that is none', post(hello, 'transfer-encoding: xchunked\r\n'), goodChunks],
    [
      'chunks twice',
      post(`0\r\n\r\n${smuggled}`, 'transfer-encoding: identity\r\ntransfer-encoding: xchunked\r\n'),
      goodChunks,
    ],
    ['a folded header', get('/v1/hello/x', 'a: b\r\n c\r\n'), get('/v1/hello/x', 'a: b c\r\n')],
    ['folded chunks', post(hello, 'transfer-encoding:\r\n chunked\r\n'), goodChunks],
    ['lines that end in LF', good.replaceAll('\r\n', '\n'), good],
    ['a chunk whose size is no number', post(`x\r\n${hello}\r\n0\r\n\r\n`, chunked), goodChunks],
    ['a chunk with a signed size', post(`+c\r\n${hello}\r\n0\r\n\r\n`, chunked), goodChunks],
    ['a chunk with a prefixed size', post(`0xc\r\n${hello}\r\n0\r\n\r\n`, chunked), goodChunks],
    ['a chunk whose size overflows', post(`1000000000000000c\r\n${hello}\r\n0\r\n\r\n`, chunked), goodChunks],
    ['a chunk that is longer than it says', post(`b\r\n${hello}\r\n0\r\n\r\n`, chunked), goodChunks],
    ['a chunk that ends in LF', post(`c\n${hello}\r\n0\r\n\r\n`, chunked), goodChunks],
    ['an extension of a chunk with LF', post(`c;a\nb\r\n${hello}\r\n0\r\n\r\n`, chunked), goodChunks],
    ['a long extension of a chunk', post(`c;${'a'.repeat(20_000)}\r\n${hello}\r\n0\r\n\r\n`, chunked), goodChunks],
  ]),

  // Paths that two programs could read in two ways.
  ...toRequests(400, [
    ['..', get('/v1/hello/..'), get('/v1/hello/...')],
    ['.. in between', get('/v1/hello/x/../y'), good],
    ['. in between', get('/v1/./hello/x'), good],
    ['%2e%2e', get('/v1/hello/%2e%2E'), get('/v1/hello/%2e%2e%2e')],
    ['.%2e', get('/v1/.%2e/v1/hello/x'), good],
    ['NUL', get('/v1/hello/a%00b'), get('/v1/hello/a%20b')],
    ['line ends', get('/v1/hello/a%0d%0aset-cookie:b'), get('/v1/hello/a%20b')],
    ['overlong UTF-8', get('/v1/hello/%c0%ae%c0%ae'), get('/v1/hello/%c2%ae')],
    ['half a surrogate pair', get('/v1/hello/%ed%a0%80'), get('/v1/hello/%f0%9f%8c%8d')],
    ['a bad percent-encoding', get('/v1/hello/%zz'), get('/v1/hello/%7a')],
    ['half a percent-encoding', get('/v1/hello/x%2'), get('/v1/hello/x%25')],
    ['a backslash', get('/v1\\hello\\x'), good],
    ['.. behind a backslash', get('/v1/hello/x\\..\\y'), get('/v1/hello/x%5c..%5cy')],
    ['UTF-8 without encoding', get(utf8('/v1/hello/é')), get('/v1/hello/%c3%a9')],
    ['a fragment', get('/v1/hello/x#y'), get('/v1/hello/x%23y')],
    ['an absolute URL', get('http://example.org/v1/hello/x'), good],
    ['an absolute URL of no scheme', get('example.org/v1/hello/x'), good],
    ['bad UTF-8 in the query', get('/v1/hello/x/stream?reply_count=%ff'), get('/v1/hello/x/stream?reply_count=1')],
    ['a query twice', get('/v1/hello/x/stream?reply_count=1&replyCount=1'), get('/v1/hello/x/stream?reply_count=1')],
    ['a prototype in the query', get('/v1/hello/x?__proto__.name=y'), good],
    [
      'a huge number in the query',
      get('/v1/hello/x/stream?reply_count=1e999'),
      get('/v1/hello/x/stream?reply_count=1e0'),
    ],
    [
      'a duration with more behind',
      get('/v1/hello/x/stream?reply_count=1&reply_interval=0sx'),
      get('/v1/hello/x/stream?reply_count=1&reply_interval=0s'),
    ],
  ]),
  ...toRequests(404, [
    ['an empty segment', get('/v1//hello/x'), good],
    ['an empty first segment', get('//v1/hello/x'), good],
    ['a segment of nothing', get('/v1/hello/'), good],
    ['a slash at the end', get('/v1/hello/x/'), good],
    ['an encoded slash', get('/v1%2fhello/x'), good],
    ['another case', get('/V1/hello/x'), good],
    ['an encoded question mark', get('/v1/hello%3fname=x'), good],
  ]),
  ...toRequests(405, [
    ['TRACE', good.replace('GET', 'TRACE'), good],
    ['a method of another route', good.replace('GET', 'PUT'), good],
  ]),
  ...toRequests(400, [['CONNECT', 'CONNECT example.org:443 HTTP/1.1\r\nhost: example.org:443\r\n\r\n', good]]).map(
    (request) => ({
      ...request,
      status: 'closed' as const,
    }),
  ),

  // Bodies.
  ...toRequests(400, [
    ['JSON that ends early', post('{"name":"x"'), goodPost],
    ['two JSON values', post(`${hello}${hello}`), goodPost],
    ['a comment', post('{"name":"x"/**/}'), goodPost],
    ['deep arrays', post(`{"name":${'['.repeat(100_000)}`), goodPost],
    ['deep objects', post(`${'{"name":'.repeat(10_000)}1${'}'.repeat(10_000)}`), goodPost],
    ['300,000 objects', post(`{"name":[${'{},'.repeat(300_000)}{}]}`), goodPost],
    ['NaN', post('{"name":NaN}'), goodPost],
    ['NaN alone', post('NaN'), goodPost],
    ['a number for text', post('{"name":1}'), goodPost],
    ['a huge number', post(`{"name":1${'0'.repeat(10_000)}}`), goodPost],
    ['an infinite number', post('{"name":1e999}'), goodPost],
    ['bad UTF-8', post('{"name":"\xff"}'), post(utf8('{"name":"ÿ"}'))],
    ['overlong UTF-8', post('{"name":"\xc0\xae"}'), goodPost],
    ['a surrogate in UTF-8', post('{"name":"\xed\xa0\x80"}'), goodPost],
    ['half a surrogate pair', post('{"name":"\\ud83c"}'), post('{"name":"\\ud83c\\udf0d"}')],
    ['UTF-16', post(Buffer.from(hello, 'utf16le').toString('latin1')), goodPost],
    ['a byte order mark', post(`\xef\xbb\xbf${hello}`), goodPost],
    ['__proto__', post('{"__proto__":{"name":"x"}}'), goodPost],
    ['constructor', post('{"constructor":{"prototype":{"name":"x"}}}'), goodPost],
    ['the same key twice', post('{"name":"x","name":"y"}'), goodPost],
    ['the same key, escaped', post('{"name":"x","\\u006eame":"y"}'), goodPost],
    ['a field that is none', post('{"name":"x","admin":true}'), goodPost],
    ['an array', post('[]'), goodPost],
    ['compressed JSON', post('\x1f\x8b\x08\x00\x00\x00'), goodPost],
  ]),
  ...toRequests(415, [
    ['a form', goodPost.replace('application/json', 'application/x-www-form-urlencoded'), goodPost],
    ['no type', goodPost.replace(json, ''), goodPost],
    ['a type that is none', goodPost.replace('application/json', '*'), goodPost],
  ]),

  // Headers that mean something.
  ...toRequests(400, [
    [
      'a timeout that is none',
      get('/v1/hello/x', 'grpc-timeout: 1 second\r\n'),
      get('/v1/hello/x', 'grpc-timeout: 1S\r\n'),
    ],
    [
      'two timeouts',
      get('/v1/hello/x', 'grpc-timeout: 1S\r\ngrpc-timeout: 2S\r\n'),
      get('/v1/hello/x', 'grpc-timeout: 1S\r\n'),
    ],
    [
      'metadata that is reserved',
      get('/v1/hello/x', 'grpc-metadata-te: x\r\n'),
      get('/v1/hello/x', 'grpc-metadata-t: x\r\n'),
    ],
    [
      'metadata that is no base64',
      get('/v1/hello/x', 'grpc-metadata-a-bin: *\r\n'),
      get('/v1/hello/x', 'grpc-metadata-a-bin: AA==\r\n'),
    ],
  ]),
];

function toRequests(
  status: number,
  requests: readonly (readonly [name: string, text: string, wellFormed: string])[],
): HostileRequest[] {
  return requests.map(([name, text, wellFormed]) => ({ name, text, wellFormed, status }));
}

/** Sends a request and returns all that comes back until the server closes the connection, at most 15 s later. */
export async function exchangeText(port: number, text: string): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  let received = '';
  socket.setEncoding('latin1').on('data', (chunk: string) => {
    received += chunk;
  });
  socket.setTimeout(15_000, () => socket.destroy());
  socket.on('error', () => {}); // A server may close before it has read all.
  socket.write(text, 'latin1');
  await new Promise((resolve) => socket.once('close', resolve)); // `once()` would reject for the error.
  return received;
}

/** The HTTP status and the body of a reply; `closed` for none. */
export function readReply(reply: string): { readonly status: number | 'closed'; readonly body: string } {
  const [, status] = /^HTTP\/1\.1 (\d{3}) /.exec(reply) ?? [];
  const [, body = ''] = reply.split(/\r\n\r\n([^]*)/);
  return { status: status === undefined ? 'closed' : Number(status), body };
}
