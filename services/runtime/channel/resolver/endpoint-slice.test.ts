import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type EndpointSliceObject, endpointSlice, podEndpoint } from '../testing/endpointslice-server.ts';
import { toEndpoints } from './endpoint-slice.ts';

const ready = { ready: true, serving: true, terminating: false };
const notReady = { ready: false, serving: false, terminating: false };
const draining = { ready: false, serving: true, terminating: true };
const dying = { ready: false, serving: false, terminating: true };

const cases: {
  name: string;
  slices: EndpointSliceObject[];
  port?: string;
  endpoints: Record<string, string[]>;
  notReady?: string[];
}[] = [
  { name: 'no slice: no endpoint', slices: [], endpoints: {} },
  {
    name: 'the slice of a Service without pods, which has no ports either: no endpoint',
    slices: [endpointSlice('x', { endpoints: null, ports: [] })],
    endpoints: {},
  },
  {
    name: 'several slices are merged, by id',
    slices: [
      endpointSlice('x', { endpoints: [podEndpoint('b', '10.0.0.2'), podEndpoint('c', '10.0.0.3')] }),
      endpointSlice('y', { endpoints: [podEndpoint('a', '10.0.0.1')] }),
    ],
    endpoints: { a: ['10.0.0.1:50051'], b: ['10.0.0.2:50051'], c: ['10.0.0.3:50051'] },
  },
  {
    name: 'only those that are ready, when there are any',
    slices: [
      endpointSlice('x', {
        endpoints: [
          podEndpoint('a', '10.0.0.1', ready),
          podEndpoint('b', '10.0.0.2', notReady),
          podEndpoint('c', '10.0.0.3', draining),
          podEndpoint('d', '10.0.0.4', dying),
        ],
      }),
    ],
    endpoints: { a: ['10.0.0.1:50051'] },
  },
  {
    name: 'those that serve while they terminate, and those that are not ready, when none is',
    slices: [
      endpointSlice('x', {
        endpoints: [podEndpoint('b', '10.0.0.2', notReady), podEndpoint('c', '10.0.0.3', draining)],
      }),
      endpointSlice('y', { endpoints: [podEndpoint('d', '10.0.0.4', dying)] }),
    ],
    endpoints: { b: ['10.0.0.2:50051'], c: ['10.0.0.3:50051'] },
    notReady: ['b'],
  },
  {
    name: 'those that are not ready, when nobody is, but not those that go',
    slices: [
      endpointSlice('x', {
        endpoints: [
          podEndpoint('b', '10.0.0.2', notReady),
          podEndpoint('c', '10.0.0.3', notReady),
          podEndpoint('d', '10.0.0.4', dying),
        ],
      }),
    ],
    endpoints: { b: ['10.0.0.2:50051'], c: ['10.0.0.3:50051'] },
    notReady: ['b', 'c'],
  },
  {
    name: 'a condition that is not said: ready, and able to serve',
    slices: [
      endpointSlice('x', { endpoints: [{ addresses: ['10.0.0.1'] }, podEndpoint('b', '10.0.0.2', {})] }),
      endpointSlice('y', { endpoints: [podEndpoint('c', '10.0.0.3', { ready: false })] }),
    ],
    endpoints: { '10.0.0.1:50051': ['10.0.0.1:50051'], b: ['10.0.0.2:50051'] },
  },
  {
    name: 'terminating without a word on serving, and nobody ready: serves',
    slices: [endpointSlice('x', { endpoints: [podEndpoint('a', '10.0.0.1', { ready: false, terminating: true })] })],
    endpoints: { a: ['10.0.0.1:50051'] },
  },
  {
    name: 'both address families of a pod are one endpoint, IPv4 first',
    slices: [
      endpointSlice('v6', { addressType: 'IPv6', endpoints: [podEndpoint('a', 'fd00::1')] }),
      endpointSlice('v4', { endpoints: [podEndpoint('a', '10.0.0.1')] }),
    ],
    endpoints: { a: ['10.0.0.1:50051', '[fd00::1]:50051'] },
  },
  {
    name: 'a pod that is ready in the slice of one family keeps the address of the other',
    slices: [
      endpointSlice('v4', { endpoints: [podEndpoint('a', '10.0.0.1', ready)] }),
      endpointSlice('v6', { addressType: 'IPv6', endpoints: [podEndpoint('a', 'fd00::1', notReady)] }),
    ],
    endpoints: { a: ['10.0.0.1:50051', '[fd00::1]:50051'] },
  },
  {
    name: 'a pod that is in two slices while the cluster moves it is there once',
    slices: [
      endpointSlice('x', { endpoints: [podEndpoint('a', '10.0.0.1'), podEndpoint('b', '10.0.0.2')] }),
      endpointSlice('y', { endpoints: [podEndpoint('b', '10.0.0.2'), podEndpoint('c', '10.0.0.3')] }),
    ],
    endpoints: { a: ['10.0.0.1:50051'], b: ['10.0.0.2:50051'], c: ['10.0.0.3:50051'] },
  },
  {
    name: 'and it is ready when one of the two says so',
    slices: [
      endpointSlice('x', { endpoints: [podEndpoint('a', '10.0.0.1', notReady)] }),
      endpointSlice('y', { endpoints: [podEndpoint('a', '10.0.0.1', ready)] }),
    ],
    endpoints: { a: ['10.0.0.1:50051'] },
  },
  {
    name: 'no pod behind it: the address is the id, and only the first one has a meaning',
    slices: [endpointSlice('x', { endpoints: [{ addresses: ['10.0.0.1', '10.0.0.9'] }] })],
    endpoints: { '10.0.0.1:50051': ['10.0.0.1:50051'] },
  },
  {
    name: 'a host name is no address',
    slices: [endpointSlice('x', { addressType: 'FQDN', endpoints: [{ addresses: ['greeter.example'] }] })],
    endpoints: {},
  },
  {
    name: 'a port by its name, which each slice may give another number',
    slices: [
      endpointSlice('x', {
        endpoints: [podEndpoint('a', '10.0.0.1')],
        ports: [
          { name: 'http', port: 80 },
          { name: 'grpc', port: 7001 },
        ],
      }),
      endpointSlice('y', { endpoints: [podEndpoint('b', '10.0.0.2')], ports: [{ name: 'grpc', port: 7002 }] }),
    ],
    endpoints: { a: ['10.0.0.1:7001'], b: ['10.0.0.2:7002'] },
  },
  {
    name: 'a slice that does not have the port is left out',
    slices: [
      endpointSlice('x', { endpoints: [podEndpoint('a', '10.0.0.1')], ports: [{ name: 'http', port: 80 }] }),
      endpointSlice('y', { endpoints: [podEndpoint('b', '10.0.0.2')] }),
    ],
    endpoints: { b: ['10.0.0.2:50051'] },
  },
  {
    name: 'a port by its number, as it is',
    slices: [endpointSlice('x', { endpoints: [podEndpoint('a', '10.0.0.1')], ports: null })],
    port: '7000',
    endpoints: { a: ['10.0.0.1:7000'] },
  },
];

for (const { name, slices, port = 'grpc', endpoints, notReady = [] } of cases) {
  test(name, () => {
    const found = toEndpoints(slices, port);
    assert.deepEqual(Object.fromEntries(found.map(({ id, addresses }) => [id, addresses])), endpoints);
    assert.deepEqual(
      found.filter(({ ready }) => ready === false).map(({ id }) => id),
      notReady,
    );
    assert.equal(new Set(found.map(({ id }) => id)).size, found.length, 'no id is there twice');
    assert.deepEqual(toEndpoints(slices.toReversed(), port), found, 'the order of slices does not matter');
  });
}

test('says which ports there are when none has the name', () => {
  const ports = [
    { name: 'http', port: 80 },
    { name: '', port: 81 },
  ];
  const slices = [endpointSlice('x', { endpoints: [podEndpoint('a', '10.0.0.1')], ports })];
  assert.throws(() => toEndpoints(slices, 'grpc'), { message: 'no port is named "grpc", there is 81, http' });
  const none = [endpointSlice('x', { endpoints: [podEndpoint('a', '10.0.0.1')], ports: null })];
  assert.throws(() => toEndpoints(none, 'grpc'), { message: 'no port is named "grpc", there is none' });
});
