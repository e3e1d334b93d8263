import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, it } from 'node:test';
import { Registry } from 'prom-client';
import type { CallStart, Metadata, Method } from '#runtime/call/call.ts';
import { Code } from '#runtime/call/status.ts';
import { wishOf } from '../edge/cache-control.ts';
import { FakeCall, until } from '../edge/testing.ts';
import type { CachePolicy } from '../policy-schema.ts';
import { type Answer, createCache } from './cache.ts';
import type { ReplyForm } from './cache-store.ts';

const method: Method = {
  path: '/a.A/Get',
  requestStream: false,
  responseStream: false,
  idempotency: 'NO_SIDE_EFFECTS',
};
const whole: ReplyForm = {
  name: '',
  write: ({ message }) => ({ contentType: '', headers: {}, etag: '', body: Buffer.from(message) }),
};

/** A cache over calls that the test answers. */
function setUp(options: { policy?: Partial<CachePolicy>; timeoutMs?: number; maxBytes?: number } = {}) {
  const { timeoutMs = 2_000, maxBytes = 1_048_576 } = options;
  const policy = { ttl: 60_000, staleWhileRevalidate: 0, staleIfError: 0, key: [], ...options.policy };
  const calls: FakeCall[] = [];
  const registry = new Registry();
  const cache = createCache({ maxBytes, registry }).of(method, {
    policy,
    timeoutMs,
    next: {
      start(start, observer) {
        const call = new FakeCall(start, observer);
        calls.push(call);
        return {
          request: (messages) => void (call.credits += messages),
          write: (message) => ((call.request = message), true),
          end() {},
          cancel: (code, details) => call.cancel(code, details),
        };
      },
    },
  });
  return {
    calls,
    registry,
    /** Asks, and collects what is answered. */
    ask(more: { request?: string; metadata?: Metadata; inMs?: number; cacheControl?: string; form?: ReplyForm } = {}) {
      const { request = 'x', metadata = [], inMs = timeoutMs, cacheControl, form = whole } = more;
      const deadlineMs = performance.now() + inMs;
      const start: CallStart = { method, metadata, deadlineMs, priority: 'high', context: undefined, avoid: [] };
      const answers: Answer[] = [];
      const wish = wishOf(cacheControl === undefined ? {} : { 'cache-control': cacheControl });
      const leave = cache.answer({ start, request: Buffer.from(request), wish, form }, (answer) =>
        answers.push(answer),
      );
      return {
        leave,
        get answered() {
          return answers.length > 0;
        },
        /** How the one answer came about, and its body or its status. */
        get answer() {
          assert.equal(answers.length, 1);
          const [{ outcome, written, status }] = answers as [Answer];
          return [outcome, written === undefined ? status?.code : String(written.body)];
        },
      };
    },
    async metric(name: string) {
      const line = (await registry.metrics()).split('\n').find((one) => one.startsWith(`${name} `));
      return Number(line?.split(' ')[1]);
    },
  };
}

function reply(call: FakeCall | undefined, text: string): void {
  assert.ok(call);
  call.message(Buffer.from(text));
  call.status(Code.OK);
}

/** What it was cancelled with. */
function codeOf(call: FakeCall | undefined): number | undefined {
  return call?.cancelled?.code;
}

describe('equal requests at the same time', () => {
  it('are one call: 1,000 of them', async () => {
    const { ask, calls, metric } = setUp();
    const asked = Array.from({ length: 1_000 }, () => ask());
    assert.equal(calls.length, 1);
    assert.equal(await metric('tandem_cache_calls'), 1);
    assert.equal(await metric('tandem_cache_waiters'), 1_000);
    reply(calls[0], 'a');
    assert.deepEqual(asked[0]?.answer, ['miss', 'a']);
    for (const { answer } of asked.slice(1)) assert.deepEqual(answer, ['collapsed', 'a']);
    assert.equal(await metric('tandem_cache_waiters'), 0);
    assert.deepEqual(ask().answer, ['hit', 'a']);
    assert.equal(calls.length, 1);
  });

  it('are one call though their replies go out in two forms', () => {
    const { ask, calls } = setUp();
    const shout: ReplyForm = {
      name: 'shout',
      write: ({ message }) => ({ contentType: '', headers: {}, etag: '', body: String(message).toUpperCase() }),
    };
    const asked = [ask(), ask({ form: shout })];
    reply(calls[0], 'a');
    assert.deepEqual(
      asked.map(({ answer }) => answer),
      [
        ['miss', 'a'],
        ['collapsed', '97'],
      ],
    );
  });

  it('are not those that differ, in their bytes or in the metadata of the key', () => {
    const { ask, calls } = setUp({ policy: { key: ['a', 'b-bin'] } });
    const bin = (...bytes: number[]) => ['b-bin', Uint8Array.from(bytes)] as const;
    const different: Metadata[] = [
      [],
      [['a', '']],
      [['a', '1:x']],
      [
        ['a', '1'],
        ['a', 'x'],
      ],
      [bin()],
      [bin(49)],
      [['a', '1'], bin(49)],
    ];
    for (const metadata of different) ask({ metadata });
    ask({ request: 'y' });
    ask({ request: ';x' });
    assert.equal(calls.length, different.length + 2);
    for (const metadata of different) ask({ metadata: [...metadata, ['other', `${Math.random()}`]] });
    assert.equal(calls.length, different.length + 2);
  });

  it('share an error, which the next one does not', () => {
    const { ask, calls } = setUp();
    const asked = [ask(), ask()];
    calls[0]?.status(Code.UNAVAILABLE);
    assert.deepEqual(
      asked.map(({ answer }) => answer),
      [
        ['miss', Code.UNAVAILABLE],
        ['collapsed', Code.UNAVAILABLE],
      ],
    );
    assert.equal(ask().answered, false);
    assert.equal(calls.length, 2);
  });

  it('go on when one leaves, whoever it is; when the last one leaves the call is cancelled', async () => {
    const { ask, calls } = setUp();
    const asked = [ask(), ask(), ask()] as const;
    asked[0].leave();
    asked[0].leave();
    asked[2].leave();
    assert.equal(codeOf(calls[0]), undefined);
    asked[1].leave();
    assert.equal(codeOf(calls[0]), Code.CANCELLED);
    const next = ask();
    assert.equal(calls.length, 2, 'nobody joins a call that is cancelled');
    await sleep(0);
    reply(calls[1], 'b');
    assert.deepEqual(next.answer, ['miss', 'b']);
    for (const { answered } of asked) assert.equal(answered, false);
  });

  it('that want nothing older do not join a call that is under way', () => {
    const { ask, calls } = setUp();
    const first = ask();
    const strict = ask({ cacheControl: 'no-cache' });
    const third = ask({ cacheControl: 'max-age=60' });
    assert.equal(calls.length, 2);
    reply(calls[1], 'new');
    assert.deepEqual(strict.answer, ['miss', 'new']);
    assert.deepEqual(third.answer, ['collapsed', 'new']);
    reply(calls[0], 'old');
    assert.deepEqual(first.answer, ['miss', 'old']);
    assert.deepEqual(ask().answer, ['hit', 'new'], 'an older reply does not replace a newer one');
  });
});

describe('deadlines of a shared call', () => {
  it('one that passes early is that of its own request alone', async () => {
    const { ask, calls } = setUp();
    const hasty = ask({ inMs: 20 });
    const patient = ask();
    assert.ok((calls[0]?.start.deadlineMs ?? 0) > performance.now() + 1_000, 'the call has the time of the method');
    await until(() => hasty.answered, 'the deadline');
    assert.deepEqual(hasty.answer, ['miss', Code.DEADLINE_EXCEEDED]);
    assert.equal(calls[0]?.cancelled, undefined);
    reply(calls[0], 'a');
    assert.deepEqual(patient.answer, ['collapsed', 'a']);
  });

  it('the last one that passes ends the call', async () => {
    const { ask, calls } = setUp();
    const hasty = [ask({ inMs: 10 }), ask({ inMs: 20 })];
    await until(() => hasty.every(({ answered }) => answered), 'the deadlines');
    assert.equal(codeOf(calls[0]), Code.CANCELLED);
  });

  it('one that is later than that of the method is that of the call', () => {
    const { ask, calls } = setUp();
    const { start } = (ask({ inMs: 9_000 }), calls[0] as FakeCall);
    assert.ok(start.deadlineMs > performance.now() + 8_000);
  });

  it('one that is later than that of the call goes on with one more call, with all that are late', async () => {
    const { ask, calls } = setUp({ timeoutMs: 50 });
    const first = ask();
    const late = [ask({ inMs: 5_000 }), ask({ inMs: 6_000 })];
    await until(() => performance.now() > (calls[0] as FakeCall).start.deadlineMs, 'the deadline of the call');
    calls[0]?.status(Code.DEADLINE_EXCEEDED);
    assert.deepEqual(first.answer, ['miss', Code.DEADLINE_EXCEEDED]);
    assert.equal(calls.length, 2);
    reply(calls[1], 'b');
    assert.deepEqual(
      late.map(({ answer }) => answer),
      [
        ['miss', 'b'],
        ['collapsed', 'b'],
      ],
    );
  });

  it('DEADLINE_EXCEEDED before its time is an error as any other', () => {
    const { ask, calls } = setUp();
    const asked = [ask(), ask({ inMs: 5_000 })];
    calls[0]?.status(Code.DEADLINE_EXCEEDED);
    assert.deepEqual(asked[1]?.answer, ['collapsed', Code.DEADLINE_EXCEEDED]);
  });
});

describe('the bytes of the cache', () => {
  it('are bounded: what was not used for the longest time goes first', async () => {
    const { ask, calls, metric } = setUp({ maxBytes: 1_048_576 });
    const text = 'x'.repeat(20_000);
    for (let i = 0; i < 100; i++) {
      if (i > 0) assert.equal(ask({ request: '0' }).answer[0], 'hit');
      ask({ request: `${i}` });
      reply(calls.at(-1), text);
    }
    assert.ok((await metric('tandem_cache_bytes')) <= 1_048_576);
    const entries = await metric('tandem_cache_entries');
    assert.ok(entries > 15 && entries < 30, `${entries} entries`); // of 41 kB: the reply, its body
    assert.equal(await metric('tandem_cache_evictions_total'), 100 - entries);
    assert.equal(ask({ request: '0' }).answered, true);
    assert.equal(ask({ request: '99' }).answered, true);
    assert.equal(ask({ request: '1' }).answered, false);
  });

  it('have no room for a reply, or a request, that is larger than a sixteenth of them', async () => {
    const { ask, calls, metric } = setUp({ maxBytes: 1_048_576 });
    for (const [request, text] of [
      ['a', 'x'.repeat(40_000)],
      ['b'.repeat(70_000), 'x'],
    ] as const) {
      const first = ask({ request });
      reply(calls.at(-1), text);
      assert.deepEqual(first.answer, ['miss', text]);
      assert.equal(ask({ request }).answered, false);
    }
    assert.equal(await metric('tandem_cache_bytes'), 0);
    assert.equal(await metric('tandem_cache_evictions_total'), 0);
  });

  it('count each form of a reply', async () => {
    const { ask, calls, metric } = setUp();
    ask();
    reply(calls[0], 'x'.repeat(1_000));
    const before = await metric('tandem_cache_bytes');
    const form: ReplyForm = { ...whole, name: 'other' };
    assert.deepEqual(ask({ form }).answer[0], 'hit');
    assert.equal((await metric('tandem_cache_bytes')) - before, 1_000);
    assert.equal(await metric('tandem_cache_entries'), 1);
    assert.equal(await metric('tandem_cache_evictions_total'), 0);
  });
});
