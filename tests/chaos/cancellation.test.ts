import { type OutgoingHttpHeaders, request } from 'node:http';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import type { Caller, CallStatus } from '#runtime/call/call.ts';
import { Code, localStatus } from '#runtime/call/status.ts';
import { createErrorWriter } from '../../services/gateway/edge/errors.ts';
import { createEdgeServer } from '../../services/gateway/edge/server.ts';
import { createPipeline } from '../../services/gateway/pipeline.ts';
import { createHttpObserver } from '../../services/gateway/stages/observe.ts';
import { eventually } from '../harness/eventually.ts';
import { setFaults } from '../harness/faults.ts';
import { createChannelClient, descriptors } from '../harness/greeter-client.ts';
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

guarantee('a handler stops within a second when its client leaves or its deadline passes', {
  on: { cancellation: 'passed on' },
  control: { cancellation: 'swallowed' },
  async scenario({ cancellation }, t) {
    const { lab, use, adminPort } = await startLab(t, { replicas: 1, gateways: 0, greeterEnv: { FAULTS: 'enabled' } });
    const admin = adminPort('a');
    const { channel } = use(createChannelClient({ target: lab.target }));
    const edge = use(await startEdge(cancellation === 'swallowed' ? swallowCancellation(channel) : channel));
    const books = createBookkeeper();
    const get = (path: string, headers?: OutgoingHttpHeaders) => startGet(edge.port, path, headers, books.begin());

    // All seats of the greeter are taken: by streams that flow, and by calls that would take a minute.
    await setFaults(admin, { capacity: seats });
    const readers = times(ofEach, () => get(stream));
    await eventually('the streams flow', () => readers.every(({ received }) => received));
    await setFaults(admin, { capacity: seats, delayMs: 60_000 });
    const callers = times(ofEach, () => get(unary, { 'grpc-timeout': '10S' }));
    times(ofEach, () => get(unary, { 'grpc-timeout': '500m' }));
    await eventually('all seats are taken', async () => (await sumOfMetric(admin, startedName)) === seats);
    await eventually('the deadlines have passed', () => books.inFlight === 2 * ofEach);
    for (const { leave } of [...readers, ...callers]) leave();
    const leftMs = performance.now();

    // A seat is free when its handler has ended; streams that flow at the same time take one each.
    await setFaults(admin, { capacity: seats });
    const probes = times(seats, () => startGet(edge.port, stream));
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

const startedName = 'grpc_server_call_started_total';

function times<T>(count: number, make: () => T): T[] {
  return Array.from({ length: count }, make);
}

/** The gateway's edge and pipeline in this process, over any caller. */
async function startEdge(caller: Caller) {
  const log = pino({ level: 'silent' });
  const upstream = { start: caller.start.bind(caller), timeoutMs: () => undefined };
  const { routes } = createPipeline({ descriptors, upstream, streamIdleTimeoutMs: 60_000, passTraceContext: true });
  const server = createEdgeServer({
    host: '127.0.0.1',
    port: 0,
    routes,
    errors: createErrorWriter(descriptors.types),
    observer: createHttpObserver({ registry: new Registry(), log, tracing: false }),
    log,
    bodyLimitBytes: 1_024,
    keepAliveTimeoutMs: 5_000,
  });
  return {
    port: await server.listen(),
    async [Symbol.asyncDispose]() {
      const closed = server.close();
      server.destroy();
      await closed;
    },
  };
}

/** A request whose client may leave it. */
function startGet(
  port: number,
  path: string,
  headers: OutgoingHttpHeaders = {},
  done: (outcome: Outcome) => void = () => {},
) {
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
