import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import type { Caller, CallStatus } from '#runtime/call/call.ts';
import { invokeStream, invokeUnary } from '#runtime/call/invoke.ts';
import { Code, localStatus, RpcError } from '#runtime/call/status.ts';
import type { ServerCall } from '#runtime/server/handler.ts';
import { createServer } from '#runtime/server/server.ts';
import { projectFile } from '../harness/command.ts';
import { eventually } from '../harness/eventually.ts';
import { setFaults } from '../harness/faults.ts';
import { createChannelClient, sayHello, sayHelloStreamReply } from '../harness/greeter-client.ts';
import { guarantee } from '../harness/guarantee.ts';
import { startLab } from '../harness/lab-fixture.ts';
import { createBookkeeper, type Outcome } from '../harness/ledger.ts';
import { sumOfMetric } from '../harness/metrics.ts';

/** Streams whose reader leaves, calls whose client leaves, calls whose deadline passes: so many of each. */
const ofEach = 4;
const seats = 3 * ofEach;
/** The goal is 1 s. */
const limitMs = 5_000;
const unary = '/v1/hello/world';
const stream = '/v1/hello/world/stream?replyCount=100000&replyInterval=0.02s';
const startedName = 'grpc_server_call_started_total';

guarantee('behind a gateway and a service in between, a handler stops within a second of its client or its deadline', {
  on: { cancellation: 'passed on' },
  control: { cancellation: 'swallowed' },
  async scenario({ cancellation }, t) {
    const greeter = await startLab(t, { replicas: 1, gateways: 0, greeterEnv: { FAULTS: 'enabled' } });
    const admin = greeter.adminPort('a');
    const { channel } = greeter.use(createChannelClient({ target: greeter.lab.target }));
    const hop = greeter.use(await startHop(cancellation === 'swallowed' ? swallowCancellation(channel) : channel));
    const gateway = await startLab(t, { replicas: 0, gatewayEnv: { TARGET: `ipv4:127.0.0.1:${hop.port}` } });
    const books = createBookkeeper();
    const get = (path: string, timeout: string) => startGet(gateway.gatewayPort(), path, timeout, books.begin());

    // All seats of the greeter are taken: by streams that flow, and by calls that would take a minute.
    await setFaults(admin, { capacity: seats });
    const readers = times(ofEach, () => get(stream, '1M'));
    await eventually('the streams flow', () => readers.every(({ received }) => received));
    await setFaults(admin, { capacity: seats, delayMs: 60_000 });
    const callers = times(ofEach, () => get(unary, '10S'));
    times(ofEach, () => get(unary, '500m'));
    await eventually('all seats are taken', async () => (await sumOfMetric(admin, startedName)) === seats);
    await eventually('the deadlines have passed', () => books.inFlight === 2 * ofEach);
    for (const { leave } of [...readers, ...callers]) leave();
    const leftMs = performance.now();

    // A seat is free when its handler has ended; streams that flow at the same time take one each.
    await setFaults(admin, { capacity: seats });
    const probes = times(seats, () => startGet(gateway.gatewayPort(), stream, '1M'));
    const freed = () => probes.filter(({ received }) => received).length;
    await eventually('all seats are free', () => freed() === seats, { timeoutMs: limitMs }).catch(() => {});
    const figures = {
      stoppedHandlers: freed(),
      allStoppedMs: freed() === seats ? performance.now() - leftMs : Number.POSITIVE_INFINITY,
    };
    for (const { leave } of probes) leave();
    await eventually('all clients have left', () => books.inFlight === 0);
    return { ...books.close(), figures };
  },
  valid: ({ sent, codes }) => sent === seats && codes.get('left') === 2 * ofEach && codes.get('HTTP 504') === ofEach,
  holds: ({ figures }) => figures.stoppedHandlers === seats && figures.allStoppedMs <= limitMs,
});

function times<T>(count: number, make: () => T): T[] {
  return Array.from({ length: count }, make);
}

interface StreamRequest {
  readonly name: string;
  readonly reply_count: number;
  readonly reply_interval: { readonly seconds: string; readonly nanos: number };
}

/** A service that asks another one, with the deadline and the cancellation of its own call. */
async function startHop(caller: Caller) {
  const unimplemented = () => {
    throw new RpcError(Code.UNIMPLEMENTED, 'not passed on');
  };
  const server = createServer({
    descriptors: readFileSync(projectFile('proto/descriptors.binpb')),
    services: {
      'helloworld.Greeter': {
        async SayHello({ name }: { name: string }, { deadlineMs, signal }: ServerCall) {
          const options = { method: sayHello.method, deadlineMs, signal };
          const { message } = await invokeUnary(caller, options, sayHello.encode({ name }));
          return sayHello.decode(message);
        },
        async *SayHelloStreamReply(request: StreamRequest, { deadlineMs, signal }: ServerCall) {
          const { name, reply_count: replyCount, reply_interval: interval } = request;
          const replyInterval = { seconds: BigInt(interval.seconds), nanos: interval.nanos };
          const replies = invokeStream(caller, { method: sayHelloStreamReply.method, deadlineMs, signal });
          void replies.write(sayHelloStreamReply.encode({ name, replyCount, replyInterval }), true);
          for await (const reply of replies) yield sayHelloStreamReply.decode(reply);
        },
        SayHelloStreamRequest: unimplemented,
        SayHelloBidiStream: unimplemented,
      },
    },
    host: '127.0.0.1',
    port: 0,
    podName: 'hop',
    registry: new Registry(),
    log: pino({ level: 'silent' }),
  });
  return {
    port: await server.start(),
    async [Symbol.asyncDispose]() {
      const finished = server.finish();
      server.force();
      await finished;
    },
  };
}

/** A request whose client may leave it. */
function startGet(port: number, path: string, timeout: string, done: (outcome: Outcome) => void = () => {}) {
  const headers = { 'grpc-timeout': timeout };
  let code = 'left';
  const sent = request({ host: '127.0.0.1', port, path, headers, agent: false }, (response) => {
    response.on('data', () => {
      get.received = true;
    });
    response.once('end', () => {
      code = response.statusCode === 200 ? 'OK' : `HTTP ${response.statusCode}`;
    });
    response.on('error', () => {}); // it was left
  });
  const get = { received: false, leave: () => sent.destroy() };
  sent.on('error', () => {});
  sent.once('close', () => done({ code }));
  sent.end();
  return get;
}

/** A stage that ends calls here and tells the replica nothing of it, neither a cancellation nor the deadline. */
function swallowCancellation(next: Caller): Caller {
  return {
    start(start, observer) {
      let ended = false;
      const end = (status: CallStatus) => {
        if (ended) return;
        ended = true;
        clearTimeout(timer);
        observer.onStatus(status);
      };
      const endHere = (code: number, details: string) => end(localStatus(code, details, 'maybe'));
      const timer = Number.isFinite(start.deadlineMs)
        ? setTimeout(endHere, start.deadlineMs - performance.now(), Code.DEADLINE_EXCEEDED, 'deadline exceeded')
        : undefined;
      const call = next.start(
        { ...start, deadlineMs: Number.POSITIVE_INFINITY },
        {
          onHeaders: (metadata, endpointId) => ended || observer.onHeaders(metadata, endpointId),
          onMessage: (message) => ended || observer.onMessage(message),
          onWritable: () => ended || observer.onWritable(),
          onStatus: end,
        },
      );
      return {
        request: (messages) => call.request(messages),
        write: (message, last) => call.write(message, last),
        end: () => call.end(),
        cancel: (code, details) => queueMicrotask(() => endHere(code, details)),
      };
    },
  };
}
