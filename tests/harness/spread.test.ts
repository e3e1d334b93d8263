import assert from 'node:assert/strict';
import test from 'node:test';
import { widestDifference } from './spread.ts';

test('looks at every window and every pair', () => {
  for (const [picks, endpoints, expected] of [
    ['', 'ab', 0],
    ['abab', 'ab', 1],
    ['abcabca', 'abc', 1],
    ['abba', 'ab', 2], // bb, though both have two
    ['acacb', 'abc', 2], // without b
    ['abab', 'abc', 2], // nothing for c
  ] as const) {
    assert.equal(widestDifference(picks.split(''), endpoints.split('')), expected, picks);
  }
});
