import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseJson } from './json-text.ts';
import { violationsOf } from './testing.ts';

describe('JSON text', () => {
  const good = [
    '1',
    'null',
    '"a"',
    '[]',
    '{}',
    ' { "a" : [ 1 , "," , "{" ] , "b" : { "a" : { "a" : -1.5e3 } } } ',
    String.raw`{"a\"b":"\\","c":"\\\"","\\":1,"\u0061":"]"}`,
    '{"":1,"a":{"":2}}',
    '[{"a":1},{"a":2}]',
    `${'['.repeat(100)}${']'.repeat(100)}`,
    `[${'{},'.repeat(24_998)}{}]`,
    `[${'0,'.repeat(249_999)}0]`,
    `"${'['.repeat(200)}"`,
    `"${'\\\\'.repeat(100_000)}"`,
  ];
  for (const text of good) {
    it(`is read as JSON.parse does: ${text.slice(0, 40)}`, () => {
      assert.deepEqual(parseJson(text), JSON.parse(text));
    });
  }

  const bad: [text: string, why: string | RegExp][] = [
    ['', /^the body is not JSON/],
    ['{', /^the body is not JSON/],
    ['{:1}', /^the body is not JSON/],
    ['}{', /^the body is not JSON/],
    ['"', /^the body is not JSON/],
    ['{"a":1,"a":2', /^the body is not JSON/],
    ['\ufeff{}', /^the body is not JSON/],
    ['NaN', /^the body is not JSON/],
    ['{"a":01}', /^the body is not JSON/],
    ["{'a':1}", /^the body is not JSON/],
    ['{"a":1,}', /^the body is not JSON/],
    [String.raw`{"\x":1,"\x":1}`, /^the body is not JSON/],
    ['{"a":1,"a":1}', 'a: must be given once'],
    ['{"a":1,"b":2,"a":3}', 'a: must be given once'],
    [String.raw`{"a":1,"\u0061":2}`, 'a: must be given once'],
    ['{"__proto__":1,"__proto__":2}', '__proto__: must be given once'],
    ['{"":1,"":2}', ': must be given once'],
    ['{"a":[{"b":{"c":1,"d":2,"c":3}}]}', 'a.b.c: must be given once'],
    [`${'['.repeat(101)}${']'.repeat(101)}`, 'the body must not be nested deeper than 100'],
    ['{"a":'.repeat(1_000_000), 'the body must not be nested deeper than 100'],
    [`[${'{},'.repeat(300_000)}{}]`, 'the body must not have more than 25000 objects and arrays'],
    [`[${'0,'.repeat(500_000)}0]`, 'the body must not have more than 250000 values'],
  ];
  for (const [text, why] of bad) {
    it(`is refused: ${JSON.stringify(text.slice(0, 40))}`, () => {
      const [found = ''] = violationsOf(() => parseJson(text));
      if (typeof why === 'string') assert.equal(found, why);
      else assert.match(found, why);
    });
  }
});
