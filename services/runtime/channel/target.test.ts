import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Method } from '../call/call.ts';
import { invokeUnary } from '../call/invoke.ts';
import { createChannel } from './channel.ts';
import { parseTarget } from './target.ts';
import { EndpointSliceServer, endpointSlice, podEndpoint } from './testing/endpointslice-server.ts';
import { replyWith, startPeer } from './testing/http2-peer.ts';
import { until } from './testing/until.ts';

const kubernetes = { server: 'https://10.96.0.1:443', namespace: 'own' };

const good: [text: string, authority: string | undefined][] = [
  ['dns:///greeter:50051', 'greeter:50051'],
  ['dns:///[::1]:50051', '[::1]:50051'],
  ['ipv4:10.0.0.1:50051,10.0.0.2:50051', undefined],
  ['ipv6:[::1]:50051', undefined],
  ['file:///endpoints.json', undefined],
  ['kubernetes:///greeter.default:grpc', 'greeter.default.svc'],
  ['kubernetes:///greeter.default:50051', 'greeter.default.svc'],
  ['kubernetes:///greeter:grpc', 'greeter.own.svc'],
];

for (const [text, authority] of good) {
  test(`reads ${text}`, () => assert.equal(parseTarget(text, kubernetes).authority, authority));
}

const bad: [text: string, problem: RegExp][] = [
  ['greeter:50051', /must begin with dns:\/\/\/, kubernetes:\/\/\/, file:\/\/\/, ipv4: or ipv6:$/],
  ['dns:///greeter', /must be dns:\/\/\/name:port$/],
  ['ipv4:10.0.0.1', /is no ipv4 address:port$/],
  ['ipv4:10.0.0.1:1,10.0.0.1:1', /names an address twice$/],
  ['kubernetes:///greeter', /must be kubernetes:\/\/\/service\.namespace:port-name-or-number$/],
  ['kubernetes://greeter.default:grpc', /must be kubernetes/],
  ['kubernetes:///greeter.default.svc:grpc', /must be kubernetes/],
  ['kubernetes:///greeter/../x:grpc', /must be kubernetes/],
  ['kubernetes:///greeter.default:0', /must be kubernetes/],
  ['kubernetes:///greeter.default:70000', /must be kubernetes/],
  ['kubernetes:///greeter.default:', /must be kubernetes/],
];

for (const [text, problem] of bad) {
  test(`refuses ${text}`, () => assert.throws(() => parseTarget(text, kubernetes), problem));
}

test('says what a kubernetes target lacks', () => {
  assert.throws(() => createChannel({ target: 'kubernetes:///greeter.default:grpc' }), {
    message: 'target "kubernetes:///greeter.default:grpc" can be used only inside a Kubernetes cluster',
  });
  const { server } = kubernetes;
  assert.throws(() => createChannel({ target: 'kubernetes:///greeter:grpc', kubernetes: { server } }), {
    message: 'target "kubernetes:///greeter:grpc" must name the namespace: that of this process is not known',
  });
});

test('a channel follows the pods of a Service', async (t) => {
  const server = new EndpointSliceServer();
  await server.start();
  t.after(() => server.stop());
  const [first, second] = await Promise.all([startPeer(t, replyWith('hi')), startPeer(t, replyWith('hi'))]);
  const slice = (uid: string, port: number) =>
    endpointSlice(uid, { endpoints: [podEndpoint(uid, '127.0.0.1')], ports: [{ name: 'grpc', port }] });
  server.setSlices([slice('a', first.port)]);
  const channel = createChannel({
    target: 'kubernetes:///greeter:grpc',
    kubernetes: { server: server.url, namespace: 'default' },
  });
  t.after(() => channel.close(0));
  channel.connect();
  const greet: Method = {
    path: '/helloworld.Greeter/SayHello',
    requestStream: false,
    responseStream: false,
    idempotency: 'NO_SIDE_EFFECTS',
  };
  const answeredBy = async () => (await invokeUnary(channel, { method: greet }, Buffer.from('x'))).endpointId;
  assert.equal(await answeredBy(), 'a');
  await until(() => server.openWatches === 1);
  server.setSlices([slice('b', second.port)]);
  await until(() => second.sessions === 1);
  await until(() => first.sessions === 0);
  assert.equal(await answeredBy(), 'b');
  assert.equal(second.requests.at(-1)?.headers[':authority'], 'greeter.default.svc');
});
