import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { Method } from '#runtime/call/call.ts';
import { ConfigError } from '#runtime/process/config.ts';
import { readConfigFile } from './config-file.ts';
import { createPolicies } from './policies.ts';

const directory = mkdtempSync(join(tmpdir(), 'tandem-policies-'));
after(() => rmSync(directory, { recursive: true }));
const path = join(directory, 'gateway.yaml');

const unary = { requestStream: false, responseStream: false } as const;
const get: Method = { path: '/a.A/Get', idempotency: 'NO_SIDE_EFFECTS', ...unary };
const put: Method = { path: '/a.A/Put', idempotency: 'IDEMPOTENT', ...unary };
const watch: Method = { ...get, path: '/a.A/Watch', responseStream: true };
const other: Method = { ...get, path: '/a.AB/Get' };
const provider = '{ name: us, issuer: i, audiences: [a], jwks: http://127.0.0.1:1/ }';

function policies(yaml: string) {
  writeFileSync(path, yaml);
  return createPolicies(readConfigFile(path), [get, put, watch, other]);
}

test('without policies nothing is asked for, and nothing is cached', () => {
  const none = { cache: undefined, quota: undefined, authProvider: undefined, priority: 'high' };
  assert.deepEqual(createPolicies(undefined, [get])(get), none);
  assert.deepEqual(policies('{}')(put), none);
});

test('each field comes from the policy that names the method most exactly and has it', () => {
  const policyOf = policies(`
auth: [${provider}]
policies:
  - { name: [{ service: a.A, method: Get }], auth: anonymous }
  - { name: [{ service: a.A }], priority: low, auth: { provider: us } }
  - { name: [{}], priority: high, auth: anonymous, cache: { ttl: 1s, key: [accept-language] }, quota: { requests: 1, per: 1m } }
`);
  const cache = { ttl: 1_000, staleWhileRevalidate: 0, staleIfError: 0, key: ['accept-language'] };
  const quota = { requests: 1, per: 60_000, key: 'ip' };
  assert.deepEqual(policyOf(get), { cache, quota, authProvider: undefined, priority: 'low' });
  assert.deepEqual(policyOf(put), { cache: undefined, quota, authProvider: 'us', priority: 'low' });
  assert.deepEqual(policyOf(watch), { cache: undefined, quota, authProvider: 'us', priority: 'low' });
  assert.deepEqual(policyOf(other), { cache, quota, authProvider: undefined, priority: 'high' });
});

const mistakes: [what: string, yaml: string, problems: string[]][] = [
  [
    'names that are not in the descriptors, or twice there',
    `policies:
  - name: [{ service: a.A, method: Gett }]
  - name: [{ service: a }]
  - name: [{ method: Get }]
  - name: [{ service: a.A }, { service: a.A }]`,
    [
      '2: policies[0].name[0] "a.A/Gett" is not in the descriptors',
      '3: policies[1].name[0] "a/" is not in the descriptors',
      '4: policies[2].name[0] must name the service of the method',
      '5: policies[3].name[1] "a.A/" has a policy already',
    ],
  ],
  [
    'a cache for what may have effects, or is a stream',
    `policies:
  - name: [{ service: a.A, method: Put }]
    cache: { ttl: 1s }
  - name: [{ service: a.A, method: Watch }]
    cache: { ttl: 1s }`,
    [
      '3: policies[0].cache must be for a unary method that is NO_SIDE_EFFECTS',
      '5: policies[1].cache must be for a unary method that is NO_SIDE_EFFECTS',
    ],
  ],
  [
    'a provider that there is not, and methods of which nothing is said',
    `auth: [${provider}]
policies:
  - name: [{ service: a.A }]
    auth: { provider: them }`,
    [
      '4: policies[0].auth.provider "them" is not one of auth',
      '2: policies must say the auth of a.AB/Get: a provider, or anonymous',
    ],
  ],
  [
    'a quota by a claim of nobody',
    'policies:\n  - { name: [{ service: a.AB }], quota: { requests: 1, per: 1s, key: "claim:sub" } }',
    ['1: policies must have an auth provider for the quota of a.AB/Get by claim:sub'],
  ],
  [
    'values out of range',
    `policies:
  - name: []
    cache: { ttl: 25h, stale: 1s }
    quota: { requests: 0, per: 1, key: who }
    auth: nobody
    priority: middle`,
    [
      '2: policies[0].name [] must name at least one method, or all: [{}]',
      '3: policies[0].cache.ttl "25h" must be <= 86400s',
      '3: policies[0].cache.stale is not a field of the configuration',
      '4: policies[0].quota.requests 0 must be >= 1',
      '4: policies[0].quota.per 1 must be a duration such as 250ms, 5s or 1m',
      '4: policies[0].quota.key "who" must be ip, header:<name in small letters> or claim:<name>',
      '5: policies[0].auth "nobody" must be anonymous or { provider: <name> }',
      '6: policies[0].priority "middle" must be high or low',
    ],
  ],
  [
    'auth providers',
    `auth:
  - { name: us, issuer: i, audiences: [], jwks: ftp://a, algorithms: [HS256], clockSkew: 10m, claims: { sub: User } }
  - ${provider}`,
    [
      '2: auth[0].audiences [] must name at least one audience',
      '2: auth[0].jwks "ftp://a" must be an http:// or https:// URL',
      '2: auth[0].algorithms[0] "HS256" must be an asymmetric algorithm of JWS, such as RS256',
      '2: auth[0].clockSkew "10m" must be <= 300s',
      '2: auth[0].claims.sub "User" must be a metadata key of 0-9 a-z _ . -',
    ],
  ],
];

for (const [what, yaml, problems] of mistakes) {
  test(`stops the start: ${what}`, () => {
    assert.throws(
      () => policies(yaml),
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
