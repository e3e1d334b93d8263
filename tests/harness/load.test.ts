import assert from 'node:assert/strict';
import test from 'node:test';
import { createBookkeeper, formatLedger } from './ledger.ts';
import { sendInTurn, startLoad } from './load.ts';

test('each call that was sent is ok or failed', async () => {
  let calls = 0;
  const ledger = await sendInTurn(async () => {
    calls += 1;
    if (calls === 4) throw new Error('out of order');
    return calls % 3 === 0 ? { code: 'UNAVAILABLE' } : { code: 'OK', servedBy: calls % 2 === 0 ? 'a' : 'b' };
  }, 10);
  const { p50Ms, p99Ms, ...counts } = ledger;
  assert.ok(p50Ms <= p99Ms);
  assert.deepEqual(counts, {
    sent: 10,
    ok: 6,
    failed: 4,
    resent: 0,
    codes: new Map([
      ['UNAVAILABLE', 3],
      ['out of order', 1],
    ]),
    servedBy: new Map([
      ['b', 3],
      ['a', 3],
    ]),
  });
  assert.match(formatLedger(ledger), /^sent 10 = ok 6 \+ failed 4 \(out of order 1, UNAVAILABLE 3\); a 3, b 3; p50 /);
});

test('keeps its rate whether calls are slow or not, and waits for the last', async () => {
  const finishes: (() => void)[] = [];
  const load = startLoad(() => new Promise((resolve) => finishes.push(() => resolve({ code: 'OK' }))), {
    callsPerS: 1_000,
    maxInFlight: 20,
  });
  while (finishes.length < 20) await new Promise(setImmediate);
  const stopped = load.stop();
  for (const finish of finishes) finish();
  assert.equal((await stopped).ok, 20);
});

test('an account with a call in flight cannot be closed', () => {
  const books = createBookkeeper();
  const end = books.begin();
  assert.throws(() => books.close(), { message: '1 of 1 calls have no outcome' });
  end({ code: 'OK' });
  assert.equal(books.close().sent, 1);
});
