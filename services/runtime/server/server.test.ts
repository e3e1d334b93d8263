import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { suite, test } from 'node:test';
import { connectivityState } from '@grpc/grpc-js';
import { Registry } from 'prom-client';
import { Code, RpcError } from '../call/status.ts';
import type { ServerCall } from './handler.ts';
import { createServer, type ServerOptions } from './server.ts';
import { callMethod, descriptors, eventually, startServer } from './testing.ts';

interface Named {
  readonly name: string;
}

const ada = { name: 'Ada' };
const kinds = ['SayHello', 'SayHelloStreamReply', 'SayHelloStreamRequest', 'SayHelloBidiStream'] as const;

/** Handlers of all kinds that reply once, and then wait until `gate` opens. */
function createGatedHandlers(gate: Promise<void>) {
  return {
    async SayHello() {
      await gate;
      return {};
    },
    async *SayHelloStreamReply() {
      yield {};
      await gate;
    },
    async SayHelloStreamRequest() {
      await gate;
      return {};
    },
    async *SayHelloBidiStream() {
      yield {};
      await gate;
    },
  };
}

suite('served-by', () => {
  test('is initial metadata of each kind of call', async () => {
    await using fixture = await startServer(createGatedHandlers(Promise.resolve()));
    for (const kind of kinds) {
      const { code, headers } = await callMethod(fixture.client, kind, [ada]);
      assert.equal(code, Code.OK);
      assert.deepEqual(headers?.get('served-by'), ['pod-a'], kind);
    }
  });

  test('comes with the status when that is all', async () => {
    await using fixture = await startServer({
      async SayHello() {
        throw new RpcError(Code.NOT_FOUND, 'none');
      },
    });
    const { code, trailers } = await callMethod(fixture.client, 'SayHello', [ada]);
    assert.equal(code, Code.NOT_FOUND);
    assert.deepEqual(trailers.get('served-by'), ['pod-a']);
  });

  test('leaves a call open to a retry until a message is sent', async () => {
    let attempts = 0;
    await using fixture = await startServer({
      async *SayHelloStreamReply() {
        if (++attempts === 1) throw new RpcError(Code.UNAVAILABLE, 'try again');
        yield {};
      },
    });
    const client = fixture.connect(undefined, {
      'grpc.service_config': JSON.stringify({
        methodConfig: [
          {
            name: [{}],
            retryPolicy: {
              maxAttempts: 2,
              initialBackoff: '1s',
              maxBackoff: '1s',
              backoffMultiplier: 1,
              retryableStatusCodes: ['UNAVAILABLE'],
            },
          },
        ],
      }),
      'grpc.enable_retries': 1,
    });
    assert.equal((await callMethod(client, 'SayHelloStreamReply', [ada])).code, Code.OK);
    assert.equal(attempts, 2);
  });
});

suite('the end', () => {
  test('lets calls in flight of every kind finish, and takes no further one', async () => {
    const gate = Promise.withResolvers<void>();
    await using fixture = await startServer(createGatedHandlers(gate.promise));
    const calls = kinds.map((kind) => callMethod(fixture.client, kind, [ada]));
    await eventually(() => assert.equal(Object.keys(fixture.server.counters()).length, kinds.length));
    let finished = false;
    const finish = fixture.server.finish().then(() => {
      finished = true;
    });
    const late = await callMethod(fixture.connect(), 'SayHello', [ada]);
    assert.equal(late.code, Code.UNAVAILABLE);
    assert.equal(finished, false);
    gate.resolve();
    assert.deepEqual(
      (await Promise.all(calls)).map(({ code }) => code),
      [0, 0, 0, 0],
    );
    await finish;
  });

  test('after the grace cuts what is left with UNAVAILABLE, and stops the handlers', async () => {
    const reasons: unknown[] = [];
    const wait = async (call: ServerCall) => {
      await once(call.signal, 'abort');
      reasons.push(call.signal.reason);
      return {};
    };
    await using fixture = await startServer({
      SayHello: (_request: Named, call: ServerCall) => wait(call),
      SayHelloStreamRequest: (_requests: AsyncIterable<Named>, call: ServerCall) => wait(call),
      async *SayHelloStreamReply(_request: Named, call: ServerCall) {
        yield {};
        yield await wait(call);
      },
      async *SayHelloBidiStream(_requests: AsyncIterable<Named>, call: ServerCall) {
        yield {};
        yield await wait(call);
      },
    });
    const calls = kinds.map((kind) => callMethod(fixture.client, kind, [ada]));
    await eventually(() => assert.equal(Object.keys(fixture.server.counters()).length, kinds.length));
    const finish = fixture.server.finish();
    fixture.server.force();
    for (const { code, details } of await Promise.all(calls)) {
      assert.deepEqual({ code, details }, { code: Code.UNAVAILABLE, details: 'server is shutting down' });
    }
    await finish;
    assert.equal(reasons.length, kinds.length);
    assert.ok(reasons.every((reason) => reason instanceof RpcError));
    const counted = Object.values(fixture.server.counters()).map(({ failed }) => failed);
    assert.deepEqual(counted, [1, 1, 1, 1]);
  });

  test('is not held by a client that does not read', async () => {
    await using fixture = await startServer({
      async *SayHelloStreamReply({ name }: Named) {
        for (;;) yield { message: name };
      },
    });
    const call = fixture.client.SayHelloStreamReply({ name: 'x'.repeat(1_000) });
    const ended = new Promise((resolve) => call.on('status', resolve));
    call.on('error', () => {}).on('data', () => {});
    call.pause();
    await eventually(() => assert.ok(call.readableLength > 0));
    const finish = fixture.server.finish();
    fixture.server.force();
    await finish;
    await ended;
  });

  test('is not held by a connection that says nothing', async () => {
    await using fixture = await startServer({});
    const socket = connect(fixture.port, '127.0.0.1');
    await once(socket, 'connect');
    const closed = once(socket.resume(), 'close');
    await fixture.server.finish();
    await closed;
  });

  test('comes too when the server never started', async () => {
    const server = createServer(createOptions());
    server.drain();
    await server.finish();
  });
});

suite('limits', () => {
  test('a message that is too large is RESOURCE_EXHAUSTED, both ways', async () => {
    await using fixture = await startServer(
      { SayHello: async ({ name }: Named) => ({ message: name.repeat(100) }) },
      { maxMessageBytes: 1_000 },
    );
    for (const name of ['x'.repeat(2_000), 'x'.repeat(20)]) {
      assert.equal((await callMethod(fixture.client, 'SayHello', [{ name }])).code, Code.RESOURCE_EXHAUSTED);
    }
    assert.equal((await callMethod(fixture.client, 'SayHello', [ada])).code, Code.OK);
  });

  test('a connection ends at its age, without harm to its calls', async () => {
    const gate = Promise.withResolvers<void>();
    await using fixture = await startServer(createGatedHandlers(gate.promise), { maxConnectionAgeMs: 100 });
    const channel = fixture.client.getChannel();
    const call = callMethod(fixture.client, 'SayHello', [ada]);
    await eventually(() => assert.equal(channel.getConnectivityState(false), connectivityState.READY));
    await eventually(() => assert.notEqual(channel.getConnectivityState(false), connectivityState.READY));
    gate.resolve();
    assert.equal((await call).code, Code.OK);
    assert.equal((await callMethod(fixture.client, 'SayHello', [ada])).code, Code.OK);
  });
});

suite('the start', () => {
  test('names the port that is taken', async () => {
    await using fixture = await startServer({});
    const server = createServer({ ...createOptions(), port: fixture.port });
    await assert.rejects(server.start(), new RegExp(`listen EADDRINUSE.*127\\.0\\.0\\.1:${fixture.port}`));
  });

  test('refuses services that are not described and methods without a handler', () => {
    const unknown = { ...createOptions(), services: { 'helloworld.Nobody': {} } };
    assert.throws(() => createServer(unknown), /helloworld\.Nobody is no service of the descriptors/);
    const message = { ...createOptions(), services: { 'helloworld.HelloRequest': {} } };
    assert.throws(() => createServer(message), /helloworld\.HelloRequest is no service of the descriptors/);
    const incomplete = { ...createOptions(), services: { 'helloworld.Greeter': {} } };
    assert.throws(() => createServer(incomplete), /\/helloworld\.Greeter\/SayHello has no handler/);
  });
});

function createOptions(): ServerOptions {
  const services = { 'helloworld.Greeter': createGatedHandlers(Promise.resolve()) };
  const log = { error() {} } as unknown as ServerOptions['log'];
  return { descriptors, services, host: '127.0.0.1', port: 0, podName: 'pod-b', registry: new Registry(), log };
}
