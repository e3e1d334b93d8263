import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { rootCertificates } from 'node:tls';
import type { Endpoint, Resolver } from '../../call/call.ts';
import { localCertificate } from '../testing/certificates.ts';
import {
  EndpointSliceServer,
  type EndpointSliceServerOptions,
  endpointSlice,
  podEndpoint,
} from '../testing/endpointslice-server.ts';
import { settled, until } from '../testing/until.ts';
import { createKubernetesResolver, inClusterAccess, type KubernetesResolverOptions } from './kubernetes.ts';

/** One slice with these pods, whose addresses follow from their ids. */
function pods(...ids: number[]) {
  return endpointSlice('greeter-x', { endpoints: ids.map((id) => podEndpoint(`pod-${id}`, `10.0.0.${id}`)) });
}

async function startServer(t: TestContext, options: EndpointSliceServerOptions = {}): Promise<EndpointSliceServer> {
  const server = new EndpointSliceServer(options);
  await server.start();
  t.after(() => server.stop());
  return server;
}

interface Resolved {
  readonly resolver: Resolver;
  /** Each list that came, as ids. */
  readonly lists: string[];
  readonly errors: string[];
  readonly last: string | undefined;
  readonly endpoints: readonly Endpoint[];
}

/** Its backoff is short; when the test ends it must leave no connection. */
function resolve(t: TestContext, server: EndpointSliceServer, options: Partial<KubernetesResolverOptions> = {}) {
  const resolver = createKubernetesResolver({
    server: server.url,
    namespace: 'default',
    service: 'greeter',
    port: 'grpc',
    initialBackoffMs: 10,
    maxBackoffMs: 50,
    ...options,
  });
  const lists: string[] = [];
  const errors: string[] = [];
  let endpoints: readonly Endpoint[] = [];
  resolver.start(
    (found) => {
      endpoints = found;
      lists.push(found.map(({ id }) => id.replace('pod-', '')).join(' '));
    },
    ({ message }) => errors.push(message),
  );
  assert.deepEqual([lists, errors], [[], []], 'nothing is called inside start()');
  t.after(async () => {
    resolver.stop();
    await until(() => server.openSockets === 0);
  });
  return {
    resolver,
    lists,
    errors,
    get last() {
      return lists.at(-1);
    },
    get endpoints() {
      return endpoints;
    },
  } satisfies Resolved;
}

test('lists, then follows what comes, changes and goes', async (t) => {
  const server = await startServer(t);
  server.setSlices([
    pods(1, 2),
    endpointSlice('other', { service: 'other', endpoints: [podEndpoint('z', '10.0.9.9')] }),
  ]);
  const resolved = resolve(t, server);
  await until(() => resolved.last === '1 2');
  await until(() => server.openWatches === 1);

  const added = endpointSlice('greeter-y', { endpoints: [podEndpoint('pod-3', '10.0.0.3')] });
  server.setSlices([pods(1, 2), added]);
  await until(() => resolved.last === '1 2 3');
  server.setSlices([pods(2), added]);
  await until(() => resolved.last === '2 3');
  server.setSlices([pods(2)]);
  await until(() => resolved.last === '2');
  server.setSlices([]);
  await until(() => resolved.last === '');
  assert.deepEqual(resolved.errors, [
    'cannot use endpointslices of greeter in default: there are none: does the service exist?',
  ]);
  assert.deepEqual([server.countOf('list'), server.countOf('watch')], [1, 1]);

  const [list, watch] = server.requests.map(({ url }) => Object.fromEntries(url.searchParams));
  assert.deepEqual(list, { labelSelector: 'kubernetes.io/service-name=greeter', limit: '500' });
  const { timeoutSeconds, resourceVersion, ...rest } = watch ?? {};
  assert.deepEqual(rest, {
    labelSelector: 'kubernetes.io/service-name=greeter',
    watch: '1',
    allowWatchBookmarks: 'true',
  });
  assert.ok(Number(timeoutSeconds) >= 54 && Number(timeoutSeconds) <= 72, `${timeoutSeconds} s is before the silence`);
  assert.match(String(resourceVersion), /^1\d\d\d$/);
});

test('makes one list of events that come together, and none of one that changes nothing', async (t) => {
  const server = await startServer(t);
  server.setSlices([pods(1)]);
  const resolved = resolve(t, server);
  await until(() => server.openWatches === 1);
  const other = (name: string, id: number) =>
    endpointSlice(name, { endpoints: [podEndpoint(`pod-${id}`, `10.0.0.${id}`)] });
  server.setSlices([pods(1), other('y', 2)]);
  server.setSlices([pods(1), other('y', 2), other('z', 3)]);
  server.setSlices([pods(1), other('y', 2), other('z', 4)]);
  await until(() => resolved.last === '1 2 4');
  // A pod that moves to another slice is in both at first.
  server.setSlices([pods(1, 2), other('y', 2), other('z', 4)]);
  server.setSlices([pods(1, 2), other('z', 4)]);
  server.sendEvent('RENAMED', { kind: 'EndpointSlice' });
  await settled(() => resolved.lists.length);
  assert.deepEqual(resolved.lists, ['1', '1 2 4']);
  assert.deepEqual(resolved.errors, []);
});

test('goes on from the last bookmark when a watch ends', async (t) => {
  const server = await startServer(t);
  server.setSlices([pods(1)]);
  const resolved = resolve(t, server);
  await until(() => server.openWatches === 1);
  assert.deepEqual(resolved.lists, ['1']);
  server.bookmark();
  await until(() => resolved.lists.length === 2);
  assert.deepEqual(resolved.lists, ['1', '1'], 'the bookmark confirms it');
  server.endWatches();
  server.setSlices([pods(1, 2)]); // in between
  await until(() => resolved.last === '1 2');
  assert.deepEqual([server.countOf('list'), server.countOf('watch')], [1, 2]);
  const versions = server.requests.slice(1).map(({ url }) => Number(url.searchParams.get('resourceVersion')));
  assert.equal((versions[1] ?? 0) - (versions[0] ?? 0), 1, 'that of the bookmark');
  assert.deepEqual(resolved.errors, []);
});

for (const how of ['event', 'status'] as const) {
  test(`lists anew at once after 410 Gone as ${how}`, async (t) => {
    const server = await startServer(t);
    server.setSlices([pods(1)]);
    const resolved = resolve(t, server, { initialBackoffMs: 60_000, maxBackoffMs: 60_000 });
    await until(() => server.openWatches === 1);
    server.bookmark();
    server.expire(how);
    server.setSlices([pods(2)]);
    await until(() => resolved.last === '2');
    assert.equal(server.countOf('list'), 2);
    assert.deepEqual(resolved.errors, [], 'it is no problem');
  });
}

test('does not list without end when each watch is 410 Gone', async (t) => {
  const server = await startServer(t);
  server.setSlices([pods(1)]);
  const resolved = resolve(t, server, { initialBackoffMs: 60_000, maxBackoffMs: 60_000 });
  await until(() => server.openWatches === 1);
  server.sendEvent('ERROR', { kind: 'Status', code: 410, reason: 'Gone', message: 'first' });
  await until(() => server.countOf('watch') === 2 && server.openWatches === 1);
  server.sendEvent('ERROR', { kind: 'Status', code: 410, reason: 'Gone', message: 'second' });
  await until(() => resolved.errors.length === 1);
  assert.match(
    resolved.errors[0] ?? '',
    /^cannot watch endpointslices of greeter in default: 410 Gone for .*: second$/,
  );
  assert.equal(server.countOf('list'), 2);
});

test('reads a long list page by page, and from the start when the rest of it is gone', async (t) => {
  const server = await startServer(t, { maxPageSize: 2 });
  const slices = [1, 2, 3, 4, 5].map((id) =>
    endpointSlice(`greeter-${id}`, { endpoints: [podEndpoint(`pod-${id}`, `10.0.0.${id}`)] }),
  );
  server.setSlices(slices);
  const resolved = resolve(t, server);
  await until(() => resolved.last === '1 2 3 4 5');
  assert.equal(server.countOf('list'), 3);
  assert.deepEqual(resolved.lists, ['1 2 3 4 5'], 'no page is taken for the whole');
  await until(() => server.openWatches === 1);

  server.onRequest = (url) => {
    if (!url.searchParams.has('continue')) return;
    server.onRequest = undefined;
    server.expire('event');
  };
  server.cut();
  await until(() => server.openWatches === 1 && server.countOf('watch') === 2);
  assert.equal(server.countOf('list'), 3 + 2 + 3);
  server.setSlices(slices.slice(1));
  await until(() => resolved.last === '2 3 4 5');
  assert.deepEqual(new Set(resolved.lists), new Set(['1 2 3 4 5', '2 3 4 5']));
});

test('keeps the last list while the API server is gone, and finds it when it is back', async (t) => {
  const server = await startServer(t);
  server.setSlices([pods(1, 2)]);
  const resolved = resolve(t, server);
  await until(() => server.openWatches === 1);
  await server.stop();
  await until(() => resolved.errors.length >= 2);
  await settled(() => resolved.errors.length);
  assert.deepEqual(resolved.lists, ['1 2']);
  assert.match(resolved.errors[0] ?? '', /^cannot watch endpointslices of greeter in default: /);
  assert.match(resolved.errors[1] ?? '', /^cannot list endpointslices of greeter in default: connect ECONNREFUSED/);
  assert.equal(resolved.errors.length, 2, 'a problem that stays is told once');

  server.setSlices([pods(2, 3)]);
  await server.start();
  await until(() => resolved.last === '2 3');
});

test('drops a connection that is silent and lists anew', async (t) => {
  const server = await startServer(t);
  server.setSlices([pods(1)]);
  const resolved = resolve(t, server, { silenceTimeoutMs: 400 });
  await until(() => server.openWatches === 1);
  server.silence();
  server.setSlices([pods(1, 2)]);
  await until(() => resolved.last === '1 2');
  assert.deepEqual(resolved.errors, ['cannot watch endpointslices of greeter in default: nothing came for 400 ms']);
  await until(() => server.openSockets === 1);
});

test('bookmarks keep a connection without events', async (t) => {
  const server = await startServer(t);
  server.setSlices([pods(1)]);
  const resolved = resolve(t, server, { silenceTimeoutMs: 400 });
  await until(() => server.openWatches === 1);
  const startMs = performance.now();
  const timer = setInterval(() => server.bookmark(), 50);
  t.after(() => clearInterval(timer));
  await until(() => performance.now() - startMs > 900);
  assert.deepEqual([server.countOf('watch'), resolved.errors], [1, []]);
});

test('does not wait for a server that takes requests and says nothing', async (t) => {
  const server = await startServer(t);
  server.setSlices([pods(1)]);
  const resolved = resolve(t, server, { answerTimeoutMs: 300 });
  await until(() => server.openWatches === 1);
  server.stopAnswering();
  server.cut();
  const problem = 'cannot list endpointslices of greeter in default: no answer within 300 ms';
  await until(() => resolved.errors.includes(problem));
  server.setSlices([pods(2)]);
  server.answerAgain();
  await until(() => resolved.last === '2');
});

test('says what the API server refuses, and asks again', async (t) => {
  const server = await startServer(t);
  server.setSlices([pods(1)]);
  server.failWith({ code: 403, reason: 'Forbidden', message: `serviceaccount\n may not list ${'x'.repeat(1_000)}` });
  const resolved = resolve(t, server);
  await until(() => resolved.errors.length === 1 && server.countOf('list') > 2);
  assert.match(
    resolved.errors[0] ?? '',
    /^cannot list endpointslices of greeter in default: 403 Forbidden for \/apis\/discovery\.k8s\.io\/v1\/namespaces\/default\/endpointslices: serviceaccount may not list x+…$/,
  );
  assert.ok((resolved.errors[0]?.length ?? 0) < 500);
  assert.deepEqual(resolved.lists, []);
  server.failWith();
  await until(() => resolved.last === '1');
  assert.equal(resolved.errors.length, 1);
});

test('says which port is missing, and keeps the last list', async (t) => {
  const server = await startServer(t);
  server.setSlices([endpointSlice('greeter-x', { endpoints: [podEndpoint('pod-1', '10.0.0.1')] })]);
  const without = resolve(t, server, { port: 'web' });
  const missing = 'cannot use endpointslices of greeter in default: no port is named "web", there is grpc';
  await until(() => without.errors.length > 0);
  assert.deepEqual([without.lists, without.errors], [[], [missing]]);

  const web = [{ name: 'web', port: 8080 }];
  server.setSlices([endpointSlice('greeter-x', { endpoints: [podEndpoint('pod-1', '10.0.0.1')], ports: web })]);
  await until(() => without.last === '1');
  assert.deepEqual(without.endpoints, [{ id: 'pod-1', addresses: ['10.0.0.1:8080'] }]);
});

test('reads events whose bytes come in any pieces', async (t) => {
  const server = await startServer(t, { pieceBytes: 1 });
  server.setSlices([pods(1)]);
  const resolved = resolve(t, server);
  await until(() => server.openWatches === 1);
  server.setSlices([endpointSlice('greeter-x', { endpoints: [podEndpoint('pod-çé€🙂', '10.0.0.2')] })]);
  await until(() => resolved.last === 'çé€🙂');
  server.setSlices([pods(3)]);
  await until(() => resolved.last === '3');
  assert.deepEqual(resolved.errors, []);
});

test('lists anew after an event that makes no sense, or has no end', async (t) => {
  const server = await startServer(t);
  server.setSlices([pods(1)]);
  const resolved = resolve(t, server);
  await until(() => server.countOf('list') === 1);
  const problem = async (cause: () => void, pattern: RegExp) => {
    const lists = server.countOf('list');
    const errors = resolved.errors.length;
    await until(() => server.openWatches === 1 && server.countOf('watch') === lists);
    server.bookmark();
    cause();
    await until(() => resolved.errors.length > errors && server.countOf('list') > lists);
    assert.match(resolved.errors[errors] ?? '', pattern);
  };
  await problem(() => server.sendRaw('{"type":\n'), /^cannot watch .*JSON/);
  await problem(
    () => server.sendEvent('ADDED', { metadata: { name: 7 } }),
    /^cannot watch .*: metadata\.name: Invalid/,
  );
  await problem(() => server.sendRaw('x'.repeat(9 * 1024 * 1024)), /an event is larger than 8388608 bytes$/);
  await problem(() => server.breakFraming(), /^cannot watch /);
  await problem(() => {
    server.sendRaw('{"type":');
    server.endWatches();
  }, /the watch ended within an event$/);
  assert.deepEqual(new Set(resolved.lists), new Set(['1']));
});

test('takes a watch that ends at once for a failure, so that it asks no faster and faster', async (t) => {
  const server = await startServer(t);
  server.setSlices([pods(1)]);
  const resolved = resolve(t, server, { initialBackoffMs: 60_000, maxBackoffMs: 60_000 });
  await until(() => server.openWatches === 1);
  server.endWatches();
  await until(() => resolved.errors.length === 1);
  assert.match(resolved.errors[0] ?? '', /the watch ended at once$/);
  assert.equal(server.countOf('watch'), 1);
});

test('backs off up to the limit', async (t) => {
  const server = await startServer(t);
  server.failWith({ code: 500, reason: 'InternalError', message: 'etcd is gone' });
  const startMs = performance.now();
  resolve(t, server, { initialBackoffMs: 20, maxBackoffMs: 80 });
  await until(() => server.countOf('list') === 7);
  const waitedMs = performance.now() - startMs;
  // 20 + 40 + 80 + 80 + 80 + 80 ms, each times 0.5 to 1.
  assert.ok(waitedMs >= 190, `six waits took ${waitedMs} ms`);
});

test('reads the token for each request, and says that it is refused', async (t) => {
  const server = await startServer(t);
  const tokenFile = await temporaryFile(t, 'first\n');
  server.token = 'first';
  server.setSlices([pods(1)]);
  const resolved = resolve(t, server, { tokenFile });
  await until(() => server.openWatches === 1);
  server.token = 'second';
  server.cut();
  await until(() => resolved.errors.some((error) => error.includes('401 Unauthorized')));
  assert.ok(resolved.errors.at(-1)?.includes(`(token from ${tokenFile})`));
  assert.ok(!resolved.errors.join().includes('first'), 'the token is told to nobody');
  await writeFile(tokenFile, 'second\n');
  server.setSlices([pods(2)]);
  await until(() => resolved.last === '2');
  assert.equal(server.requests.at(-1)?.authorization, 'Bearer second');

  await until(() => server.openWatches === 1);
  await rm(tokenFile);
  server.cut();
  await until(() => resolved.errors.some((error) => error.includes('ENOENT')));
});

test('trusts the CA of the cluster, also one that comes later', async (t) => {
  const server = await startServer(t, { tls: true });
  server.setSlices([pods(1)]);
  const caFile = await temporaryFile(t, rootCertificates[0] ?? '');
  const resolved = resolve(t, server, { caFile });
  await until(() => resolved.errors.length === 1);
  assert.match(resolved.errors[0] ?? '', /^cannot list .*: .*certificate/);
  await writeFile(caFile, localCertificate.cert);
  await until(() => resolved.last === '1');
  await until(() => server.openWatches === 1);
  assert.equal(server.openSockets, 1, 'the watch goes over the connection of the list');
});

test('stop() closes the connection at once and calls nobody any more', async (t) => {
  const server = await startServer(t);
  server.setSlices([pods(1)]);
  const resolved = resolve(t, server);
  await until(() => server.openWatches === 1);
  server.setSlices([pods(2)]);
  resolved.resolver.stop();
  await until(() => server.openSockets === 0);
  await settled(() => resolved.lists.length + resolved.errors.length);
  assert.deepEqual([resolved.lists, resolved.errors], [['1'], []]);

  server.failWith({ code: 403, reason: 'Forbidden', message: 'no' });
  const refused = resolve(t, server, { initialBackoffMs: 60_000, maxBackoffMs: 60_000 });
  await until(() => refused.errors.length === 1);
  assert.equal(server.openSockets, 1, 'it is kept for the next request');
  refused.resolver.stop();
  await until(() => server.openSockets === 0);

  server.failWith();
  server.stopAnswering();
  for (const step of ['before it connects', 'before it is answered']) {
    const requests = server.requests.length;
    const waiting = resolve(t, server);
    if (step === 'before it is answered') await until(() => server.requests.length > requests);
    waiting.resolver.stop();
    await until(() => server.openSockets === 0);
    assert.deepEqual(waiting.errors, []);
  }
});

test('holds no process alive', async (t) => {
  const server = await startServer(t);
  server.setSlices([pods(1)]);
  const script = `
    import { createKubernetesResolver } from '${new URL('kubernetes.ts', import.meta.url).href}';
    const resolver = createKubernetesResolver({
      server: '${server.url}', namespace: 'default', service: 'greeter', port: 'grpc',
    });
    const timer = setInterval(() => {}, 1_000);
    resolver.start((endpoints) => {
      console.log(endpoints[0].id);
      clearInterval(timer);
    }, console.error);
  `;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => child.kill('SIGKILL'));
  const [output] = (await once(child.stdout, 'data')) as [Buffer];
  assert.equal(output.toString(), 'pod-1\n');
  assert.deepEqual(await once(child, 'exit'), [0, null]);
});

test('the access that a pod has', async (t) => {
  const namespaceFile = await temporaryFile(t, 'helloworld\n', 'namespace');
  const directory = join(namespaceFile, '..');
  const files = { tokenFile: join(directory, 'token'), caFile: join(directory, 'ca.crt') };
  assert.equal(inClusterAccess({}, directory), undefined);
  assert.deepEqual(
    inClusterAccess({ KUBERNETES_SERVICE_HOST: '10.96.0.1', KUBERNETES_SERVICE_PORT: '6443' }, directory),
    {
      server: 'https://10.96.0.1:6443',
      ...files,
      namespace: 'helloworld',
    },
  );
  await rm(namespaceFile);
  assert.deepEqual(inClusterAccess({ KUBERNETES_SERVICE_HOST: 'fd00::1' }, directory), {
    server: 'https://[fd00::1]:443',
    ...files,
  });
});

async function temporaryFile(t: TestContext, text: string, name = 'file'): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'kubernetes-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const path = join(directory, name);
  await writeFile(path, text);
  return path;
}
