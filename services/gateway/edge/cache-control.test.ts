import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { namesEtag, parseCacheControl, wishOf } from './cache-control.ts';

const headers: [header: string, directives: Record<string, string>][] = [
  ['', {}],
  ['no-store', { 'no-store': '' }],
  ['No-Cache, MAX-AGE=5', { 'no-cache': '', 'max-age': '5' }],
  ['max-age="5" , min-fresh = 3', { 'max-age': '5', 'min-fresh': '3' }],
  ['max-age=5, max-age=9', { 'max-age': '5' }],
  ['no-cache="a, no-store", max-stale', { 'no-cache': 'a, no-store', 'max-stale': '' }],
  [',, ;=," max-age=1', { 'max-age': '1' }],
];

for (const [header, directives] of headers) {
  test(`Cache-Control ${JSON.stringify(header)} is read`, () => {
    assert.deepEqual(Object.fromEntries(parseCacheControl(header)), directives);
  });
}

const nothing = { noStore: false, onlyIfCached: false, maxAgeMs: Infinity, minFreshMs: 0, maxStaleMs: 0 };
const wishes: [headers: Record<string, string>, wish: Partial<typeof nothing>][] = [
  [{}, {}],
  [{ 'cache-control': 'unknown, max-age=3' }, { maxAgeMs: 3_000 }],
  [{ 'cache-control': 'no-cache, max-age=3' }, { maxAgeMs: -1 }],
  [{ 'cache-control': 'no-store, only-if-cached' }, { noStore: true, onlyIfCached: true }],
  [{ 'cache-control': 'min-fresh=2, max-stale=4' }, { minFreshMs: 2_000, maxStaleMs: 4_000 }],
  [{ 'cache-control': 'max-stale' }, { maxStaleMs: Infinity }],
  [{ 'cache-control': 'max-age=-1, min-fresh=x, max-stale=1.5' }, { maxAgeMs: 0, minFreshMs: Infinity }],
  [{ pragma: 'no-cache' }, { maxAgeMs: -1 }],
  [{ pragma: 'no-cache', 'cache-control': 'max-age=1' }, { maxAgeMs: 1_000 }],
];

for (const [given, wish] of wishes) {
  test(`a client wishes ${JSON.stringify(given)}`, () => assert.deepEqual(wishOf(given), { ...nothing, ...wish }));
}

test('Pragma says only no-cache', () => assert.deepEqual(wishOf({ pragma: 'no-store, max-age=1' }), nothing));

test('If-None-Match names an ETag, whether it is weak there, by itself or in a list', () => {
  for (const named of ['"a"', 'W/"a"', '"b", W/"a"', '"x,y" ,"a"', '*', ' * '])
    assert.ok(namesEtag(named, '"a"'), named);
  for (const other of [undefined, '', 'a', '"b"', '"a', 'W/"A"', '"b*"', '"x"a"'])
    assert.ok(!namesEtag(other, '"a"'), other);
});

test('no header is too strange to be read, and none takes long', () => {
  const strange = fc.oneof(
    fc.string({ maxLength: 200 }),
    fc
      .array(fc.constantFrom('max-age', 'no-store', '=', '"', '\\', ',', ' ', '5', 'W/', '*'))
      .map((parts) => parts.join('')),
  );
  fc.assert(
    fc.property(strange, (header) => {
      for (const ms of [wishOf({ 'cache-control': header }), wishOf({ pragma: header })].flatMap((wish) => [
        wish.maxAgeMs,
        wish.minFreshMs,
        wish.maxStaleMs,
      ])) {
        assert.ok(!Number.isNaN(ms));
      }
      namesEtag(header, '"a"');
    }),
  );
  const startedMs = performance.now();
  for (const part of ['a="', 'a="\\', '"', 'a= ', 'W/"', '\\"', 'a="\\a=']) {
    const long = part.repeat(16_384 / part.length);
    wishOf({ 'cache-control': long });
    namesEtag(long, '"a"');
  }
  assert.ok(performance.now() - startedMs < 1_000);
});
