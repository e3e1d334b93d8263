import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Method } from '../call/call.ts';
import { Code } from '../call/status.ts';
import { ConfigError } from '../process/config.ts';
import { methodConfig, parseServiceConfig } from './service-config.ts';

const retryPolicy = {
  maxAttempts: 3,
  initialBackoff: '0.05s',
  maxBackoff: '0.5s',
  backoffMultiplier: 2,
  retryableStatusCodes: ['UNAVAILABLE'],
};

function method(path: Method['path'], idempotency: Method['idempotency'] = 'NO_SIDE_EFFECTS'): Method {
  return { path, requestStream: false, responseStream: false, idempotency };
}

test('reads every field', () => {
  const config = parseServiceConfig({
    loadBalancingConfig: [{ round_robin: {} }],
    healthCheckConfig: { serviceName: 'helloworld.Greeter' },
    methodConfig: [
      {
        name: [{ service: 'a.B', method: 'C' }],
        timeout: '1.5s',
        waitForReady: true,
        retryPolicy: { ...retryPolicy, retryableStatusCodes: ['UNAVAILABLE', 10], perAttemptRecvTimeout: '0.000001s' },
      },
    ],
  });
  assert.deepEqual(config.loadBalancing, { policy: 'round_robin' });
  assert.equal(config.healthCheckServiceName, 'helloworld.Greeter');
  assert.deepEqual(methodConfig(config, method('/a.B/C')), {
    timeoutMs: 1_500,
    waitForReady: true,
    hedgingPolicy: undefined,
    retryPolicy: {
      maxAttempts: 3,
      initialBackoffMs: 50,
      maxBackoffMs: 500,
      backoffMultiplier: 2,
      retryableCodes: new Set([Code.UNAVAILABLE, Code.ABORTED]),
      perAttemptRecvTimeoutMs: 0.001,
    },
  });
});

test('reads hedging, throttling, least request and outlier detection, with their defaults', () => {
  const config = parseServiceConfig({
    loadBalancingConfig: [
      {
        outlier_detection: {
          interval: '1s',
          failurePercentageEjection: { threshold: 50 },
          childPolicy: [{ least_request_experimental: {} }],
        },
      },
    ],
    retryThrottling: { maxTokens: 100, tokenRatio: 0.1 },
    methodConfig: [
      {
        name: [{}],
        hedgingPolicy: { maxAttempts: 2, hedgingDelay: '0.1s', nonFatalStatusCodes: ['UNAVAILABLE'] },
      },
    ],
  });
  assert.deepEqual(config.loadBalancing, { policy: 'least_request_experimental', choiceCount: 2 });
  assert.deepEqual(config.outlierDetection, {
    intervalMs: 1_000,
    baseEjectionTimeMs: 30_000,
    maxEjectionTimeMs: 300_000,
    maxEjectionPercent: 10,
    successRateEjection: undefined,
    failurePercentageEjection: { threshold: 50, enforcementPercentage: 100, minimumHosts: 5, requestVolume: 50 },
  });
  assert.deepEqual(config.retryThrottling, { maxTokens: 100, tokenRatio: 0.1 });
  assert.deepEqual(methodConfig(config, method('/a.B/C')).hedgingPolicy, {
    maxAttempts: 2,
    hedgingDelayMs: 100,
    nonFatalCodes: new Set([Code.UNAVAILABLE]),
  });
  assert.equal(methodConfig(config, method('/a.B/CreateOrder', 'UNKNOWN')).hedgingPolicy, undefined);
});

test('takes the most specific name', () => {
  const config = parseServiceConfig({
    methodConfig: [
      { name: [{}], timeout: '1s' },
      { name: [{ service: 'a.B' }], timeout: '2s' },
      { name: [{ service: 'a.B', method: 'C' }], timeout: '3s' },
    ],
  });
  assert.equal(methodConfig(config, method('/a.B/C')).timeoutMs, 3_000);
  assert.equal(methodConfig(config, method('/a.B/D')).timeoutMs, 2_000);
  assert.equal(methodConfig(config, method('/x.Y/Z')).timeoutMs, 1_000);
});

test('applies a default retry policy only to methods that may run twice', () => {
  const config = parseServiceConfig({ methodConfig: [{ name: [{}, { service: 'named.Service' }], retryPolicy }] });
  assert.notEqual(methodConfig(config, method('/a.B/C', 'NO_SIDE_EFFECTS')).retryPolicy, undefined);
  assert.notEqual(methodConfig(config, method('/a.B/C', 'IDEMPOTENT')).retryPolicy, undefined);
  assert.equal(methodConfig(config, method('/a.B/CreateOrder', 'UNKNOWN')).retryPolicy, undefined);
  assert.notEqual(methodConfig(config, method('/named.Service/Any', 'UNKNOWN')).retryPolicy, undefined);
});

const mistakes: [what: string, json: unknown, problems: string[]][] = [
  ['text', 'x', ['the service config "x" must be an object']],
  ['a list', [], ['the service config [] must be an object']],
  [
    'unknown fields',
    { retryThrotling: {}, methodConfigs: [] },
    ['retryThrotling is not a field of the service config', 'methodConfigs is not a field of the service config'],
  ],
  [
    'objects for lists',
    { methodConfig: {}, loadBalancingConfig: {} },
    ['methodConfig {} must be a list', 'loadBalancingConfig {} must be a list'],
  ],
  [
    'an unknown policy',
    { loadBalancingConfig: [{ ring_hash: {} }] },
    ['loadBalancingConfig[0].ring_hash is not a field of the service config'],
  ],
  ['no policy', { loadBalancingConfig: [] }, ['loadBalancingConfig [] must name exactly one policy']],
  [
    'two policies',
    { loadBalancingConfig: [{ round_robin: {} }, { round_robin: {} }] },
    ['loadBalancingConfig [{"round_robin":{}},{"round_robin":{}}] must name exactly one policy'],
  ],
  [
    'durations that are none',
    {
      methodConfig: [
        { name: [{}], timeout: '5' },
        { name: [{ service: 'a' }], timeout: 5 },
        { name: [{ service: 'b' }], timeout: '0s' },
      ],
    },
    [
      'methodConfig[0].timeout "5" must be a duration such as "0.5s"',
      'methodConfig[1].timeout 5 must be a duration such as "0.5s"',
      'methodConfig[2].timeout "0s" must be greater than 0s',
    ],
  ],
  [
    'values out of range, and a missing one',
    { methodConfig: [{ name: [{}], retryPolicy: { ...retryPolicy, maxAttempts: 9, maxBackoff: undefined } }] },
    ['methodConfig[0].retryPolicy.maxAttempts 9 must be <= 5', 'methodConfig[0].retryPolicy.maxBackoff is missing'],
  ],
  [
    'codes that are none or OK',
    {
      methodConfig: [{ name: [{}], retryPolicy: { ...retryPolicy, retryableStatusCodes: ['unavailable', 'OK', 99] } }],
    },
    [
      'methodConfig[0].retryPolicy.retryableStatusCodes[0] "unavailable" must be a status code such as "UNAVAILABLE"',
      'methodConfig[0].retryPolicy.retryableStatusCodes[1] "OK" must be a status code other than OK',
      'methodConfig[0].retryPolicy.retryableStatusCodes[2] 99 must be a status code other than OK',
    ],
  ],
  [
    'retries beside hedging',
    { methodConfig: [{ name: [{}], retryPolicy, hedgingPolicy: { maxAttempts: 2 } }] },
    ['methodConfig[0].hedgingPolicy {"maxAttempts":2} must not stand beside a retryPolicy'],
  ],
  [
    'mistakes inside a policy',
    { loadBalancingConfig: [{ outlier_detection: { maxEjectionPercent: 101, childPolicy: [{}], interva1: '1s' } }] },
    [
      'loadBalancingConfig[0].outlier_detection.maxEjectionPercent 101 must be <= 100',
      'loadBalancingConfig[0].outlier_detection.childPolicy[0] {} must name exactly one policy',
      'loadBalancingConfig[0].outlier_detection.interva1 is not a field of the service config',
    ],
  ],
  [
    'a method without its service',
    { methodConfig: [{ name: [{ method: 'C' }] }] },
    ['methodConfig[0].name[0] {"method":"C"} must name a service where it names a method'],
  ],
  [
    'a name given twice',
    { methodConfig: [{ name: [{ service: 'a' }] }, { name: [{ service: 'a' }] }] },
    ['methodConfig[1].name[0] {"service":"a"} must not be named twice'],
  ],
];

for (const [what, json, problems] of mistakes) {
  test(`refuses ${what}`, () => {
    assert.throws(
      () => parseServiceConfig(json),
      (error) => {
        assert.ok(error instanceof ConfigError);
        assert.deepEqual([...error.problems].sort(), [...problems].sort());
        return true;
      },
    );
  });
}
