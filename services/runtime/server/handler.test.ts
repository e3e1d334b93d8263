import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Metadata } from '@grpc/grpc-js';
import { Code, RpcError } from '../call/status.ts';
import type { Handler, ServerCall } from './handler.ts';
import { callMethod, eventually, startServer, type TestClient } from './testing.ts';

interface Named {
  readonly name: string;
}

const kinds = ['SayHello', 'SayHelloStreamReply', 'SayHelloStreamRequest', 'SayHelloBidiStream'] as const;
const streamKinds = ['SayHelloStreamReply', 'SayHelloBidiStream'] as const;
const ada = { name: 'Ada' };
const never = new Promise<never>(() => {});

/** Waits for the connection, so that a deadline has to do with the call alone. */
function connected(client: TestClient): Promise<void> {
  return new Promise((resolve, reject) => {
    client.waitForReady(Date.now() + 10_000, (error) => (error ? reject(error) : resolve()));
  });
}

/** A handler of any kind that does nothing but throw, at once or later. */
function throwing(kind: string, when: 'sync' | 'async', error: unknown): Handler {
  if (when === 'sync') {
    return () => {
      throw error;
    };
  }
  if (kind === 'SayHello' || kind === 'SayHelloStreamRequest') {
    return async () => {
      await sleep(1);
      throw error;
    };
  }
  return async function* () {
    await sleep(1);
    yield* [];
    throw error;
  };
}

suite('handlers', () => {
  test('answer all four kinds of call', async () => {
    await using fixture = await startServer({
      SayHello: async ({ name }: Named) => ({ message: name }),
      async *SayHelloStreamReply({ name }: Named) {
        yield { message: `${name} 1` };
        yield { message: `${name} 2` };
      },
      async SayHelloStreamRequest(requests: AsyncIterable<Named>) {
        const names = [];
        for await (const { name } of requests) names.push(name);
        return { message: names.join() };
      },
      async *SayHelloBidiStream(requests: AsyncIterable<Named>) {
        for await (const { name } of requests) yield { message: name };
      },
    });
    const expected = {
      SayHello: 'Ada',
      SayHelloStreamReply: 'Ada 1,Ada 2',
      SayHelloStreamRequest: 'Ada,Bo',
      SayHelloBidiStream: 'Ada,Bo',
    };
    for (const kind of kinds) {
      const { code, messages } = await callMethod(fixture.client, kind, [ada, { name: 'Bo' }]);
      assert.equal(code, Code.OK, kind);
      assert.equal(messages.map((reply) => (reply as { message: string }).message).join(), expected[kind], kind);
    }
  });

  for (const kind of kinds) {
    for (const when of ['sync', 'async'] as const) {
      test(`send the status of an RpcError thrown ${when} by ${kind}`, async () => {
        const error = new RpcError(Code.NOT_FOUND, 'no % \n such 🎉 name \ud800', {
          metadata: [
            ['retry-after', '1'],
            ['detail-bin', new Uint8Array([0, 255])],
          ],
        });
        await using fixture = await startServer({ [kind]: throwing(kind, when, error) });
        const { code, details, trailers } = await callMethod(fixture.client, kind, [ada]);
        assert.equal(code, Code.NOT_FOUND);
        assert.equal(details, 'no % \n such 🎉 name \ufffd');
        assert.deepEqual(trailers.get('retry-after'), ['1']);
        assert.deepEqual(trailers.get('detail-bin'), [Buffer.from([0, 255])]);
        assert.deepEqual(fixture.log, []);
      });

      test(`answer INTERNAL when ${kind} throws anything else ${when}, log it once and serve on`, async () => {
        await using fixture = await startServer({ [kind]: throwing(kind, when, new TypeError('secret')) });
        for (let calls = 1; calls <= 2; calls++) {
          const { code, details, messages } = await callMethod(fixture.client, kind, [ada]);
          assert.deepEqual(
            { code, details, messages },
            { code: Code.INTERNAL, details: 'internal error', messages: [] },
          );
          assert.equal(fixture.log.length, calls);
        }
        const { msg, method, err } = fixture.log[0] as { msg: string; method: string; err: { stack: string } };
        assert.equal(msg, 'handler failed');
        assert.equal(method, `helloworld.Greeter/${kind}`);
        assert.match(err.stack, /TypeError: secret\n.*handler\.test\.ts/s);
      });
    }
  }

  test('answer INTERNAL for what is no status: RpcError with OK, trailers that HTTP/2 does not take, undefined', async () => {
    const thrown = [
      new RpcError(Code.OK, 'fine'),
      new RpcError(99, 'unheard of'),
      new RpcError(Code.ABORTED, 'bad trailer', { metadata: [['a key', 'value']] }),
      undefined,
    ];
    let next = 0;
    await using fixture = await startServer({
      async SayHello() {
        // oxlint-disable-next-line typescript/only-throw-error -- handlers throw all sorts of things
        throw thrown[next++];
      },
    });
    for (const _ of thrown) assert.equal((await callMethod(fixture.client, 'SayHello', [ada])).code, Code.INTERNAL);
    assert.equal(fixture.log.length, thrown.length);
  });

  for (const kind of streamKinds) {
    test(`deliver what ${kind} yielded before it threw`, async () => {
      await using fixture = await startServer({
        async *[kind]() {
          for (let i = 0; i < 100; i++) yield { message: `${i}` };
          throw new RpcError(Code.DATA_LOSS, 'enough');
        },
      });
      const { code, messages } = await callMethod(fixture.client, kind, [ada]);
      assert.equal(code, Code.DATA_LOSS);
      assert.equal(messages.length, 100);
    });
  }

  test('reply before the last request has come', async () => {
    await using fixture = await startServer({
      async SayHelloStreamRequest(requests: AsyncIterable<Named>) {
        for await (const { name } of requests) return { message: name };
        return assert.fail('no request');
      },
    });
    const call = Promise.withResolvers<unknown>();
    const stream = fixture.client.SayHelloStreamRequest((error: unknown, reply: unknown) =>
      call.resolve(error ?? reply),
    );
    stream.write(ada);
    assert.deepEqual(await call.promise, { message: 'Ada' });
  });

  test('know the metadata and the deadline of their call', async () => {
    let seen: ServerCall | undefined;
    await using fixture = await startServer({
      async SayHello(_request: Named, call: ServerCall) {
        seen = call;
        return {};
      },
    });
    const metadata = new Metadata();
    metadata.add('color', 'red');
    metadata.add('color', 'blue');
    metadata.add('raw-bin', Buffer.from([0]));
    await new Promise((resolve) => {
      fixture.client.SayHello(ada, metadata, { deadline: Date.now() + 5_000 }, resolve);
    });
    assert.ok(seen);
    const own = seen.metadata.filter(([key]) => key === 'color' || key === 'raw-bin');
    assert.deepEqual(own, [
      ['color', 'red, blue'],
      ['raw-bin', Buffer.from([0])],
    ]);
    const remainingMs = seen.deadlineMs - performance.now();
    assert.ok(remainingMs > 4_000 && remainingMs <= 5_000, `${remainingMs}`);

    await callMethod(fixture.client, 'SayHello', [ada]);
    assert.equal(seen.deadlineMs, Number.POSITIVE_INFINITY);
  });
});

suite('a call that ends before its handler', () => {
  /** Where a handler waits for its signal, and what it saw. */
  function createWaiter() {
    const events: string[] = [];
    const reasons: unknown[] = [];
    const wait = async (call: ServerCall) => {
      events.push('waits');
      try {
        await sleep(60_000, undefined, { signal: call.signal });
      } finally {
        events.push('ended');
        reasons.push(call.signal.reason);
      }
    };
    const handlers = {
      SayHello: (_request: Named, call: ServerCall) => wait(call),
      SayHelloStreamRequest: (_requests: AsyncIterable<Named>, call: ServerCall) => wait(call),
      async *SayHelloStreamReply(_request: Named, call: ServerCall) {
        yield {};
        await wait(call);
      },
      async *SayHelloBidiStream(_requests: AsyncIterable<Named>, call: ServerCall) {
        yield {};
        await wait(call);
      },
    };
    return { events, reasons, handlers };
  }

  for (const kind of kinds) {
    test(`stops ${kind} at once when the client cancels`, async () => {
      const { events, reasons, handlers } = createWaiter();
      await using fixture = await startServer(handlers);
      const call = fixture.client[kind](...(kind.endsWith('Reply') || kind === 'SayHello' ? [ada] : []), () => {});
      call.on('error', () => {});
      await eventually(() => assert.deepEqual(events, ['waits']));
      const cancelledMs = performance.now();
      call.cancel();
      await eventually(() => assert.deepEqual(events, ['waits', 'ended']));
      assert.ok(performance.now() - cancelledMs < 500);
      assert.equal((reasons[0] as RpcError).code, Code.CANCELLED);
      await eventually(() => {
        const { started, cancelled } = fixture.server.counters()[`helloworld.Greeter/${kind}`] ?? {};
        assert.deepEqual({ started, cancelled }, { started: 1, cancelled: 1 });
      });
      assert.deepEqual(fixture.log, []);
    });

    test(`stops ${kind} at its deadline`, async () => {
      const { events, reasons, handlers } = createWaiter();
      await using fixture = await startServer(handlers);
      await connected(fixture.client);
      const { code } = await callMethod(fixture.client, kind, [ada], { deadline: Date.now() + 400 });
      assert.equal(code, Code.DEADLINE_EXCEEDED);
      await eventually(() => assert.deepEqual(events, ['waits', 'ended']));
      assert.ok([Code.DEADLINE_EXCEEDED, Code.CANCELLED].includes((reasons[0] as RpcError).code as 1 | 4));
      assert.deepEqual(fixture.log, []);
    });
  }

  test('makes the requests end in the reason', async () => {
    let reason: unknown;
    await using fixture = await startServer({
      async *SayHelloBidiStream(requests: AsyncIterable<Named>) {
        try {
          for await (const { name } of requests) yield { message: name };
        } catch (error) {
          reason = error;
          throw error;
        }
      },
    });
    const stream = fixture.client.SayHelloBidiStream();
    stream.on('error', () => {});
    stream.once('data', () => stream.cancel());
    stream.write(ada);
    await eventually(() => assert.equal((reason as RpcError | undefined)?.code, Code.CANCELLED));
    assert.deepEqual(fixture.log, []);
  });

  for (const kind of streamKinds) {
    test(`calls return() of a generator that waits in a yield of ${kind}`, async () => {
      let yielded = 0;
      let returned = false;
      await using fixture = await startServer({
        async *[kind]() {
          try {
            for (;;) yield { message: `${yielded++}` };
          } finally {
            returned = true;
          }
        },
      });
      // Nobody reads, so that the handler is held before its next reply.
      const call = kind === 'SayHelloStreamReply' ? fixture.client[kind](ada) : fixture.client[kind]();
      call.on('error', () => {}).on('data', () => {});
      call.pause();
      await eventually(() => assert.ok(yielded > 100));
      call.cancel();
      await eventually(() => assert.ok(returned));
    });
  }

  test('is over for a client that does not read, once its deadline has passed', async () => {
    let returned = false;
    await using fixture = await startServer({
      async *SayHelloStreamReply({ name }: Named) {
        try {
          for (;;) yield { message: name };
        } finally {
          returned = true;
        }
      },
    });
    const client = fixture.connect();
    // A client of its own making, which does not end the call at the deadline that it told.
    const metadata = new Metadata();
    metadata.set('grpc-timeout', '200m');
    const call = client.SayHelloStreamReply({ name: 'x'.repeat(1_000) }, metadata);
    call.on('error', () => {}).on('data', () => {});
    call.pause();
    await eventually(() => assert.ok(returned));
    call.cancel();
  });

  test('is over for the client although its handler never wakes up', async () => {
    await using fixture = await startServer({
      SayHello: () => never,
      async *SayHelloStreamReply() {
        await never;
        yield {};
      },
    });
    for (const kind of ['SayHello', 'SayHelloStreamReply']) {
      const { code } = await callMethod(fixture.client, kind, [ada], { deadline: Date.now() + 50 });
      assert.equal(code, Code.DEADLINE_EXCEEDED);
    }
    // Disposal shows that the server finishes in spite of them.
  });

  test('ends at its deadline by that, never as a call that its client cancelled', async () => {
    const reasons: unknown[] = [];
    await using fixture = await startServer({
      SayHello: (_request: Named, call: ServerCall) =>
        new Promise((_resolve, reject) => {
          call.signal.addEventListener('abort', () => {
            reasons.push((call.signal.reason as RpcError).code);
            reject(call.signal.reason);
          });
        }),
    });
    const client = fixture.connect();
    const calls = 200;
    for (let call = 0; call < calls; call += 1) {
      // A client that does not end the call at the deadline that it told, at all moments within a millisecond.
      const metadata = new Metadata();
      metadata.set('grpc-timeout', '100m');
      client.SayHello(ada, metadata, () => {});
      await sleep(1);
    }
    await eventually(() => assert.equal(reasons.length, calls));
    assert.deepEqual(new Set(reasons), new Set([Code.DEADLINE_EXCEEDED]));
  });

  test('has a signal that is aborted already when it is asked for too late', async () => {
    const gate = Promise.withResolvers<void>();
    let aborted: boolean | undefined;
    await using fixture = await startServer({
      async SayHello(_request: Named, call: ServerCall) {
        await gate.promise;
        aborted = call.signal.aborted;
        throw new Error('never logged, since nobody waits');
      },
    });
    await connected(fixture.client);
    const { code } = await callMethod(fixture.client, 'SayHello', [ada], { deadline: Date.now() + 400 });
    assert.equal(code, Code.DEADLINE_EXCEEDED);
    await eventually(() => {
      const { failed = 0, cancelled = 0 } = fixture.server.counters()['helloworld.Greeter/SayHello'] ?? {};
      assert.equal(failed + cancelled, 1);
    });
    gate.resolve();
    await eventually(() => assert.equal(aborted, true));
    assert.deepEqual(fixture.log, []);
  });
});

test('the signal of a call that was answered is never aborted', async () => {
  const signals: AbortSignal[] = [];
  await using fixture = await startServer({
    async SayHello(_request: Named, call: ServerCall) {
      signals.push(call.signal);
      return {};
    },
    async *SayHelloStreamReply(_request: Named, call: ServerCall) {
      signals.push(call.signal);
      yield {};
    },
  });
  await connected(fixture.client);
  const deadline = Date.now() + 1_000;
  for (const kind of ['SayHello', 'SayHelloStreamReply']) {
    assert.equal((await callMethod(fixture.client, kind, [ada], { deadline })).code, Code.OK);
  }
  await eventually(() => {
    const counted = Object.values(fixture.server.counters()).reduce((sum, { ok }) => sum + ok, 0);
    assert.equal(counted, 2);
  });
  await sleep(deadline - Date.now() + 50); // past the deadline of both
  assert.deepEqual(
    signals.map(({ aborted }) => aborted),
    [false, false],
  );
});

suite('backpressure', () => {
  test('a client that does not read holds the handler', async () => {
    let generated = 0;
    const count = 100_000;
    await using fixture = await startServer({
      async *SayHelloStreamReply({ name }: Named) {
        for (; generated < count; generated++) yield { message: name };
      },
    });
    const heapBytes = process.memoryUsage().heapUsed;
    let received = 0;
    const call = fixture.client.SayHelloStreamReply({ name: 'x'.repeat(1_000) });
    call.on('data', () => {
      received++;
      if (generated - received > 1_000) call.destroy(new Error('the handler runs ahead of its reader'));
    });
    call.pause();
    const held = await settled(() => generated);
    assert.ok(held > 0 && held < 1_000, `${held} of ${count} messages generated for a client that reads none`);
    assert.ok(process.memoryUsage().heapUsed - heapBytes < 50_000_000);

    call.resume();
    await eventually(() => assert.ok(received > 5_000));
    call.on('error', () => {});
    call.cancel();
  });

  test('a handler that does not read holds the client', async () => {
    const gate = Promise.withResolvers<void>();
    const count = 20_000;
    await using fixture = await startServer({
      async SayHelloStreamRequest(requests: AsyncIterable<Named>) {
        await gate.promise;
        let received = 0;
        for await (const _ of requests) received++;
        return { message: `${received}` };
      },
    });
    const reply = Promise.withResolvers<unknown>();
    const stream = fixture.client.SayHelloStreamRequest((error: unknown, value: unknown) =>
      reply.resolve(error ?? value),
    );
    let sent = 0;
    for (let i = 0; i < count; i++) stream.write({ name: 'x'.repeat(1_000) }, () => sent++);
    stream.end();
    const held = await settled(() => sent);
    assert.ok(held > 0 && held < 2_000, `${held} of ${count} messages taken for a handler that reads none`);
    gate.resolve();
    assert.deepEqual(await reply.promise, { message: `${count}` });
  });

  /** The value once it has not changed for 200 ms. */
  async function settled(read: () => number): Promise<number> {
    let value = read();
    let sinceMs = performance.now();
    await eventually(() => {
      if (read() !== value || value === 0) {
        value = read();
        sinceMs = performance.now();
      }
      assert.ok(performance.now() - sinceMs > 200);
    });
    return value;
  }
});
