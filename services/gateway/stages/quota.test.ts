import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FastifyReply } from 'fastify';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { Code, RpcError } from '#runtime/call/status.ts';
import type { Visit } from '../edge/exchange.ts';
import { type FakeCall, startEdge } from '../edge/testing.ts';
import type { PolicyConfig, QuotaPolicy } from '../policy-schema.ts';
import { createQuotas, networkOf } from './quota.ts';

const log = pino({ enabled: false });
const getBook = { service: 'library.v1.Library', method: 'GetBook' };

function answer(call: FakeCall): void {
  call.headers([]);
  call.book('Dune');
  call.status(Code.OK);
}

function policyOf(quota: Partial<QuotaPolicy>, name: PolicyConfig['name'] = [getBook]): PolicyConfig {
  return { name, quota: { requests: 2, per: 60_000, key: 'ip', ...quota } };
}

test('every reply says what is left of the quota, and what is past it is a 429 that says until when', async () => {
  await using edge = await startEdge(answer, { policies: [policyOf({})] });
  const get = () => fetch(`${edge.url}/v1/shelves/1/books/2`);
  const replies = [await get(), await get(), await get()];
  const field = '"library.v1.Library/GetBook"';
  for (const [index, reply] of replies.entries()) {
    assert.equal(reply.headers.get('ratelimit-policy'), `${field};q=2;w=60`);
    const [, remaining, resetS] = /^"library\.v1\.Library\/GetBook";r=(\d+);t=(\d+)$/.exec(
      reply.headers.get('ratelimit') ?? '',
    ) ?? ['', '', ''];
    assert.equal(Number(remaining), Math.max(0, 1 - index));
    assert.ok(Number(resetS) > 50 && Number(resetS) <= 60, resetS);
  }
  const [, , refused] = replies;
  assert.equal(refused?.status, 429);
  assert.ok(Number(refused?.headers.get('retry-after')) > 50);
  const json = (await refused?.json()) as { code: number; message: string; details: Record<string, unknown>[] };
  assert.deepEqual([json.code, json.message], [Code.RESOURCE_EXHAUSTED, 'the quota of 2 requests in 60 s is used up']);
  assert.deepEqual(json.details[0], {
    '@type': 'type.googleapis.com/google.rpc.QuotaFailure',
    violations: [{ subject: 'ip', description: json.message }],
  });
  assert.equal(json.details[1]?.['@type'], 'type.googleapis.com/google.rpc.RetryInfo');
  assert.equal(edge.calls.length, 2);
  const metric = await edge.registry.getSingleMetricAsString('tandem_quota_requests_total');
  assert.match(metric, /policy="library\.v1\.Library\/GetBook",result="allowed"\} 2/);
  assert.match(metric, /policy="library\.v1\.Library\/GetBook",result="refused"\} 1/);
});

test('bad requests count and are told what is left; methods without a quota are not told', async () => {
  await using edge = await startEdge(answer, { policies: [policyOf({})] });
  const bad = await fetch(`${edge.url}/v1/shelves/x/books/y?nothing=1`);
  assert.deepEqual([bad.status, bad.headers.get('ratelimit')?.includes('r=1')], [400, true]);
  const other = await fetch(`${edge.url}/nowhere`);
  assert.equal(other.headers.get('ratelimit'), null);
});

test('X-Forwarded-For is believed of trusted proxies alone', async () => {
  const ask = async (trustedProxies: readonly string[]) => {
    await using edge = await startEdge(answer, { policies: [policyOf({})], trustedProxies });
    const codes: number[] = [];
    for (const client of ['192.0.2.1', '192.0.2.2', '192.0.2.3', '192.0.2.4']) {
      const reply = await fetch(`${edge.url}/v1/shelves/1/books/2`, { headers: { 'x-forwarded-for': client } });
      codes.push(reply.status);
    }
    return codes;
  };
  assert.deepEqual(await ask([]), [200, 200, 429, 429]);
  assert.deepEqual(await ask(['10.0.0.0/8']), [200, 200, 429, 429]);
  assert.deepEqual(await ask(['127.0.0.0/8']), [200, 200, 200, 200]);
});

/** Whether each of these requests passes. */
async function passing(quota: Partial<QuotaPolicy>, visits: readonly Partial<Visit>[]): Promise<boolean[]> {
  const policy = policyOf(quota);
  const { guardOf } = createQuotas({ policies: [policy], redisUrl: undefined, registry: new Registry(), log });
  const guard = guardOf(policy.quota as QuotaPolicy);
  const reply = { header: () => reply } as unknown as FastifyReply;
  const passed: boolean[] = [];
  for (const visit of visits) {
    try {
      await guard({ headers: {}, ip: '192.0.2.1', reply, identity: undefined, ...visit } as Visit);
      passed.push(true);
    } catch (error) {
      assert.ok(error instanceof RpcError && error.code === Code.RESOURCE_EXHAUSTED);
      passed.push(false);
    }
  }
  return passed;
}

test('counts by a header, and who does not bring it by its address', async () => {
  const a = { headers: { 'x-api-key': 'a' } };
  const b = { headers: { 'x-api-key': 'b' } };
  const none = { headers: {} };
  const elsewhere = { headers: {}, ip: '192.0.2.2' };
  const asked = [a, a, a, b, none, none, none, { headers: { 'x-api-key': '' } }, elsewhere];
  const expected = [true, true, false, true, true, true, false, false, true];
  assert.deepEqual(await passing({ key: 'header:x-api-key' }, asked), expected);
});

test('counts by a claim, whatever its type', async () => {
  const of = (sub: unknown) => ({ identity: { claims: { 'https://example.com/sub': sub }, metadata: [] } });
  const asked = [of('a'), of('a'), of('a'), of(7), of(['a']), of(undefined), {}, of(undefined)];
  const expected = [true, true, false, true, true, true, true, false];
  assert.deepEqual(await passing({ key: 'claim:https://example.com/sub' }, asked), expected);
});

test('a key of one kind is never one of another', async () => {
  const asked = [{ headers: { 'x-key': 'ip 192.0.2.1' } }, { headers: { 'x-key': '192.0.2.1' } }, {}, {}];
  assert.deepEqual(await passing({ key: 'header:x-key', requests: 1 }, asked), [true, true, true, false]);
});

test('the addresses of one IPv6 network count as one', () => {
  const expected: Record<string, string> = {
    '192.0.2.1': '192.0.2.1',
    '::ffff:192.0.2.1': '192.0.2.1',
    '2001:db8:1:2:3:4:5:6': '2001:db8:1:2::/64',
    '2001:0DB8:0001:2::9': '2001:db8:1:2::/64',
    '2001:db8::1': '2001:db8:0:0::/64',
    '::1': '0:0:0:0::/64',
    'fe80::1%eth0': 'fe80:0:0:0::/64',
    unknown: 'unknown',
  };
  for (const [ip, network] of Object.entries(expected)) assert.equal(networkOf(ip), network, ip);
});

test('methods of one policy share its quota, those of two do not', async () => {
  const [one, two] = [policyOf({ requests: 1 }), policyOf({ requests: 1 }, [{ service: 'library.v1.Library' }])];
  const { guardOf } = createQuotas({ policies: [one, two], redisUrl: undefined, registry: new Registry(), log });
  const reply = { header: () => reply } as unknown as FastifyReply;
  const visit = { headers: {}, ip: '192.0.2.1', reply } as unknown as Visit;
  assert.equal(guardOf(one.quota as QuotaPolicy), guardOf(one.quota as QuotaPolicy));
  await guardOf(one.quota as QuotaPolicy)(visit);
  await guardOf(two.quota as QuotaPolicy)(visit);
  await assert.rejects(async () => guardOf(one.quota as QuotaPolicy)(visit), /1 requests in 60 s/);
});
