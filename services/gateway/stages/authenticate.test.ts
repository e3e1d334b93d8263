import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { SignJWT } from 'jose';
import { WebSocket } from 'ws';
import { Code } from '#runtime/call/status.ts';
import { type FakeCall, startEdge, until } from '../edge/testing.ts';
import type { AuthProvider, PolicyConfig } from '../policy-schema.ts';
import { createSigningKey, secondsFromNow, type SigningKey, signToken, startIssuer } from './testing/issuer.ts';

const service = 'library.v1.Library';
const bookPath = '/v1/shelves/a/books/b';
const discussPath = '/v1/shelves/a:discuss';
const uploadPath = `/${service}/Upload`;
const anonymousPath = `/${service}/Echo`;

const policies: readonly PolicyConfig[] = [
  { name: [{}], auth: { provider: 'us' } },
  { name: [{ service, method: 'Echo' }], auth: 'anonymous' },
];

function providerAt(jwks: string): AuthProvider {
  return {
    name: 'us',
    issuer: 'https://issuer.example',
    audiences: ['api', 'app'],
    jwks,
    algorithms: ['ES256', 'RS256'],
    clockSkew: 30_000,
    claims: { sub: 'x-user-id', roles: 'x-roles', name: 'x-name-bin', level: 'x-level', constructor: 'x-nothing' },
  };
}

function answer(call: FakeCall): void {
  if (call.start.method.path === anonymousPath) call.message(new Uint8Array());
  else call.book('T');
  call.status(Code.OK);
}

/** A gateway that asks for tokens of this issuer. */
function startGuarded(issuer: { readonly url: string }, onCall = answer) {
  return startEdge(onCall, { policies, auth: [providerAt(issuer.url)] });
}

const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

interface StatusBody {
  readonly code: number;
  readonly message: string;
  readonly details?: readonly { readonly '@type': string; readonly reason?: string; readonly retryDelay?: string }[];
}

async function refusalOf(reply: Response) {
  const { code, message, details = [] } = (await reply.json()) as StatusBody;
  const { reason } = details.find((detail) => detail['@type'].endsWith('ErrorInfo')) ?? {};
  return { status: reply.status, code, message, reason, challenge: reply.headers.get('www-authenticate') };
}

function challengeOf(message: string): string {
  return `Bearer realm="api", error="invalid_token", error_description="${message}"`;
}

describe('a method that asks for a token', () => {
  let key: SigningKey;
  let edge: Awaited<ReturnType<typeof startEdge>>;
  let issuer: Awaited<ReturnType<typeof startIssuer>>;
  before(async () => {
    key = await createSigningKey('k1');
    issuer = await startIssuer(key);
    edge = await startGuarded(issuer);
  });
  after(async () => {
    await edge[Symbol.asyncDispose]();
    await issuer[Symbol.asyncDispose]();
  });

  /** What the upstream got of the claims. */
  async function claimsPassed(token: string): Promise<Record<string, unknown>> {
    const reply = await fetch(edge.url + bookPath, { headers: bearer(token) });
    assert.equal(reply.status, 200, await reply.text());
    const metadata = Object.fromEntries(edge.calls.at(-1)?.start.metadata ?? []);
    assert.equal(metadata['authorization'], `Bearer ${token}`);
    return Object.fromEntries(
      ['x-user-id', 'x-roles', 'x-name-bin', 'x-level', 'x-nothing'].flatMap((name) =>
        metadata[name] === undefined ? [] : [[name, metadata[name]]],
      ),
    );
  }

  it('passes the claims that are named, and none that is not there', async () => {
    const claims = { sub: 'ada', roles: ['admin', 'Zoë'], name: 'Zoë', level: 7, email: 'ada@example.com' };
    const passed = {
      'x-user-id': 'ada',
      'x-roles': '["admin","Zo\\u00eb"]',
      'x-name-bin': Buffer.from('Zoë'),
      'x-level': '7',
    };
    const token = await signToken(key, claims);
    assert.deepEqual(await claimsPassed(token), passed);
    assert.deepEqual(JSON.parse(passed['x-roles']), claims.roles);
    assert.deepEqual(await claimsPassed(token), passed, 'the second time, when it is known');
    assert.deepEqual(await claimsPassed(await signToken(key, { sub: '', roles: null })), { 'x-user-id': '' });
  });

  it('lets a request pass whatever the case of the scheme, one audience of several, and without a kid', async () => {
    const reply = await fetch(edge.url + bookPath, {
      headers: { authorization: `bearer  ${await signToken(key, { aud: ['other', 'app'] })}` },
    });
    assert.equal(reply.status, 200);
    const { kid: _, ...jwk } = key.jwk;
    assert.equal(
      (await fetch(edge.url + bookPath, { headers: bearer(await signToken({ ...key, jwk }, {})) })).status,
      200,
    );
  });

  it('refuses a request without one, and says how', async () => {
    const headers: (Record<string, string> | undefined)[] = [
      undefined,
      { authorization: 'Basic YTpi' },
      { authorization: 'Bearer' },
      { authorization: 'Bearer a b' },
    ];
    for (const given of headers) {
      assert.deepEqual(await refusalOf(await fetch(edge.url + bookPath, given && { headers: given })), {
        status: 401,
        code: Code.UNAUTHENTICATED,
        message: 'this method needs a token: Authorization: Bearer …',
        reason: 'TOKEN_MISSING',
        challenge: 'Bearer realm="api"',
      });
    }
  });

  const forge = (header: object, payload: object = {}, signature = '') => {
    const part = (json: object) => Buffer.from(JSON.stringify(json)).toString('base64url');
    const claims = { iss: 'https://issuer.example', aud: 'api', exp: secondsFromNow(60), ...payload };
    return `${part(header)}.${part(claims)}.${signature}`;
  };
  const bad: [what: string, make: () => string | Promise<string>, message: string, reason?: string][] = [
    ['that is none', () => 'x', 'the token is not valid'],
    ['of no signature', () => forge({ alg: 'none' }), 'the token is not valid'],
    ['of no signature, but a key', () => forge({ alg: 'none', kid: 'k1' }, {}, 'AA'), 'the token is not valid'],
    [
      'that is signed with the public key as a secret',
      () =>
        new SignJWT({})
          .setProtectedHeader({ alg: 'HS256', kid: 'k1' })
          .sign(Buffer.from(JSON.stringify(key.jwk).padEnd(64))),
      'the token is not valid',
    ],
    [
      'that brings its own key',
      async () => {
        const other = await createSigningKey('k1');
        return new SignJWT({ iss: 'https://issuer.example', aud: 'api', exp: secondsFromNow(60) })
          .setProtectedHeader({ alg: 'ES256', jwk: other.jwk, jku: 'http://127.0.0.1:1/' })
          .sign(other.privateKey);
      },
      'the token is not valid',
    ],
    ['of another key of that name', async () => signToken(await createSigningKey('k1'), {}), 'the token is not valid'],
    ['of a key that there is not', async () => signToken(await createSigningKey('k9'), {}), 'the token is not valid'],
    [
      'of an algorithm that is not allowed',
      async () => signToken(await createSigningKey('k1', 'EdDSA'), {}),
      'the token is not valid',
    ],
    [
      'with a changed payload',
      async () => (await signToken(key, {})).replace(/\..*\./, `.${forge({}, { sub: 'root' }).split('.')[1]}.`),
      'the token is not valid',
    ],
    ['for another audience', () => signToken(key, { aud: 'other' }), 'the claim aud of the token is not accepted'],
    ['for no audience', () => signToken(key, { aud: undefined }), 'the claim aud of the token is missing'],
    [
      'of another issuer',
      () => signToken(key, { iss: 'https://evil.example' }),
      'the claim iss of the token is not accepted',
    ],
    ['that never ends', () => signToken(key, { exp: undefined }), 'the claim exp of the token is missing'],
    [
      'that begins later',
      () => signToken(key, { nbf: secondsFromNow(60) }),
      'the claim nbf of the token is not accepted',
    ],
    ['that has ended', () => signToken(key, { exp: secondsFromNow(-40) }), 'the token has expired', 'TOKEN_EXPIRED'],
  ];
  for (const [what, make, message, reason = 'TOKEN_INVALID'] of bad) {
    it(`refuses a token ${what}`, async () => {
      const calls = edge.calls.length;
      const token = await make();
      assert.deepEqual(await refusalOf(await fetch(edge.url + bookPath, { headers: bearer(token) })), {
        status: 401,
        code: Code.UNAUTHENTICATED,
        message,
        reason,
        challenge: challengeOf(message),
      });
      assert.equal(edge.calls.length, calls);
    });
  }

  it('bears with clocks that differ', async () => {
    for (const claims of [{ exp: secondsFromNow(-20) }, { nbf: secondsFromNow(20) }]) {
      assert.equal((await fetch(edge.url + bookPath, { headers: bearer(await signToken(key, claims)) })).status, 200);
    }
  });

  it('forgets a token that it knows once that has ended', async () => {
    // In whole seconds: the skew is 30 s, so that this one ends in 1 to 2 s.
    const token = await signToken(key, { exp: secondsFromNow(-28) });
    assert.equal((await fetch(edge.url + bookPath, { headers: bearer(token) })).status, 200);
    let status = 200;
    const deadline = performance.now() + 10_000;
    while (status === 200 && performance.now() < deadline) {
      ({ status } = await fetch(edge.url + bookPath, { headers: bearer(token) }));
    }
    assert.equal(status, 401);
  });

  it('says it where a claim has text that its metadata cannot take', async () => {
    for (const sub of ['Zoë', ' root', 'root ', 'a\r\nx-roles: admin']) {
      const reply = await fetch(edge.url + bookPath, { headers: bearer(await signToken(key, { sub })) });
      assert.deepEqual(await refusalOf(reply), {
        status: 403,
        code: Code.PERMISSION_DENIED,
        message: 'the claim sub of the token cannot be passed on: it must be printable ASCII',
        reason: 'CLAIM_NOT_PASSABLE',
        challenge: null,
      });
    }
  });

  it('reads no body before it knows', async () => {
    const reply = await fetch(`${edge.url}/v1/tags/x`, {
      method: 'PUT',
      headers: { 'content-type': 'application/json' },
      body: '{ no json',
    });
    assert.equal(reply.status, 401);
  });

  it('refuses a token that is too long for a head', async () => {
    const reply = await fetch(edge.url + bookPath, { headers: bearer('x'.repeat(17_000)) });
    assert.equal(reply.status, 431);
  });

  it('stands beside one that asks for none, where claims cannot be forged either', async () => {
    const call = (headers: Record<string, string>) =>
      fetch(edge.url + anonymousPath, {
        method: 'POST',
        body: '{}',
        headers: { 'content-type': 'application/json', ...headers },
      });
    assert.equal((await call({})).status, 200);
    assert.equal((await call(bearer('whatever'))).status, 200);
    const reply = await call({ 'grpc-metadata-x-user-id': 'root' });
    const { message } = (await reply.json()) as StatusBody;
    assert.deepEqual([reply.status, message], [400, 'grpc-metadata-x-user-id is reserved']);
    const token = await signToken(key, { sub: 'ada' });
    const forged = await fetch(edge.url + bookPath, {
      headers: { ...bearer(token), 'grpc-metadata-x-roles': 'admin' },
    });
    assert.equal(forged.status, 400);
  });

  it('counts and logs how it went, and never the token', async () => {
    const token = await signToken(key, { sub: 'log-me-not' });
    await fetch(edge.url + bookPath, { headers: bearer(token) });
    await fetch(edge.url + bookPath, { headers: bearer(`${token}x`) });
    const lines = () => edge.logLines.map((line) => JSON.parse(line) as Record<string, unknown>);
    await until(() => lines().at(-1)?.['auth'] === 'invalid', 'the line');
    assert.ok(lines().some(({ auth }) => auth === 'ok') && lines().some(({ auth }) => auth === 'missing'));
    const all = edge.logLines.join('');
    assert.ok(
      !all.includes(token.slice(0, 50)) && !all.includes(token.split('.')[2] ?? '') && !all.includes('log-me-not'),
    );
    const metrics = await edge.registry.metrics();
    assert.match(metrics, /^tandem_auth_requests_total\{provider="us",outcome="expired"\} [1-9]/m);
    assert.match(metrics, /^tandem_auth_jwks_fetches_total\{provider="us",result="ok"\} [12]$/m);
  });
});

describe('streams behind a token', () => {
  it('are WebSockets, which lose nothing that came before the token was checked', async () => {
    const key = await createSigningKey('k1');
    await using issuer = await startIssuer(key);
    await using edge = await startGuarded(issuer, () => {});
    const token = await signToken(key, { sub: 'ada' });
    const socket = connect(edge.port, '127.0.0.1');
    let received = '';
    socket.setEncoding('latin1').on('data', (text: string) => (received += text));
    // The handshake and, without waiting, a masked frame of {"title":"A"}.
    const text = Buffer.from('{"title":"A"}');
    const frame = Buffer.concat([Buffer.from([0x81, 0x80 | text.length, 0, 0, 0, 0]), text]);
    socket.write(
      `GET ${discussPath} HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n` +
        `sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: bearer, ${token}\r\n\r\n`,
    );
    socket.write(frame);
    await until(() => edge.calls[0]?.requests.length === 1, 'the message');
    assert.deepEqual(edge.calls[0]?.titles, ['A']);
    await until(() => received.includes('\r\n\r\n'), 'the handshake');
    assert.match(received, /^HTTP\/1\.1 101 [^]*sec-websocket-protocol: bearer\r\n/i);
    assert.ok(!received.includes(token));
    assert.equal(Object.fromEntries(edge.calls[0]?.start.metadata ?? [])['x-user-id'], 'ada');
    socket.destroy();
    await until(() => edge.calls[0]?.cancelled !== undefined, 'the cancellation');
  });

  it('are no WebSockets without one', async () => {
    await using issuer = await startIssuer(await createSigningKey('k1'));
    await using edge = await startGuarded(issuer);
    const socket = new WebSocket(`ws://127.0.0.1:${edge.port}${discussPath}`);
    socket.on('error', () => {});
    const [, response] = await once(socket, 'unexpected-response');
    assert.equal(response.statusCode, 401);
    socket.terminate();
  });

  it('are uploads, of which nothing is lost either', async () => {
    const key = await createSigningKey('k1');
    await using issuer = await startIssuer(key);
    await using edge = await startGuarded(issuer, () => {});
    const upload = httpRequest(edge.url + uploadPath, {
      method: 'POST',
      headers: { 'content-type': 'application/x-ndjson', ...bearer(await signToken(key, {})) },
    });
    const titles = Array.from({ length: 1_000 }, (_, index) => `book ${index}`);
    upload.end(titles.map((title) => `${JSON.stringify({ title })}\n`).join(''));
    await until(() => edge.calls[0]?.requestsEnded === true, 'the upload');
    assert.deepEqual(edge.calls[0]?.titles, titles);
    edge.calls[0]?.book('T');
    edge.calls[0]?.status(Code.OK);
    const [response] = await once(upload, 'response');
    assert.equal(response.statusCode, 200);
    response.resume();
  });
});

describe('keys', () => {
  it('that are new let tokens pass at once, and those that are gone do not, though their tokens are known', async () => {
    const [first, second] = [await createSigningKey('k1'), await createSigningKey('k2')];
    await using issuer = await startIssuer(first);
    await using edge = await startGuarded(issuer);
    const statusOf = async (token: string) => (await fetch(edge.url + bookPath, { headers: bearer(token) })).status;
    const tokens = [await signToken(first, {}), await signToken(second, {})] as const;
    assert.deepEqual([await statusOf(tokens[0]), await statusOf(tokens[0])], [200, 200]);
    issuer.keys = [second];
    assert.deepEqual([await statusOf(tokens[1]), await statusOf(tokens[0])], [200, 401]);
    assert.equal(issuer.fetches, 2);
  });

  it('stay in use while they cannot be fetched', async () => {
    const key = await createSigningKey('k1');
    await using issuer = await startIssuer(key);
    await using edge = await startGuarded(issuer);
    const statusOf = async (token: string) => (await fetch(edge.url + bookPath, { headers: bearer(token) })).status;
    assert.equal(await statusOf(await signToken(key, { sub: 'a' })), 200);
    issuer.respond = (response) => void response.writeHead(500).end();
    const unknown = await signToken(await createSigningKey('k2'), {});
    assert.equal(await statusOf(unknown), 503, 'it may be of a new key');
    assert.equal(await statusOf(await signToken(key, { sub: 'b' })), 200);
    assert.equal(edge.calls.length, 2);
    await until(() => edge.logLines.some((line) => line.includes('keys cannot be fetched')), 'the warning');
  });

  it('that cannot be had at the start make it 503, and anonymous methods do not mind', async () => {
    const key = await createSigningKey('k1');
    await using issuer = await startIssuer(key);
    issuer.respond = (response) => void response.destroy();
    await using edge = await startGuarded(issuer);
    const token = await signToken(key, {});
    const get = () => fetch(edge.url + bookPath, { headers: bearer(token) });
    const reply = await get();
    assert.match(reply.headers.get('retry-after') ?? '', /^[12]$/);
    assert.deepEqual(await refusalOf(reply), {
      status: 503,
      code: Code.UNAVAILABLE,
      message: 'the token cannot be checked now: the keys of its issuer are not to be had',
      reason: 'TOKEN_KEYS_UNAVAILABLE',
      challenge: null,
    });
    const headers = { 'content-type': 'application/json' };
    assert.equal((await fetch(edge.url + anonymousPath, { method: 'POST', body: '{}', headers })).status, 200);
    issuer.respond = undefined;
    let { status } = await get();
    const deadline = performance.now() + 30_000;
    while (status === 503 && performance.now() < deadline) ({ status } = await get());
    assert.equal(status, 200);
  });

  it('are waited for, but not by who leaves', async () => {
    const key = await createSigningKey('k1');
    await using issuer = await startIssuer(key);
    let serve: (() => void) | undefined;
    issuer.respond = (response) => {
      serve = () => void response.end(JSON.stringify({ keys: [key.jwk] }));
    };
    await using edge = await startGuarded(issuer);
    const headers = bearer(await signToken(key, {}));
    const left = httpRequest(edge.url + bookPath, { headers: { ...headers, expect: '100-continue' } });
    left.on('error', () => {}).flushHeaders();
    await once(left, 'continue');
    const stays = fetch(edge.url + bookPath, { headers });
    await until(() => serve !== undefined, 'the fetch');
    left.destroy();
    await until(() => edge.observer.counters()['GET /v1/{name=shelves/*/books/*} 499'] === 1, 'the count');
    serve?.();
    assert.equal((await stays).status, 200);
    assert.equal(edge.calls.length, 1);
    assert.equal(issuer.fetches, 1);
  });
});
