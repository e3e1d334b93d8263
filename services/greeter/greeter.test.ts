import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { Code } from '#runtime/call/status.ts';
import { callMethod, eventually, startServer } from '#runtime/server/testing.ts';
import { greeter } from './greeter.ts';

const ada = { name: 'Ada' };
const kinds = ['SayHello', 'SayHelloStreamReply', 'SayHelloStreamRequest', 'SayHelloBidiStream'] as const;

function texts(messages: readonly unknown[]): string[] {
  return messages.map((message) => (message as { message: string }).message);
}

suite('the greeter', () => {
  test('greets by each kind of call', async () => {
    await using fixture = await startServer(greeter);
    const requests = [ada, { name: 'Bo' }];
    const expected = {
      SayHello: ['Hello Ada'],
      SayHelloStreamReply: Array.from({ length: 10 }, () => 'Hello Ada'),
      SayHelloStreamRequest: ['Hello Ada, Bo'],
      SayHelloBidiStream: ['Hello Ada', 'Hello Bo'],
    };
    for (const kind of kinds) {
      const { code, messages } = await callMethod(fixture.client, kind, requests);
      assert.deepEqual({ code, texts: texts(messages) }, { code: Code.OK, texts: expected[kind] }, kind);
    }
  });

  test('gives back any name as it came', async () => {
    await using fixture = await startServer(greeter);
    const names = [
      '',
      'wörld',
      '日本語',
      '👩‍🚀',
      'a\u0000b',
      '100 %\r\n',
      '\u202eabc',
      'x'.repeat(1_024),
      'é'.repeat(512),
    ];
    for (const name of names) {
      const { messages } = await callMethod(fixture.client, 'SayHello', [{ name }]);
      assert.deepEqual(texts(messages), [`Hello ${name}`]);
    }
    const { messages } = await callMethod(fixture.client, 'SayHelloStreamRequest', []);
    assert.deepEqual(texts(messages), ['Hello ']);
  });

  for (const kind of kinds) {
    test(`refuses a name that is too long in ${kind}`, async () => {
      await using fixture = await startServer(greeter);
      const outcome = await callMethod(fixture.client, kind, [{ name: 'é'.repeat(513) }]);
      assert.equal(outcome.code, Code.INVALID_ARGUMENT);
      assert.equal(outcome.details, 'name of 1026 bytes must be <= 1024');
      assert.deepEqual(fieldsOf(outcome), ['name']);
    });
  }

  test('refuses a reply count or an interval outside their limits', async () => {
    await using fixture = await startServer(greeter);
    const cases = [
      [{ reply_count: -1 }, 'reply_count -1 must be from 0 to 100000', 'reply_count'],
      [{ reply_count: 100_001 }, 'reply_count 100001 must be from 0 to 100000', 'reply_count'],
      [
        { reply_interval: { seconds: 10, nanos: 1 } },
        'reply_interval 10.000000001s must be from 0s to 10s',
        'reply_interval',
      ],
      [{ reply_interval: { seconds: -1 } }, 'reply_interval -1s must be from 0s to 10s', 'reply_interval'],
    ] as const;
    for (const [request, details, field] of cases) {
      const outcome = await callMethod(fixture.client, 'SayHelloStreamReply', [{ ...ada, ...request }]);
      assert.deepEqual({ code: outcome.code, details: outcome.details }, { code: Code.INVALID_ARGUMENT, details });
      assert.deepEqual(fieldsOf(outcome), [field]);
    }
  });

  test('takes 1,000 names and no more', async () => {
    await using fixture = await startServer(greeter);
    const names = (count: number) => Array.from({ length: count }, (_, i) => ({ name: `${i}` }));
    const enough = await callMethod(fixture.client, 'SayHelloStreamRequest', names(1_000));
    assert.equal(enough.code, Code.OK);
    const tooMany = await callMethod(fixture.client, 'SayHelloStreamRequest', names(1_001));
    assert.equal(tooMany.code, Code.INVALID_ARGUMENT);
    assert.equal(tooMany.details, 'name must come <= 1000 times');
  });

  test('replies as often and as far apart as it is told', async () => {
    await using fixture = await startServer(greeter);
    const startMs = performance.now();
    const request = { ...ada, reply_count: 5, reply_interval: { nanos: 50_000_000 } };
    const { messages } = await callMethod(fixture.client, 'SayHelloStreamReply', [request]);
    const tookMs = performance.now() - startMs;
    assert.equal(messages.length, 5);
    assert.ok(tookMs >= 195 && tookMs < 2_000, `${tookMs} ms for 4 intervals of 50 ms`);
  });

  test('answers each name of a chat before the next one comes', async () => {
    await using fixture = await startServer(greeter);
    const call = fixture.client.SayHelloBidiStream();
    const replies: unknown[] = [];
    call.on('data', (reply: unknown) => replies.push(reply));
    for (const [i, name] of ['Ada', 'Bo', 'Cy'].entries()) {
      call.write({ name });
      await eventually(() => assert.equal(texts(replies)[i], `Hello ${name}`));
    }
    call.end();
    await new Promise((resolve) => call.on('status', resolve));
  });

  test('stops in the middle of an interval when the client leaves', async () => {
    await using fixture = await startServer(greeter);
    const call = fixture.client.SayHelloStreamReply({ ...ada, reply_interval: { seconds: 10 } });
    call.on('error', () => {}).once('data', () => call.cancel());
    await eventually(() => {
      assert.equal(fixture.server.counters()['helloworld.Greeter/SayHelloStreamReply']?.cancelled, 1);
    });
    assert.deepEqual(
      process.getActiveResourcesInfo().filter((name) => name === 'Timeout'),
      [],
    );
  });
});

/** The fields that a BadRequest names, read by eye: a field of a violation is tag 0x0a, its length, its text. */
function fieldsOf({ trailers }: Awaited<ReturnType<typeof callMethod>>): string[] {
  const [bytes = ''] = trailers.get('grpc-status-details-bin').map(String);
  assert.ok(bytes.includes('type.googleapis.com/google.rpc.BadRequest'));
  return ['name', 'reply_count', 'reply_interval'].filter((field) =>
    bytes.includes(`\n${String.fromCodePoint(field.length)}${field}`),
  );
}
