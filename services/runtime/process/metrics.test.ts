import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { register } from 'prom-client';
import project from '../../../package.json' with { type: 'json' };
import { createMetrics } from './metrics.ts';

describe('createMetrics', () => {
  it('says what is running and how the process is', async () => {
    const text = await createMetrics({ service: 'greeter', configHash: 'abc' }).metrics();
    const info = `tandem_build_info{service="greeter",version="${project.version}",node_version="${process.versions.node}"} 1`;
    assert.ok(text.split('\n').includes(info), text);
    assert.match(text, /^tandem_config_info{hash="abc"} 1$/m);
    assert.match(text, /^process_resident_memory_bytes \d+$/m);
    assert.match(text, /^nodejs_eventloop_lag_p99_seconds /m);
  });

  it('is written as Prometheus reads it', () => {
    assert.match(createMetrics({ service: 'greeter', configHash: 'abc' }).contentType, /^text\/plain; version=0\.0\.4/);
  });

  it('gives each caller a registry of its own and leaves the global one empty', async () => {
    createMetrics({ service: 'a', configHash: 'abc' });
    const text = await createMetrics({ service: 'b', configHash: 'abc' }).metrics();
    assert.doesNotMatch(text, /service="a"/);
    assert.deepEqual(register.getMetricsAsArray(), []);
  });
});
