import assert from 'node:assert/strict';
import test from 'node:test';
import { parseArguments } from './arguments.ts';

const defaults = {
  target: 'dns:///localhost:50051',
  timeoutMs: 1_000,
  stream: undefined,
  count: undefined,
  json: false,
  names: [],
};

test('greets the world at the usual place unless told otherwise', () => {
  assert.deepEqual(parseArguments([]), defaults);
});

test('takes names and flags in any order', () => {
  const argv = ['ada', '--json', 'bob', '--target=greeter:1', '--timeout', '250ms', '--count', '3', '--stream', 'bidi'];
  assert.deepEqual(parseArguments(argv), {
    target: 'dns:///greeter:1',
    timeoutMs: 250,
    stream: 'bidi',
    count: 3,
    json: true,
    names: ['ada', 'bob'],
  });
});

test('takes what follows -- as names', () => {
  assert.deepEqual(parseArguments(['--', '--json', '']), { ...defaults, names: ['--json', ''] });
});

test('lists every problem', () => {
  assert.throws(
    () => parseArguments(['--target', 'dns:x', '--timeout=5', '--stream', 'both', '--count', '0', '--loud']),
    {
      problems: [
        '--target: target "dns:x" must be dns:///name:port',
        '--timeout 5 must be a duration such as 250ms, 5s or 1m',
        '--stream "both" must be one of reply, request, bidi',
        '--count 0 must be >= 1',
        '--loud is not a flag of this program (see --help)',
      ],
    },
  );
  assert.throws(() => parseArguments(['--count']), { problems: ['--count needs a value'] });
});
