import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Registry } from 'prom-client';
import type { Method } from '../call/call.ts';
import { invokeUnary } from '../call/invoke.ts';
import { Code, localStatus } from '../call/status.ts';
import { createChannel } from './channel.ts';
import { createChannelMetrics } from './metrics.ts';
import { parseServiceConfig } from './service-config.ts';
import { replyHeaders, replyWith, startPeer } from './testing/http2-peer.ts';
import { until } from './testing/until.ts';

const greet: Method = {
  path: '/helloworld.Greeter/SayHello',
  requestStream: false,
  responseStream: false,
  idempotency: 'NO_SIDE_EFFECTS',
};

test('counts calls, attempts and endpoints, and forgets an endpoint that has gone', async (t) => {
  const failing = await startPeer(t, (stream) =>
    stream.respond({ ...replyHeaders, 'grpc-status': '14' }, { endStream: true }),
  );
  const serving = await startPeer(t, replyWith('hi'));
  const target = `ipv4:${failing.address},${serving.address}`;
  const registry = new Registry();
  const metrics = createChannelMetrics(registry);
  const channel = createChannel({
    target,
    onEvent: metrics.listener(target, 'greeter'),
    serviceConfig: parseServiceConfig({
      retryThrottling: { maxTokens: 10, tokenRatio: 0.1 },
      methodConfig: [
        {
          name: [{}],
          retryPolicy: {
            maxAttempts: 2,
            initialBackoff: '0.001s',
            maxBackoff: '0.001s',
            backoffMultiplier: 1,
            retryableStatusCodes: ['UNAVAILABLE'],
          },
        },
      ],
    }),
  });
  metrics.watch(channel, 'greeter');
  t.after(() => channel.close(0));
  channel.connect();
  await until(() => channel.snapshot().targets[0]?.endpoints.filter(({ state }) => state === 'READY').length === 2);
  for (let call = 0; call < 4; call++) await invokeUnary(channel, { method: greet }, Buffer.from('x'));

  const value = async (name: string, labels: Record<string, string>): Promise<number | undefined> => {
    const found = await registry.getSingleMetric(name)?.get();
    const values = (found?.values ?? []) as { value: number; labels: Record<string, string>; metricName?: string }[];
    return values.find(
      (candidate) =>
        Object.entries(labels).every(([key, wanted]) => candidate.labels[key] === wanted) &&
        (candidate.metricName ?? '_count').endsWith('_count'),
    )?.value;
  };
  const method = { grpc_method: 'helloworld.Greeter/SayHello', grpc_target: target };
  assert.equal(await value('grpc_client_attempt_started_total', { ...method, reason: 'first' }), 4);
  assert.equal(await value('grpc_client_attempt_started_total', { ...method, reason: 'retry' }), 2);
  assert.equal(await value('grpc_client_attempt_duration_seconds', { ...method, grpc_status: 'UNAVAILABLE' }), 2);
  assert.equal(await value('grpc_client_attempt_duration_seconds', { ...method, grpc_status: 'OK' }), 4);
  assert.equal(await value('grpc_client_call_duration_seconds', { ...method, grpc_status: 'OK' }), 4);
  assert.equal(await value('tandem_channel_endpoint_failures_total', { endpoint: failing.address }), 2);
  assert.equal(await value('tandem_channel_endpoint_attempts_total', { endpoint: serving.address }), 4);
  assert.equal(await value('tandem_channel_endpoints', { condition: 'ready' }), 2);
  assert.equal(await value('tandem_channel_active_priority', {}), 0);
  const tokens = await value('tandem_channel_retry_budget_tokens', {});
  assert.ok(tokens !== undefined && tokens > 8 && tokens < 9, `${tokens} tokens after two failures and four successes`);
  const text = await registry.metrics();
  const bytesOf = (direction: string, status: string) =>
    Number(
      new RegExp(
        `^grpc_client_attempt_${direction}_total_compressed_message_size_bytes_sum\\{.*grpc_status="${status}"\\} (\\d+)$`,
        'm',
      ).exec(text)?.[1],
    );
  assert.deepEqual([bytesOf('sent', 'OK'), bytesOf('rcvd', 'OK')], [4, 4 * 'hi'.length]);
  assert.deepEqual([bytesOf('sent', 'UNAVAILABLE'), bytesOf('rcvd', 'UNAVAILABLE')], [2, 0]);

  await channel.close(0);
  assert.equal(await value('tandem_channel_endpoint_attempts_total', { endpoint: serving.address }), undefined);
});

test('tells upstreams of one target apart', async (t) => {
  const serving = await startPeer(t, replyWith('hi'));
  const target = `ipv4:${serving.address}`;
  const registry = new Registry();
  const metrics = createChannelMetrics(registry);
  const open = (upstream: string) => {
    const channel = createChannel({ target, onEvent: metrics.listener(target, upstream) });
    metrics.watch(channel, upstream);
    t.after(() => channel.close(0));
    channel.connect();
    return channel;
  };
  const [busy, gone] = [open('busy'), open('gone')];
  for (const channel of [busy, busy, gone]) await invokeUnary(channel, { method: greet }, Buffer.from('x'));
  await gone.close(0);
  const byUpstream = async (name: string) =>
    Object.fromEntries(
      ((await registry.getSingleMetric(name)?.get())?.values ?? []).map(({ labels, value }) => [
        labels['upstream'],
        value,
      ]),
    );
  assert.deepEqual(await byUpstream('tandem_channel_endpoint_attempts_total'), { busy: 2 });
  assert.deepEqual(await byUpstream('grpc_client_attempt_started_total'), { busy: 2, gone: 1 });
  assert.deepEqual(await byUpstream('tandem_channel_waiting_calls'), { busy: 0, gone: 0 });
});

test('counts attempts that nobody saw, attempts that the budget withheld, and connections that broke', async () => {
  const registry = new Registry();
  const count = createChannelMetrics(registry).listener('ipv4:127.0.0.1:1', 'greeter');
  const before = await registry.metrics();
  assert.match(before, /^tandem_channel_connection_failures_total\{.*\} 0$/m, 'or else the first is no increase');
  assert.match(before, /^tandem_channel_ejections_total\{.*reason="success-rate".*\} 0$/m);
  const of = { type: 'attempt-ended', method: greet, endpointId: 'a', attempt: 0 } as const;
  const ended = { ...of, durationMs: 1, sentBytes: 0, receivedBytes: 0 };
  for (const seenByPeer of ['no', 'maybe', 'no'] as const) {
    const status = localStatus(Code.UNAVAILABLE, '', seenByPeer);
    count({ ...ended, status, lost: false, hadWholeTimeout: true });
  }
  count({ type: 'budget-exhausted', method: greet });
  for (const state of ['CONNECTING', 'TRANSIENT_FAILURE', 'READY', 'SHUTDOWN'] as const) {
    count({ type: 'connection', endpointId: 'a', state, lastError: '' });
  }
  const text = await registry.metrics();
  assert.match(text, /^tandem_channel_unseen_attempts_total\{.*\} 2$/m);
  assert.match(text, /^tandem_channel_budget_exhausted_total\{.*\} 1$/m);
  assert.match(text, /^tandem_channel_connection_failures_total\{.*\} 1$/m);
});
