import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { violationsOf } from '../transcoding/testing.ts';
import { deadlineOf, parseGrpcTimeout } from './deadline.ts';

describe('Grpc-Timeout', () => {
  const good: [text: string, ms: number][] = [
    ['1H', 3_600_000],
    ['2M', 120_000],
    ['3S', 3_000],
    ['4m', 4],
    ['5u', 0.005],
    ['6n', 0.000_006],
    ['00000001S', 1_000],
    ['99999999H', 359_999_996_400_000],
  ];
  for (const [text, ms] of good) {
    it(`${text} is ${ms} ms`, () => {
      assert.ok(Math.abs(parseGrpcTimeout(text) - ms) < 1e-9);
    });
  }

  for (const text of [
    '',
    '1',
    'S',
    '1s',
    '-1S',
    '+1S',
    '1.5S',
    '0S',
    '000m',
    '123456789S',
    '1S ',
    ' 1S',
    '1S, 2S',
    '1e3S',
    '٣S',
    'NaNS',
  ]) {
    it(`${JSON.stringify(text)} is refused`, () => {
      const [violation = ''] = violationsOf(() => parseGrpcTimeout(text));
      assert.equal(
        violation,
        `grpc-timeout: must be 1 to 8 digits, not all 0, and one of HMSmun, is ${JSON.stringify(text)}`,
      );
    });
  }
});

describe('deadline', () => {
  const cases: [
    name: string,
    grpcTimeout: string | undefined,
    methodTimeoutMs: number | undefined,
    stream: boolean,
    ms: number,
  ][] = [
    ['2 s by default', undefined, undefined, false, 2_000],
    ["the method's timeout", undefined, 5_000, false, 5_000],
    ['the header over both', '100m', 5_000, false, 100],
    ['the header, longer than the method', '7S', 5_000, false, 7_000],
    ['at most 10 s by the header', '1H', undefined, false, 10_000],
    ['at most 10 s by the method', undefined, 60_000, false, 10_000],
    ['none for a stream', undefined, undefined, true, Infinity],
    ["the method's for a stream, uncapped", undefined, 60_000, true, 60_000],
    ["the header's for a stream, uncapped", '1H', 60_000, true, 3_600_000],
  ];
  for (const [name, grpcTimeout, methodTimeoutMs, stream, ms] of cases) {
    it(`is ${name}`, () => {
      assert.equal(deadlineOf({ grpcTimeout, methodTimeoutMs, stream, nowMs: 50 }), 50 + ms);
    });
  }
});
