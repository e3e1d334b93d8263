import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import * as grpc from '@grpc/grpc-js';
import type { ChannelSnapshot } from '#runtime/channel/channel.ts';
import { until } from './edge/testing.ts';
import { buildDescriptorSet, libraryProto } from './testdata/build.ts';

const entry = fileURLToPath(new URL('main.ts', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'tandem-gateway-'));
after(() => rmSync(directory, { recursive: true }));
const descriptors = buildDescriptorSet(libraryProto, directory);

/** A gateway as a process. It must have exited by the end of its scope. */
function startGateway(args: string[], env: Record<string, string> = {}) {
  const child = spawn(process.execPath, [entry, ...args], {
    env: { HOST: '127.0.0.1', PORT: '0', ADMIN_PORT: '0', DRAIN_DELAY: '100ms', LOG_FORMAT: 'json', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const log: Record<string, unknown>[] = [];
  let stderr = '';
  createInterface(child.stdout).on('line', (line) => log.push(JSON.parse(line)));
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text;
  });
  // 'exit' may come before the last lines have been read.
  const exited = once(child, 'close').then(([code]) => code as number | null);
  const logged = (msg: string) => log.find((line) => line['msg'] === msg);
  return {
    child,
    log,
    logged,
    exited,
    stderr: () => stderr,
    async serving() {
      await until(() => logged('serving') !== undefined || child.exitCode !== null, 'serving');
      const { port, adminPort } = logged('serving') ?? {};
      return { url: `http://127.0.0.1:${port}`, admin: `http://127.0.0.1:${adminPort}` };
    },
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL');
      await exited;
    },
  };
}

const sameBytes = (bytes: Buffer) => bytes;
const shape = {
  requestSerialize: sameBytes,
  requestDeserialize: sameBytes,
  responseSerialize: sameBytes,
  responseDeserialize: sameBytes,
};

/**
 * A library as any gRPC server could be: Echo sends the bytes back, or holds them if the call asks for that, and WatchBooks
 * sends a book until it is cancelled.
 */
async function startLibrary() {
  const server = new grpc.Server();
  const held: (() => void)[] = [];
  let cancelled = 0;
  server.addService(
    {
      Echo: { path: '/library.v1.Library/Echo', requestStream: false, responseStream: false, ...shape },
      WatchBooks: { path: '/library.v1.Library/WatchBooks', requestStream: false, responseStream: true, ...shape },
    },
    {
      Echo: (call: grpc.ServerUnaryCall<Buffer, Buffer>, callback: grpc.sendUnaryData<Buffer>) => {
        const headers = new grpc.Metadata();
        headers.set('served-by', 'library-1');
        call.sendMetadata(headers);
        const reply = () => callback(null, call.request);
        if (call.metadata.get('hold').length > 0) held.push(reply);
        else reply();
      },
      WatchBooks: (call: grpc.ServerWritableStream<Buffer, Buffer>) => {
        const book = Buffer.from([0x12, 1, 0x54]); // title: "T"
        const timer = setInterval(() => call.write(book), 10);
        call.on('cancelled', () => {
          clearInterval(timer);
          cancelled++;
        });
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  return {
    target: `ipv4:127.0.0.1:${port}`,
    cancelled: () => cancelled,
    held,
    [Symbol.dispose]: () => server.forceShutdown(),
  };
}

describe('gateway', () => {
  it('serves any service from its descriptors and its target', async () => {
    using library = await startLibrary();
    await using gateway = startGateway(['--descriptors', descriptors, '--target', library.target]);
    const { url, admin } = await gateway.serving();
    const body = '{"int64Value":"9007199254740993","child":{"words":["a"]},"time":"2025-01-31T12:00:00Z"}';
    const reply = await fetch(`${url}/library.v1.Library/Echo`, {
      method: 'POST',
      body,
      headers: { 'content-type': 'application/json' },
    });
    assert.equal(reply.status, 200, await reply.clone().text());
    assert.deepEqual(await reply.json(), JSON.parse(body));
    assert.equal(reply.headers.get('served-by'), 'library-1');
    const missing = await fetch(`${url}/v1/shelves/a/books/b`);
    assert.deepEqual([missing.status, ((await missing.json()) as { code: number }).code], [501, 12]);
    const metrics = await (await fetch(`${admin}/metrics`)).text();
    assert.match(metrics, /grpc_client_call_duration_seconds_count\{[^}]*library\.v1\.Library\/Echo[^}]*\} 1/);
    assert.match(
      metrics,
      /http_server_request_duration_seconds_count\{method="POST",route="\/library\.v1\.Library\/Echo",code="200",grpc_code="OK",form=""\} 1/,
    );
  });

  it('streams, and cancels at the replica when the reader leaves', async () => {
    using library = await startLibrary();
    await using gateway = startGateway(['--descriptors', descriptors, '--target', library.target]);
    const { url } = await gateway.serving();
    const abort = new AbortController();
    const reply = await fetch(`${url}/v1/shelves/a/books:watch`, { signal: abort.signal });
    assert.equal(reply.headers.get('content-type'), 'application/x-ndjson');
    abort.abort();
    await until(() => library.cancelled() === 1, 'the cancellation at the replica');
  });

  it('drains on SIGTERM: replies in flight arrive, streams are told to come back, exit code 0', async () => {
    using library = await startLibrary();
    await using gateway = startGateway(['--descriptors', descriptors, '--target', library.target], {
      DRAIN_DELAY: '300ms',
    });
    const { url, admin } = await gateway.serving();
    const slow = fetch(`${url}/library.v1.Library/Echo`, { method: 'POST', headers: { 'grpc-metadata-hold': 'yes' } });
    await until(() => library.held.length === 1, 'the call');
    const stream = await fetch(`${url}/v1/shelves/a/books:watch`);
    gateway.child.kill('SIGTERM');
    await until(() => gateway.logged('stopping') !== undefined, 'the drain');
    assert.equal((await fetch(`${admin}/readyz`)).status, 503);
    await sleep(400); // The delay is over, too.
    library.held[0]?.();
    const lines = (await stream.text()).trimEnd().split('\n');
    assert.match(lines.at(-1) ?? '', /^\{"status":\{"code":14,.*RetryInfo/);
    assert.equal((await slow).status, 200);
    assert.equal(await gateway.exited, 0);
    assert.deepEqual(gateway.logged('stopped')?.['requests'], {
      'POST /library.v1.Library/Echo 200': 1,
      'GET /v1/{parent=shelves/*}/books:watch 200': 1,
    });
    assert.equal(gateway.stderr(), '');
  });

  it('calls the backup while the primary is away, and shows its channel on the admin port', async () => {
    using library = await startLibrary();
    const away = 'ipv4:127.0.0.1:1';
    await using gateway = startGateway(['--descriptors', descriptors], { TARGET: `${away} ${library.target}` });
    const { url, admin } = await gateway.serving();
    const reply = await fetch(`${url}/library.v1.Library/Echo`, { method: 'POST' });
    assert.equal(reply.status, 200);
    await until(() => gateway.logged('calls go to a backup target') !== undefined, 'the log line');
    assert.equal(gateway.logged('calls go to a backup target')?.['active'], library.target);
    const shown = await fetch(`${admin}/introspection/channel`);
    assert.equal(shown.headers.get('content-type'), 'application/json');
    const text = await shown.text();
    const snapshots = JSON.parse(text) as { readonly default: ChannelSnapshot };
    assert.equal(text, `${JSON.stringify(snapshots, null, 2)}\n`);
    const { state, policy, activePriority, targets, retryBudget } = snapshots.default;
    assert.deepEqual(
      { state, policy, activePriority, retryBudget },
      {
        state: 'READY',
        policy: 'round_robin',
        activePriority: 1,
        retryBudget: { tokens: 200, maxTokens: 200, allows: true },
      },
    );
    assert.deepEqual(
      targets.map(({ target, endpoints }) => [target, endpoints.map(({ picks, failures }) => [picks, failures])]),
      [
        [away, [[0, 0]]],
        [library.target, [[1, 0]]],
      ],
    );
  });

  it('is ready without its upstream once it has waited, and then answers 503', async () => {
    await using gateway = startGateway(['--descriptors', descriptors, '--target', 'ipv4:127.0.0.1:1'], {
      STARTUP_WAIT: '3s',
    });
    const { url, admin } = await gateway.serving();
    assert.equal((await fetch(`${admin}/readyz`)).status, 503);
    await until(() => gateway.logged('no replica is ready yet: serving without') !== undefined, 'the wait');
    assert.equal((await fetch(`${admin}/readyz`)).status, 200);
    const reply = await fetch(`${url}/library.v1.Library/Echo`, { method: 'POST' });
    assert.deepEqual([reply.status, await reply.json()], [503, { code: 14, message: 'the service is unavailable' }]);
  });

  it('describes what it serves, unless it is told not to', async () => {
    await using open = startGateway(['--descriptors', descriptors, '--target', 'ipv4:127.0.0.1:1']);
    const { url } = await open.serving();
    const document = (await (await fetch(`${url}/openapi.json`)).json()) as { info: { title: string } };
    assert.equal(document.info.title, 'library.v1.Library');
    assert.equal((await fetch(`${url}/docs`)).status, 200);
    await using closed = startGateway(['--descriptors', descriptors, '--target', 'ipv4:127.0.0.1:1'], {
      DOCS: 'disabled',
    });
    const { url: closedUrl } = await closed.serving();
    for (const path of ['/openapi.json', '/docs', '/docs/start.js']) {
      assert.equal((await fetch(closedUrl + path)).status, 404, path);
    }
  });

  const notJson = join(directory, 'bad.json');
  writeFileSync(notJson, '{');
  const bad: [name: string, args: string[], problems: RegExp[]][] = [
    [
      'a missing descriptor set',
      ['--descriptors', '/nowhere/x.binpb'],
      [/DESCRIPTORS \/nowhere\/x\.binpb cannot be read: ENOENT/],
    ],
    ['a file that is no descriptor set', ['--descriptors', entry], [/is not a descriptor set/]],
    [
      'bad targets',
      ['--target', 'zookeeper:x dns:///b:1 dns:///c dns:///b:1'],
      [
        /--target: target "zookeeper:x" must begin with dns:\/\/\//,
        /"dns:\/\/\/c" must be dns/,
        /"dns:\/\/\/b:1" is named twice/,
      ],
    ],
    [
      'a service config with mistakes',
      ['--service-config', '{"methodConfig":[{"name":[{}],"timeout":"1m"}],"x":1}'],
      [/timeout/, /x is not a field/],
    ],
    ['a service config that is no JSON', ['--service-config', `@${notJson}`], [/JSON/]],
    [
      'several mistakes at once',
      ['--port', '99999', '--startup-wait', 'soon', '--prot', '1'],
      [/--port/, /--startup-wait/, /--prot is not a flag/],
    ],
  ];
  for (const [name, args, problems] of bad) {
    it(`does not start with ${name}`, async () => {
      await using gateway = startGateway(args);
      assert.equal(await gateway.exited, 1);
      for (const problem of problems) assert.match(gateway.stderr(), problem);
    });
  }
});
