import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import tls from 'node:tls';
import type { Method } from '../../call/call.ts';
import { invokeUnary } from '../../call/invoke.ts';
import { findTlsProblems, type TlsFiles } from '../../process/tls-files.ts';
import { createChannel } from '../channel.ts';
import type { ChannelEvent } from '../events.ts';
import { greeterCertificate, localCertificate } from '../testing/certificates.ts';
import { replyWith, startPeer } from '../testing/http2-peer.ts';
import { until } from '../testing/until.ts';
import { createGrpcJsTransport } from './grpc-js.ts';
import { createTlsCredentials } from './tls.ts';

const greet: Method = {
  path: '/helloworld.Greeter/SayHello',
  requestStream: false,
  responseStream: false,
  idempotency: 'NO_SIDE_EFFECTS',
};

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

function open(t: TestContext, address: string, files: TlsFiles & { serverName?: string }) {
  const events: ChannelEvent[] = [];
  const channel = createChannel({ target: `ipv4:${address}`, tls: files, onEvent: (event) => events.push(event) });
  t.after(() => channel.close(0));
  channel.connect();
  return Object.assign(channel, {
    events,
    changes: () => events.filter((event) => event.type === 'tls-files').map(({ error }) => error?.message),
    sayHello: async () => {
      const { message } = await invokeUnary(
        channel,
        { method: greet, deadlineMs: performance.now() + 5_000 },
        Buffer.from('x'),
      );
      return Buffer.from(message).toString();
    },
  });
}

test('calls a server whose certificate the authority signed, by the name that is configured', async (t) => {
  const write = pemFiles(t);
  const peer = await startPeer(t, replyWith('hi'), { tls: greeterCertificate });
  const ca = write('ca.crt', greeterCertificate.cert);
  const channel = open(t, peer.address, { ca, serverName: 'greeter.example' });
  assert.equal(await channel.sayHello(), 'hi');
  assert.deepEqual(
    [peer.requests[0]?.headers[':authority'], peer.requests[0]?.headers[':scheme']],
    ['greeter.example', 'https'],
  );
});

test('checks the address where no name is configured, without a warning of Node', async (t) => {
  const warnings: Error[] = [];
  const onWarning = (warning: Error) => warnings.push(warning);
  process.on('warning', onWarning);
  t.after(() => process.off('warning', onWarning));
  const write = pemFiles(t);
  const peer = await startPeer(t, replyWith('hi'), { tls: localCertificate });
  assert.equal(await open(t, peer.address, { ca: write('ca.crt', localCertificate.cert) }).sayHello(), 'hi');
  assert.deepEqual(warnings, []);
});

const refused: {
  readonly certificate: string;
  readonly server: typeof localCertificate;
  readonly authority: typeof localCertificate;
  readonly serverName?: string;
  readonly reason: RegExp;
}[] = [
  {
    certificate: 'an authority that is not trusted',
    server: localCertificate,
    authority: greeterCertificate,
    reason: /: self-signed certificate/,
  },
  {
    certificate: 'another name',
    server: greeterCertificate,
    authority: greeterCertificate,
    serverName: 'other.example',
    reason: /: .*other\.example\. is not in the cert's altnames/,
  },
  {
    certificate: 'another address',
    server: greeterCertificate,
    authority: greeterCertificate,
    reason: /: .*IP: 127\.0\.0\.1 is not in the cert's list/,
  },
];
for (const { certificate, server, authority, serverName, reason } of refused) {
  test(`sends nothing to a server whose certificate has ${certificate}, and says why`, async (t) => {
    const write = pemFiles(t);
    const peer = await startPeer(t, replyWith('hi'), { tls: server });
    const ca = write('ca.crt', authority.cert);
    const channel = open(t, peer.address, { ca, ...(serverName && { serverName }) });
    await assert.rejects(channel.sayHello(), { code: 14 });
    assert.equal(peer.requests.length, 0);
    const failures = channel.events.flatMap((event) => (event.type === 'connection' ? event.lastError : []));
    assert.ok(
      failures.some((lastError) => reason.test(lastError)),
      failures.join(),
    );
  });
}

test('sends nothing to a server that speaks no TLS', async (t) => {
  const write = pemFiles(t);
  const peer = await startPeer(t, replyWith('hi'));
  await assert.rejects(open(t, peer.address, { ca: write('ca.crt', localCertificate.cert) }).sayHello(), { code: 14 });
  assert.equal(peer.requests.length, 0);
});

test('shows its own certificate to a server that asks for one', async (t) => {
  const write = pemFiles(t);
  const mutual = { ...localCertificate, ca: greeterCertificate.cert, requestCert: true, rejectUnauthorized: true };
  const peer = await startPeer(t, replyWith('hi'), { tls: mutual });
  const ca = write('ca.crt', localCertificate.cert);
  await assert.rejects(open(t, peer.address, { ca }).sayHello(), { code: 14 });
  const cert = write('tls.crt', greeterCertificate.cert);
  const key = write('tls.key', greeterCertificate.key);
  assert.equal(await open(t, peer.address, { ca, cert, key }).sayHello(), 'hi');
});

test('uses new files for new connections, and keeps the last good ones while they are wrong', async (t) => {
  const write = pemFiles(t);
  const first = await startPeer(t, replyWith('first'), { tls: localCertificate });
  const ca = write('ca.crt', localCertificate.cert);
  const channel = open(t, first.address, { ca });
  assert.equal(await channel.sayHello(), 'first');

  write('ca.crt', 'half written');
  assert.equal(await channel.sayHello(), 'first');
  assert.deepEqual([first.sessionsEver, channel.changes()], [1, []], 'the connection in use is not touched');

  await first.stop();
  const second = await startPeer(t, replyWith('second'), { tls: localCertificate, port: first.port });
  await until(() => second.sessions === 1 && channel.state === 'READY');
  assert.equal(await channel.sayHello(), 'second');
  assert.deepEqual(channel.changes(), [`${ca} holds no certificate in PEM`]);

  await second.stop();
  write('ca.crt', `${localCertificate.cert}${greeterCertificate.cert}`);
  const third = await startPeer(t, replyWith('third'), { tls: localCertificate, port: first.port });
  await until(() => third.sessions === 1 && channel.state === 'READY');
  assert.equal(await channel.sayHello(), 'third');
  assert.deepEqual(channel.changes().at(-1), undefined);

  await third.stop();
  write('ca.crt', greeterCertificate.cert);
  const fourth = await startPeer(t, replyWith('fourth'), { tls: localCertificate, port: first.port });
  await assert.rejects(channel.sayHello(), { code: 14 }, 'an authority that is gone is trusted no longer');
  assert.equal(fourth.requests.length, 0);
});

test('drops a server that ends the handshake and says nothing more, and keeps one that is idle', async (t) => {
  const write = pemFiles(t);
  const closed: tls.TLSSocket[] = [];
  const silent = tls.createServer(localCertificate, (socket) => {
    socket.on('error', () => {});
    socket.on('close', () => closed.push(socket));
    socket.resume();
  });
  silent.listen(0, '127.0.0.1');
  await once(silent, 'listening');
  t.after(() => silent.close());
  const idle = await startPeer(t, replyWith('hi'), { tls: localCertificate });
  const credentials = createTlsCredentials({ ca: write('ca.crt', localCertificate.cert) }, () => {});
  const transport = createGrpcJsTransport({ credentials, silentAcceptTimeoutMs: 100 });
  const connect = (address: string) => {
    const connection = transport({ id: address, addresses: [address] }, () => {});
    t.after(() => connection.close(0));
    return connection;
  };
  const toIdle = connect(idle.address);
  const toSilent = connect(`127.0.0.1:${(silent.address() as AddressInfo).port}`);
  await until(() => toIdle.state === 'READY');
  await until(() => closed.length > 1);
  assert.notEqual(toSilent.state, 'READY');
  assert.deepEqual([toIdle.state, idle.sessionsEver], ['READY', 1]);
});

test('names each file that cannot be used', (t) => {
  const write = pemFiles(t);
  const ca = write('ca.crt', 'no certificate');
  const cert = write('tls.crt', localCertificate.cert);
  const key = write('tls.key', greeterCertificate.key);
  assert.deepEqual(findTlsProblems({ ca, cert: '/nowhere/tls.crt', key: cert }), [
    { file: 'ca', message: `${ca} holds no certificate in PEM` },
    { file: 'cert', message: '/nowhere/tls.crt cannot be read: ENOENT' },
    { file: 'key', message: `${cert} holds no unencrypted private key in PEM` },
  ]);
  assert.deepEqual(findTlsProblems({ cert, key }), [
    { file: 'key', message: `${key} does not belong to the certificate of ${cert}` },
  ]);
  assert.deepEqual(findTlsProblems({}), []);
  assert.throws(() => createTlsCredentials({ cert, key }, () => {}), { message: /does not belong/ });
});
