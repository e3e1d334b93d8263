import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { duplexPair } from 'node:stream';
import { suite, type TestContext, test } from 'node:test';
import net, { type AddressInfo, type Socket } from 'node:net';
import tls from 'node:tls';
import * as grpc from '@grpc/grpc-js';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { Code } from '../call/status.ts';
import { greeterCertificate, localCertificate } from '../channel/testing/certificates.ts';
import { callMethod, eventually, startServer, type TestServer } from './testing.ts';
import { createTlsListener } from './tls-listener.ts';

const greeter = { SayHello: async () => ({ message: 'Hello' }) };

/** Writes PEM files, and writes them again. */
function pemFiles(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'tandem-tls-'));
  t.after(() => rmSync(directory, { recursive: true }));
  return (name: string, pem: string) => {
    const path = join(directory, name);
    writeFileSync(path, pem);
    return path;
  };
}

/** A call over a connection of its own, which checks the server's certificate. */
async function sayHello(fixture: TestServer, certificate?: typeof localCertificate) {
  const credentials = grpc.credentials.createSsl(
    Buffer.from(localCertificate.cert),
    certificate && Buffer.from(certificate.key),
    certificate && Buffer.from(certificate.cert),
  );
  const { code, details } = await callMethod(
    fixture.connect(undefined, { 'grpc.ssl_target_name_override': 'localhost' }, credentials),
    'SayHello',
    [{}],
  );
  return { code, details };
}

/** Makes the socket a client that does not trust the certificate and says so, where Node's own would only leave. */
function mistrust(socket: Socket): Socket {
  const [wire, ours] = duplexPair();
  const client = tls.connect({ socket: wire, maxVersion: 'TLSv1.2' }).on('error', () => {});
  ours.once('data', (hello: Buffer) => socket.write(hello));
  // The alert `unknown_ca`: https://www.rfc-editor.org/rfc/rfc5246#section-7.2
  socket.once('data', () => socket.end(Buffer.from([21, 3, 3, 0, 2, 2, 48])));
  return socket.once('close', () => client.destroy());
}

/** The name in the certificate that a new connection is shown. */
async function shownName(port: number): Promise<string | string[] | undefined> {
  const socket = tls.connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ALPNProtocols: ['h2'] });
  await once(socket, 'secureConnect');
  const { subject } = socket.getPeerCertificate();
  socket.destroy();
  return subject.CN;
}

suite('TLS', () => {
  test('is what calls go over, and plaintext is refused', async (t) => {
    const write = pemFiles(t);
    const files = { cert: write('tls.crt', localCertificate.cert), key: write('tls.key', localCertificate.key) };
    await using fixture = await startServer(greeter, { tls: files });
    assert.equal((await sayHello(fixture)).code, Code.OK);
    assert.equal((await callMethod(fixture.client, 'SayHello', [{}])).code, Code.UNAVAILABLE);
  });

  test('lets calls in flight finish', async (t) => {
    const write = pemFiles(t);
    const files = { cert: write('tls.crt', localCertificate.cert), key: write('tls.key', localCertificate.key) };
    const begun = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    const slow = {
      async SayHello() {
        begun.resolve();
        await gate.promise;
        return {};
      },
    };
    await using fixture = await startServer(slow, { tls: files });
    const call = sayHello(fixture);
    await begun.promise;
    const finished = fixture.server.finish();
    gate.resolve();
    assert.equal((await call).code, Code.OK);
    await finished;
  });

  test('with authorities of clients takes only those with a certificate from there', async (t) => {
    const write = pemFiles(t);
    const files = {
      cert: write('tls.crt', localCertificate.cert),
      key: write('tls.key', localCertificate.key),
      ca: write('ca.crt', greeterCertificate.cert),
    };
    await using fixture = await startServer(greeter, { tls: files });
    assert.equal((await sayHello(fixture, greeterCertificate)).code, Code.OK);
    assert.equal((await sayHello(fixture)).code, Code.UNAVAILABLE);
    assert.equal((await sayHello(fixture, localCertificate)).code, Code.UNAVAILABLE);
  });

  test('uses changed files for new connections, and none that do not fit', async (t) => {
    const write = pemFiles(t);
    const files = { cert: write('tls.crt', greeterCertificate.cert), key: write('tls.key', greeterCertificate.key) };
    await using fixture = await startServer(greeter, { tls: files });
    const first = await shownName(fixture.port);
    write('tls.crt', localCertificate.cert);
    assert.equal(await shownName(fixture.port), first);
    write('tls.key', localCertificate.key);
    assert.notEqual(await shownName(fixture.port), first);
    assert.equal((await sayHello(fixture)).code, Code.OK);
    assert.deepEqual(
      fixture.log.map(({ msg }) => msg),
      ['TLS files cannot be used: the last ones stay in use', 'TLS files changed: new connections use them'],
    );
    assert.match(await fixture.registry.metrics(), /^tandem_server_tls_errors_total 1$/m);
  });

  test('counts handshakes that fail by why, ends them, and logs none unless asked to', async (t) => {
    const write = pemFiles(t);
    const files = {
      cert: write('tls.crt', localCertificate.cert),
      key: write('tls.key', localCertificate.key),
      ca: write('ca.crt', greeterCertificate.cert),
    };
    const registry = new Registry();
    const lines: string[] = [];
    const accepted: Socket[] = [];
    const listener = createTlsListener(files, {
      registry,
      log: pino({}, { write: (line: string) => lines.push(line) }),
      onConnection: (socket) => accepted.push(socket),
      handshakeTimeoutMs: 200,
    });
    await once(listener.listen(0, '127.0.0.1'), 'listening');
    const address = { host: '127.0.0.1', port: (listener.address() as AddressInfo).port };
    t.after(() => listener.close());
    const ended = (socket: Socket) =>
      new Promise<void>((resolve) => {
        socket
          .on('error', () => {})
          .on('close', () => resolve())
          .resume();
      });
    const greet = (certificate?: typeof localCertificate) =>
      ended(tls.connect({ ...address, ...certificate, ALPNProtocols: ['h2'], ca: localCertificate.cert }));
    await greet();
    await greet(localCertificate);
    await ended(net.connect(address).end('GET / HTTP/1.1\r\n\r\n'));
    await ended(net.connect(address));
    const leaving = net.connect(address, () => leaving.destroy());
    await ended(mistrust(net.connect(address)));
    await eventually(async () => {
      const text = await registry.metrics();
      const counts = [...text.matchAll(/^tandem_server_tls_handshake_failures_total\{reason="(.*)"\} (\d+)$/gm)];
      assert.deepEqual(Object.fromEntries(counts.map(([, reason, count]) => [reason, Number(count)])), {
        'client-certificate': 2,
        refused: 1,
        protocol: 1,
        timeout: 1,
        closed: 1,
      });
    });
    assert.deepEqual([accepted, lines], [[], []]);
    await once(listener.close(), 'close'); // none of them holds it up
  });

  test('does not start with files that cannot be used', async (t) => {
    const write = pemFiles(t);
    const files = { cert: write('tls.crt', localCertificate.cert), key: write('tls.key', greeterCertificate.key) };
    await assert.rejects(startServer(greeter, { tls: files }), /does not belong to the certificate/);
  });
});
