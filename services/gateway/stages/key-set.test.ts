import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { test } from 'node:test';
import { until } from '../edge/testing.ts';
import { createKeySet, type FetchResult, KeysUnavailable } from './key-set.ts';
import { createSigningKey, startIssuer } from './testing/issuer.ts';

const k1 = await createSigningKey('k1');
const k2 = await createSigningKey('k2');

/** A key set that is not started yet, with the results of its fetches. */
function createKeys(url: string, options: Partial<Parameters<typeof createKeySet>[0]> = {}) {
  const results: FetchResult[] = [];
  const reasons: string[] = [];
  const onFetch = (result: FetchResult, error?: Error) => {
    results.push(result);
    if (error !== undefined) reasons.push(error.message);
  };
  const keys = createKeySet({ url, onFetch, ...options });
  return {
    results,
    reasons,
    keys,
    /** `found`, or the name of what it rejects with. */
    async find(kid: string): Promise<string> {
      try {
        await keys.find({ alg: 'ES256', kid }, { payload: '', signature: '' });
        return 'found';
      } catch (error) {
        return (error as Error).name;
      }
    },
    [Symbol.dispose]: () => keys.stop(),
  };
}

test('all who wait share one fetch', async () => {
  await using issuer = await startIssuer(k1);
  using set = createKeys(issuer.url);
  assert.equal(set.keys.version, undefined);
  set.keys.start();
  assert.deepEqual(await Promise.all(['k1', 'k1', 'k1'].map(set.find)), ['found', 'found', 'found']);
  assert.equal(issuer.fetches, 1);
  assert.equal(set.keys.version, 1);
});

test('a key that is not there is asked for at once, and then not before some time has passed', async () => {
  await using issuer = await startIssuer(k1);
  using set = createKeys(issuer.url, { cooldownMs: 300 });
  set.keys.start();
  assert.equal(await set.find('k1'), 'found');
  const unknown = await Promise.all(Array.from({ length: 20 }, () => set.find('k2')));
  assert.deepEqual(new Set(unknown), new Set(['JWKSNoMatchingKey']));
  assert.equal(issuer.fetches, 2);
  issuer.keys = [k1, k2];
  assert.equal(await set.find('k2'), 'JWKSNoMatchingKey');
  assert.equal(issuer.fetches, 2);
  const begunAt = performance.now();
  let found = '';
  while (found !== 'found' && performance.now() - begunAt < 10_000) found = await set.find('k2');
  assert.equal(found, 'found');
  assert.equal(issuer.fetches, 3);
  assert.equal(set.keys.version, 2);
});

test('the set is fetched again from time to time, and is the same while it is', async () => {
  await using issuer = await startIssuer(k1);
  using set = createKeys(issuer.url, { refreshMs: 20 });
  set.keys.start();
  await until(() => issuer.fetches >= 3, 'three fetches');
  assert.equal(set.keys.version, 1);
  issuer.keys = [k2];
  await until(() => set.keys.version === 2, 'the new set');
  assert.equal(await set.find('k2'), 'found');
});

const bad: [what: string, respond: (response: ServerResponse) => void, reason: RegExp][] = [
  ['an error', (response) => response.writeHead(503).end(), /^the reply must be 200, is 503$/],
  ['a redirect', (response) => response.writeHead(302, { location: '/other' }).end(), /./],
  ['no JSON', (response) => response.end('<html>'), /JSON/],
  ['no set', (response) => response.end('{"keys":{}}'), /JSON Web Key Set malformed/],
  ['an empty set', (response) => response.end('{"keys":[]}'), /^the set has no keys$/],
  [
    'a body without end',
    (response) => void response.write('x'.repeat(1_100_000)),
    /^the reply must be <= 1048576 bytes$/,
  ],
  ['a connection that is cut', (response) => void response.destroy(), /./],
  ['silence', () => {}, /timeout/],
];
for (const [what, respond, reason] of bad) {
  test(`${what} leaves the last keys in use`, async () => {
    await using issuer = await startIssuer(k1);
    using set = createKeys(issuer.url, { refreshMs: 10, timeoutMs: 2_000 });
    set.keys.start();
    assert.equal(await set.find('k1'), 'found');
    issuer.respond = respond;
    await until(() => set.results.includes('failed'), 'a failed fetch');
    assert.match(set.reasons[0] ?? '', reason);
    assert.deepEqual([await set.find('k1'), await set.find('k2')], ['found', 'KeysUnavailable']);
    assert.equal(set.keys.version, 1);
  });
}

test('keys that are too old are not used, until they are fetched again', async () => {
  await using issuer = await startIssuer(k1);
  using set = createKeys(issuer.url, { refreshMs: 10, maxAgeMs: 300 });
  set.keys.start();
  await until(() => set.keys.version === 1, 'the keys');
  issuer.respond = (response) => void response.writeHead(500).end();
  await until(() => set.keys.version === undefined, 'the keys are too old');
  assert.equal(await set.find('k1'), 'KeysUnavailable');
  issuer.respond = undefined;
  await until(() => set.keys.version === 1, 'the keys are back');
});

test('while fetches fail nobody who asks makes another one, and each is told when to come back', async () => {
  await using issuer = await startIssuer(k1);
  issuer.respond = (response) => void response.writeHead(500).end();
  using set = createKeys(issuer.url);
  set.keys.start();
  assert.deepEqual(new Set(await Promise.all(['k1', 'k2', 'k1'].map(set.find))), new Set(['KeysUnavailable']));
  await assert.rejects(
    async () => set.keys.find({ alg: 'ES256' }, { payload: '', signature: '' }),
    (error) => error instanceof KeysUnavailable && error.retryAfterMs >= 1_000 && error.retryAfterMs < 2_000,
  );
  assert.equal(issuer.fetches, 1);
});
