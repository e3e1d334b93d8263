import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import * as grpc from '@grpc/grpc-js';
import type { ChannelSnapshot } from '#runtime/channel/channel.ts';
import { buildDescriptorSet, libraryProto } from '../../services/gateway/testdata/build.ts';
import { startChild } from '../../services/lab/child.ts';
import { greeterCertificate, localCertificate } from '../../services/runtime/channel/testing/certificates.ts';
import { projectFile, runProgramFile } from '../harness/command.ts';
import { sumOfMetric } from '../harness/metrics.ts';

const sameBytes = (bytes: Buffer) => bytes;

/** A server that sends each request of one unary method back, with its name as `served-by`. */
async function startEcho(name: string, path: string, credentials = grpc.ServerCredentials.createInsecure()) {
  const server = new grpc.Server();
  const serialization = {
    requestSerialize: sameBytes,
    requestDeserialize: sameBytes,
    responseSerialize: sameBytes,
    responseDeserialize: sameBytes,
  };
  const echo: grpc.handleUnaryCall<Buffer, Buffer> = (call, callback) => {
    const headers = new grpc.Metadata();
    headers.set('served-by', name);
    call.sendMetadata(headers);
    callback(null, call.request);
  };
  server.addService(
    { [path]: { path, requestStream: false, responseStream: false, ...serialization } },
    { [path]: echo },
  );
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', credentials, (error, bound) => (error ? reject(error) : resolve(bound)));
  });
  return { target: `ipv4:127.0.0.1:${port}`, [Symbol.dispose]: () => server.forceShutdown() };
}

test('two services at two upstreams, one of them over mutual TLS, from one YAML file', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tandem-upstreams-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const write = (name: string, content: string | Uint8Array) => {
    const path = join(directory, name);
    writeFileSync(path, content);
    return path;
  };
  using greeter = await startEcho('greeter', '/helloworld.Greeter/SayHello');
  const mutual = { private_key: Buffer.from(greeterCertificate.key), cert_chain: Buffer.from(greeterCertificate.cert) };
  using library = await startEcho(
    'library',
    '/library.v1.Library/Echo',
    grpc.ServerCredentials.createSsl(Buffer.from(localCertificate.cert), [mutual], true),
  );
  // Descriptor sets in a row are one descriptor set.
  const sets = [buildDescriptorSet(libraryProto, directory), projectFile('proto/descriptors.binpb')];
  const descriptors = write('both.binpb', Buffer.concat(sets.map((path) => readFileSync(path))));
  write('ca.crt', greeterCertificate.cert);
  write('tls.crt', localCertificate.cert);
  write('tls.key', localCertificate.key);
  const config = write(
    'gateway.yaml',
    `upstreams:
  - name: library
    targets: ['${library.target}']
    services: [library.v1.Library]
    tls: { ca: ca.crt, cert: tls.crt, key: tls.key, serverName: greeter.example }
  - name: rest
    targets: ['${greeter.target}']
`,
  );

  const routes = await runProgramFile('services/gateway/main.ts', [
    '--descriptors',
    descriptors,
    '--config',
    config,
    '--print-routes',
  ]);
  assert.equal(routes.code, 0, routes.stderr);
  assert.match(routes.stdout, /^POST +\/library\.v1\.Library\/Echo +library\.v1\.Library\/Echo +unary +library$/m);
  assert.match(routes.stdout, /^GET +\/v1\/hello\/\{name\} +helloworld\.Greeter\/SayHello +unary +rest$/m);

  const lines: string[] = [];
  const gateway = startChild({
    name: 'gateway',
    entry: projectFile('services/gateway/main.ts'),
    args: ['--descriptors', descriptors, '--config', config],
    env: { HOST: '127.0.0.1', PORT: '0', ADMIN_PORT: '0', DRAIN_DELAY: '0', LOG_FORMAT: 'json' },
    onLine: (line) => lines.push(line),
  });
  t.after(() => gateway.stop(5_000));
  const { port, adminPort } = await gateway.ready(15_000);
  const get = (at: number, path: string, init: RequestInit = {}) =>
    fetch(`http://127.0.0.1:${at}${path}`, {
      ...init,
      headers: { connection: 'close', 'content-type': 'application/json' },
    });

  const hello = await get(port, '/v1/hello/world');
  const echo = await get(port, '/library.v1.Library/Echo', { method: 'POST', body: '{"int32Value":5}' });
  assert.deepEqual([hello.status, hello.headers.get('served-by')], [200, 'greeter']);
  assert.deepEqual(
    [echo.status, echo.headers.get('served-by'), await echo.json()],
    [200, 'library', { int32Value: 5 }],
  );
  await hello.body?.cancel();

  const shown = (await (await get(adminPort, '/introspection/channel')).json()) as Record<string, ChannelSnapshot>;
  assert.deepEqual(
    Object.entries(shown).map(([name, { state, targets }]) => [name, state, targets[0]?.target]),
    [
      ['library', 'READY', library.target],
      ['rest', 'READY', greeter.target],
    ],
  );
  for (const upstream of ['library', 'rest']) {
    assert.equal(await sumOfMetric(adminPort, 'grpc_client_attempt_started_total', { upstream }), 1);
  }
  const serving = lines.find((line) => line.includes('"msg":"serving"')) ?? '';
  assert.deepEqual((JSON.parse(serving) as { upstreams: unknown }).upstreams, ['library', 'rest']);
});
