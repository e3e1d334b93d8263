import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { WebSocket } from 'ws';
import { readDescriptors } from '../../services/gateway/descriptors.ts';
import { createSigningKey, signToken, startIssuer } from '../../services/gateway/stages/testing/issuer.ts';
import { startChild } from '../../services/lab/child.ts';
import { projectFile } from '../harness/command.ts';
import { eventually } from '../harness/eventually.ts';
import { sumOfMetric } from '../harness/metrics.ts';
import { startRecordingServer } from '../harness/recording-server.ts';

test('tokens, CORS and metadata of one YAML file, from an outage of the keys at the start to their rotation', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tandem-auth-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const [first, second] = [await createSigningKey('k1', 'RS256'), await createSigningKey('k2')];
  await using issuer = await startIssuer(first);
  issuer.respond = (response) => void response.writeHead(500).end();
  await using server = await startRecordingServer(readDescriptors(projectFile('proto/descriptors.binpb')));
  const config = join(directory, 'gateway.yaml');
  writeFileSync(
    config,
    `upstreams:
  - { name: greeter, targets: ['${server.target}'], serviceConfig: {} }
auth:
  - name: example
    issuer: https://issuer.example
    audiences: [api]
    jwks: ${issuer.url}
    claims: { sub: x-user-id }
policies:
  - { name: [{}], auth: { provider: example } }
  - { name: [{ service: helloworld.Greeter, method: SayHelloStreamReply }], auth: anonymous }
cors: { origins: [https://app.example] }
metadata: { request: [x-tenant] }
`,
  );
  const lines: string[] = [];
  const gateway = startChild({
    name: 'gateway',
    entry: projectFile('services/gateway/main.ts'),
    args: ['--config', config],
    env: { HOST: '127.0.0.1', PORT: '0', ADMIN_PORT: '0', DRAIN_DELAY: '0', LOG_FORMAT: 'json', LOG_LEVEL: 'debug' },
    onLine: (line) => lines.push(line),
  });
  t.after(() => gateway.stop(5_000));
  const { port, adminPort } = await gateway.ready(60_000);
  const get = async (path: string, headers: Record<string, string> = {}) => {
    const reply = await fetch(`http://127.0.0.1:${port}${path}`, { headers: { connection: 'close', ...headers } });
    return { status: reply.status, headers: reply.headers, text: await reply.text() };
  };
  const [token, newToken] = [await signToken(first, { sub: 'ada' }), await signToken(second, { sub: 'grace' })];
  const hello = (bearer: string, headers = {}) =>
    get('/v1/hello/world', { authorization: `Bearer ${bearer}`, ...headers });

  // 1. No keys yet: neither let in nor turned away. What asks for no token does not mind.
  const early = await hello(token);
  assert.deepEqual([early.status, early.headers.has('retry-after')], [503, true], early.text);
  assert.equal((await get('/v1/hello/world/stream')).status, 200);
  assert.equal((await get('/openapi.json')).status, 200);

  // 2. The keys come by themselves.
  issuer.respond = undefined;
  await eventually('the keys are there', async () => (await hello(token)).status === 200, {
    timeoutMs: 60_000,
  });
  const page = { origin: 'https://app.example' };
  const passed = await hello(token, { ...page, 'x-tenant': 'blue' });
  assert.equal(passed.headers.get('access-control-allow-origin'), page.origin);
  assert.match(passed.headers.get('x-trace-id') ?? '', /^[0-9a-f]{32}$/);
  const { metadata } = server.calls.at(-1) ?? assert.fail('no call');
  assert.deepEqual(
    ['x-user-id', 'x-tenant', 'authorization'].map((key) => metadata.get(key)),
    [['ada'], ['blue'], []],
  );

  // 3. Errors can be read by pages too; preflights need no token.
  const refused = await get('/v1/hello/world', page);
  assert.deepEqual(
    [refused.status, refused.headers.get('access-control-allow-origin'), refused.headers.get('www-authenticate')],
    [401, page.origin, 'Bearer realm="api"'],
  );
  const preflight = await fetch(`http://127.0.0.1:${port}/v1/hello/world`, {
    method: 'OPTIONS',
    headers: {
      connection: 'close',
      ...page,
      'access-control-request-method': 'GET',
      'access-control-request-headers': 'authorization,x-tenant',
    },
  });
  assert.deepEqual(
    [preflight.status, preflight.headers.get('access-control-allow-headers')],
    [204, 'authorization, x-tenant'],
  );
  assert.equal((await get('/v1/hello/world/stream', { 'grpc-metadata-x-user-id': 'root' })).status, 400);

  // 4. A WebSocket of a page of that origin brings its token as a subprotocol.
  const socket = new WebSocket(`ws://127.0.0.1:${port}/v1/hello:chat`, ['bearer', token], page);
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
  socket.terminate();

  // 5. Rotation: the new key is asked for at once, the old one is gone.
  issuer.keys = [second];
  assert.equal((await hello(newToken)).status, 200);
  assert.equal((await hello(token)).status, 401);

  assert.equal(await sumOfMetric(adminPort, 'tandem_auth_requests_total', { outcome: 'missing' }), 1);
  assert.equal(await sumOfMetric(adminPort, 'tandem_auth_requests_total', { outcome: 'invalid' }), 1);
  const log = lines.join('\n');
  for (const secret of [token, newToken]) assert.ok(!log.includes(secret.split('.')[2] ?? ''), 'a token was logged');
});
