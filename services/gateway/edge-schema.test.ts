import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ConfigError } from '#runtime/process/config.ts';
import { readConfigFile } from './config-file.ts';

const directory = mkdtempSync(join(tmpdir(), 'tandem-edge-'));
after(() => rmSync(directory, { recursive: true }));
const path = join(directory, 'gateway.yaml');

function read(yaml: string) {
  writeFileSync(path, yaml);
  return readConfigFile(path);
}

test('without a word CORS is off, and what is passed on is the default', () => {
  const { cors, metadata } = read('{}');
  assert.equal(cors, undefined);
  assert.deepEqual(metadata, { request: ['authorization', 'accept-language'], reply: ['served-by'] });
});

test('a list takes the place of its default', () => {
  const { cors, metadata } = read(`
cors: { origins: [https://app.example, 'http://localhost:5173'] }
metadata: { request: [accept-language, x-api-key] }
`);
  assert.deepEqual(metadata, { request: ['accept-language', 'x-api-key'], reply: ['served-by'] });
  assert.deepEqual(cors, {
    origins: ['https://app.example', 'http://localhost:5173'],
    allowHeaders: [],
    exposeHeaders: [],
    credentials: false,
    maxAge: 600_000,
  });
});

const taken = 'must not be a name that HTTP, gRPC or the gateway itself uses';
const mistakes: [what: string, yaml: string, problems: string[]][] = [
  [
    'names that are not free',
    `metadata:
  request:
    - te
    - Accept
    - grpc-timeout
    - x-bytes-bin
    - traceparent
  reply:
    - transfer-encoding
    - vary
    - access-control-allow-origin
    - x-request-id`,
    [
      `3: metadata.request[0] "te" ${taken}`,
      '4: metadata.request[1] "Accept" must be the name of a header in small letters',
      `5: metadata.request[2] "grpc-timeout" ${taken}`,
      '6: metadata.request[3] "x-bytes-bin" must be text: bytes have the prefix grpc-metadata-',
      `7: metadata.request[4] "traceparent" ${taken}`,
      `9: metadata.reply[0] "transfer-encoding" ${taken}`,
      '10: metadata.reply[1] "vary" must not be a header that the gateway itself writes',
      '11: metadata.reply[2] "access-control-allow-origin" must not be a header that the gateway itself writes',
      `12: metadata.reply[3] "x-request-id" ${taken}`,
    ],
  ],
  [
    'claims under names that are not free, or that clients may set',
    `auth:
  - name: us
    issuer: i
    audiences: [a]
    jwks: https://a/
    claims:
      sub: x-request-id
      org: grpc-org
  - name: them
    issuer: i
    audiences: [a]
    jwks: https://a/
    claims:
      email: authorization
metadata:
  request: [authorization]`,
    [
      `7: auth[0].claims.sub "x-request-id" ${taken}`,
      `8: auth[0].claims.org "grpc-org" ${taken}`,
      '14: auth[1].claims.email "authorization" must not be a header of clients that metadata.request passes on',
    ],
  ],
  [
    'origins that no browser sends',
    `cors:
  origins:
    - https://app.example/
    - app.example
    - "null"
    - https://*.example
    - HTTPS://app.example
    - https://app.example:443`,
    [
      '"https://app.example/"',
      '"app.example"',
      '"null"',
      '"https://*.example"',
      '"HTTPS://app.example"',
      '"https://app.example:443"',
    ].map(
      (origin, index) =>
        `${index + 3}: cors.origins[${index}] ${origin} must be an origin such as https://app.example, or "*" for all`,
    ),
  ],
  [
    'all origins with credentials, or beside others',
    `cors:
  origins: ["*", https://app.example]
  credentials: true`,
    [
      '2: cors.origins ["*","https://app.example"] must not name others beside "*"',
      '3: cors.credentials true must not be true for all origins',
    ],
  ],
  ['CORS for nobody', 'cors: {}', ['1: cors.origins is missing']],
];

for (const [what, yaml, problems] of mistakes) {
  test(`stops the start: ${what}`, () => {
    assert.throws(
      () => read(yaml),
      (error) => {
        assert.ok(error instanceof ConfigError);
        assert.deepEqual(
          error.problems.map((problem) => problem.replace(`${path}:`, '')),
          problems,
        );
        return true;
      },
    );
  });
}
