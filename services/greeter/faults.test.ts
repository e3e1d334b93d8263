import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { service as healthDefinition } from 'grpc-health-check';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { Code } from '#runtime/call/status.ts';
import { createAdmin } from '#runtime/process/admin.ts';
import { parseConfig } from '#runtime/process/config.ts';
import type { Handlers } from '#runtime/server/handler.ts';
import { callMethod, eventually, startServer } from '#runtime/server/testing.ts';
import { createApp } from './app.ts';
import { settings } from './config.ts';
import { createFaults, type Faults } from './faults.ts';
import { greeter } from './greeter.ts';

const silent = pino({ level: 'silent' });
const ada = { name: 'Ada' };
const kinds = ['SayHello', 'SayHelloStreamReply', 'SayHelloStreamRequest', 'SayHelloBidiStream'] as const;

/** A greeter whose faults are set over HTTP. */
async function startFaulty(handlers: Handlers = greeter) {
  const faults = createFaults({ log: silent, server: () => fixture.server });
  const fixture = await startServer(faults.wrap(handlers));
  const admin = createAdmin({ host: '127.0.0.1', port: 0, registry: new Registry(), routes: faults.routes });
  const url = `http://127.0.0.1:${await admin.start()}/faults`;
  const send = async (method: string, body?: unknown, path = '') => {
    const response = await fetch(url + path, {
      method,
      headers: { 'content-type': 'application/json' },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    return { status: response.status, text: await response.text() };
  };
  return {
    ...fixture,
    send,
    async set(next: Faults) {
      assert.deepEqual(await send('PUT', next), { status: 200, text: `${JSON.stringify(next)}\n` });
    },
    call: (kind: string = 'SayHello', options = {}) => callMethod(fixture.client, kind, [ada], options),
    async [Symbol.asyncDispose]() {
      await admin.stop();
      await fixture[Symbol.asyncDispose]();
    },
  };
}

/** A handler whose calls stand still until they are let go, in the order in which they began. */
function createGate() {
  const waiting: { readonly name: string; readonly go: () => void }[] = [];
  return {
    waiting,
    handlers: {
      SayHello: ({ name }: { readonly name: string }) =>
        new Promise((resolve) => {
          waiting.push({ name, go: () => resolve({ message: name }) });
        }),
    },
    names: () => waiting.map(({ name }) => name),
  };
}

suite('faults', { timeout: 30_000 }, () => {
  test('are none to begin with, are set as a whole and taken back', async () => {
    await using fixture = await startFaulty();
    assert.deepEqual(await fixture.send('GET'), { status: 200, text: '{}\n' });
    await fixture.set({ delayMs: 1, jitterMs: 1, capacity: 0 });
    await fixture.set({ errorCode: 'NOT_FOUND' });
    assert.deepEqual(await fixture.send('GET'), { status: 200, text: '{"errorCode":"NOT_FOUND"}\n' });
    assert.equal((await fixture.call()).code, Code.NOT_FOUND);
    assert.deepEqual(await fixture.send('DELETE'), { status: 200, text: '{}\n' });
    for (const kind of kinds) assert.equal((await fixture.call(kind)).code, Code.OK, kind);
  });

  test('are refused with every problem, and those before stay', async () => {
    await using fixture = await startFaulty();
    await fixture.set({ delayMs: 1 });
    const bad = { delayMs: -1, jitterMs: '5', capacity: 1.5, errorRate: 2, freeze: 1, refuseHealth: null, x: 1, y: 2 };
    const { status, text } = await fixture.send('PUT', bad);
    assert.equal(status, 400);
    assert.deepEqual(text.trim().split('\n').sort(), [
      'capacity 1.5 must be an integer',
      'delayMs -1 must be >= 0',
      'errorRate 2 must be <= 1',
      'freeze 1 must be true or false',
      'jitterMs "5" must be a number',
      'refuseHealth null must be true or false',
      'x 1 is not a fault',
      'y 2 is not a fault',
    ]);
    for (const [body, problem] of [
      [{ errorRate: 0.5, z: 1 }, 'z 1 is not a fault\nerrorRate 0.5 must stand beside an errorCode\n'],
      [{ errorCode: 'OK' }, 'errorCode "OK" must be a status code other than OK, such as UNAVAILABLE\n'],
      [[], 'faults [] must be an object\n'],
      ['{', 'faults "{" must be an object\n'],
    ]) {
      assert.deepEqual(await fixture.send('PUT', body), { status: 400, text: problem });
    }
    assert.equal((await fixture.send('GET')).text, '{"delayMs":1}\n');
  });

  test('delay each kind of call, and no longer than its client waits', async () => {
    await using fixture = await startFaulty();
    await fixture.set({ delayMs: 60, jitterMs: 40 });
    for (const kind of kinds) {
      const startMs = performance.now();
      assert.equal((await fixture.call(kind)).code, Code.OK);
      const tookMs = performance.now() - startMs;
      assert.ok(tookMs >= 59 && tookMs < 1_000, `${kind} took ${tookMs} ms`);
    }
    await fixture.set({ delayMs: 600_000 });
    const outcomes = await Promise.all(kinds.map((kind) => fixture.call(kind, { deadline: Date.now() + 100 })));
    assert.deepEqual(
      outcomes.map(({ code }) => code),
      kinds.map(() => Code.DEADLINE_EXCEEDED),
    );
    await eventually(() => {
      const timers = process.getActiveResourcesInfo().filter((name) => name === 'Timeout');
      assert.ok(timers.length < kinds.length, 'a call that is over is still delayed');
    });
  });

  test('fail a share of the calls', async () => {
    await using fixture = await startFaulty();
    await fixture.set({ errorCode: 'UNAVAILABLE', errorRate: 0.5 });
    const outcomes = await Promise.all(Array.from({ length: 200 }, () => fixture.call()));
    const failed = outcomes.filter(({ code }) => code === Code.UNAVAILABLE);
    assert.ok(failed.length > 50 && failed.length < 150, `${failed.length} of 200 failed`);
    assert.equal(failed[0]?.details, 'injected fault');
    await fixture.set({ errorCode: 'DATA_LOSS' });
    for (const kind of kinds) assert.equal((await fixture.call(kind)).code, Code.DATA_LOSS, kind);
  });

  test('let calls wait in order for capacity, and pass over those whose client left', async () => {
    const gate = createGate();
    await using fixture = await startFaulty({ ...greeter, ...gate.handlers });
    await fixture.set({ capacity: 2 });
    const start = (name: string) => fixture.client.SayHello({ name }, () => {});
    const calls = Object.fromEntries(['a', 'b', 'c', 'd', 'e', 'f'].map((name) => [name, start(name)]));
    await eventually(() => assert.equal(fixture.server.counters()['helloworld.Greeter/SayHello']?.started, 6));
    await eventually(() => assert.deepEqual(gate.names(), ['a', 'b']));
    calls['c']?.cancel();
    await eventually(() => assert.equal(fixture.server.counters()['helloworld.Greeter/SayHello']?.cancelled, 1));
    gate.waiting[1]?.go();
    await eventually(() => assert.deepEqual(gate.names(), ['a', 'b', 'd']));
    await fixture.set({ capacity: 3 });
    await eventually(() => assert.deepEqual(gate.names(), ['a', 'b', 'd', 'e']));
    await fixture.set({});
    await eventually(() => assert.deepEqual(gate.names(), ['a', 'b', 'd', 'e', 'f']));
    for (const { go } of gate.waiting) go();
    await eventually(() => assert.equal(fixture.server.counters()['helloworld.Greeter/SayHello']?.ok, 5));
  });

  test('give a slot back when the client of a delayed call or of a stream leaves', async () => {
    await using fixture = await startFaulty();
    await fixture.set({ delayMs: 600_000, capacity: 1 });
    assert.equal((await fixture.call('SayHello', { deadline: Date.now() + 50 })).code, Code.DEADLINE_EXCEEDED);
    await fixture.set({ capacity: 1 });
    assert.equal((await fixture.call()).code, Code.OK);
    const stream = fixture.client.SayHelloStreamReply({ ...ada, reply_interval: { seconds: 10 } });
    stream.on('error', () => {}).once('data', () => stream.cancel());
    assert.equal((await fixture.call()).code, Code.OK);
  });

  test('end calls with RESOURCE_EXHAUSTED once 1,000 wait', async () => {
    const gate = createGate();
    await using fixture = await startFaulty({ ...greeter, ...gate.handlers });
    await fixture.set({ capacity: 1 });
    const calls = Array.from({ length: 1_001 }, () => fixture.call());
    await eventually(() => assert.equal(fixture.server.counters()['helloworld.Greeter/SayHello']?.started, 1_001));
    const { code, details } = await fixture.call();
    assert.deepEqual([code, details], [Code.RESOURCE_EXHAUSTED, 'capacity 1 is used, and 1000 calls wait']);
    await fixture.set({});
    await eventually(() => assert.equal(gate.waiting.length, 1_001));
    for (const { go } of gate.waiting) go();
    const codes = new Set((await Promise.all(calls)).map((outcome) => outcome.code));
    assert.deepEqual([...codes], [Code.OK]);
  });

  test('freeze new calls and streams under way until thawed or cancelled, while health answers', async () => {
    await using fixture = await startFaulty();
    const stream = fixture.client.SayHelloStreamReply({
      ...ada,
      reply_count: 3,
      reply_interval: { nanos: 50_000_000 },
    });
    let replies = 0;
    let streamCode: number | undefined;
    stream.on('data', () => replies++).on('status', ({ code }: { code: number }) => (streamCode = code));
    await eventually(() => assert.equal(replies, 1));
    await fixture.set({ freeze: true });
    const seen = replies;
    const frozen = await Promise.all(kinds.map((kind) => fixture.call(kind, { deadline: Date.now() + 150 })));
    assert.deepEqual(
      frozen.map(({ code }) => code),
      kinds.map(() => Code.DEADLINE_EXCEEDED),
    );
    const health = fixture.connect(healthDefinition);
    const status = await new Promise((resolve) => {
      health.check({ service: '' }, (_error: unknown, reply: { status: string }) => resolve(reply.status));
    });
    assert.equal(status, 'SERVING');
    const waiting = fixture.call();
    await eventually(() => assert.equal(fixture.server.counters()['helloworld.Greeter/SayHello']?.started, 2));
    assert.equal(replies, seen);
    await fixture.set({});
    assert.equal((await waiting).code, Code.OK);
    await eventually(() => assert.deepEqual([replies, streamCode], [3, Code.OK]));
  });

  test('make health refuse, liveness excepted, and never call a draining server healthy', async () => {
    await using fixture = await startFaulty();
    const health = fixture.connect(healthDefinition);
    const statuses = async () => {
      const reply = await new Promise<{ statuses: Record<string, { status: string }> }>((resolve) => {
        health.list({}, (_error: unknown, list: never) => resolve(list));
      });
      return Object.fromEntries(Object.entries(reply.statuses).map(([name, { status }]) => [name, status]));
    };
    const all = (status: string) => ({
      '': status,
      readiness: status,
      'helloworld.Greeter': status,
      liveness: 'SERVING',
    });
    await fixture.set({ refuseHealth: true });
    assert.deepEqual(await statuses(), all('NOT_SERVING'));
    assert.equal((await fixture.call()).code, Code.OK);
    await fixture.set({});
    assert.deepEqual(await statuses(), all('SERVING'));
    await fixture.set({ refuseHealth: true });
    fixture.server.drain();
    await fixture.set({});
    assert.deepEqual(await statuses(), all('NOT_SERVING'));
  });

  test('send GOAWAY, which ends no call', async () => {
    await using fixture = await startFaulty();
    const call = fixture.client.SayHelloBidiStream();
    const replies: unknown[] = [];
    let code: number | undefined;
    call.on('data', (reply: unknown) => replies.push(reply));
    call.on('status', (status: { code: number }) => (code = status.code));
    call.write(ada);
    await eventually(() => assert.equal(replies.length, 1));
    const channel = fixture.client.getChannel();
    assert.deepEqual(await fixture.send('POST', undefined, '/goaway'), { status: 204, text: '' });
    const idle = 0; // connectivityState.IDLE
    await eventually(() => assert.equal(channel.getConnectivityState(false), idle));
    assert.equal((await fixture.call()).code, Code.OK);
    call.write(ada);
    call.end();
    await eventually(() => assert.deepEqual([replies.length, code], [2, Code.OK]));
  });

  test('are there only when they are enabled, and then the log warns', async () => {
    for (const [faults, status, warnings] of [
      ['disabled', 404, []],
      ['enabled', 200, ['faults can be injected through the admin port']],
    ] as const) {
      const lines: { level: number; msg: string }[] = [];
      const log = pino({ base: null }, { write: (line) => void lines.push(JSON.parse(line)) });
      const env = { FAULTS: faults, HOST: '127.0.0.1', PORT: '0', ADMIN_PORT: '0' };
      const { program, admin } = createApp(parseConfig(settings, { env, argv: [] }), log);
      const port = await admin.start();
      await program.start();
      const reply = await fetch(`http://127.0.0.1:${port}/faults`);
      await reply.text();
      assert.equal(reply.status, status);
      assert.deepEqual(
        lines.filter(({ level }) => level >= 40).map(({ msg }) => msg),
        warnings,
      );
      await program.finish();
      await admin.stop();
    }
  });
});
