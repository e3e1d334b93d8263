import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Counter, Gauge, Registry } from 'prom-client';
import { createHistogram } from './histogram.ts';
import { acceptsOpenMetrics, writeOpenMetrics } from './openmetrics.ts';

describe('OpenMetrics', () => {
  it('is what Prometheus asks for, and nobody gets unasked', () => {
    const prometheus = 'application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1';
    assert.equal(acceptsOpenMetrics(prometheus), true);
    for (const accept of [undefined, '*/*', 'text/plain', 'text/html,application/xhtml+xml,*/*;q=0.8']) {
      assert.equal(acceptsOpenMetrics(accept), false, accept);
    }
  });

  it('has exemplars, counters by the name of their family, and leaves the other format as it was', async () => {
    const registry = new Registry();
    const registers = [registry];
    new Counter({ name: 'calls_total', help: 'Calls.', labelNames: ['a'], registers }).inc({ a: '"x"' }, 2);
    new Gauge({ name: 'open', help: 'Open.', registers, collect: () => {} }).set(1);
    const took = createHistogram(registry, {
      name: 'took_seconds',
      help: 'Took.',
      labelNames: ['b'],
      buckets: [1],
    });
    const observe = took({ b: 'y' });
    observe(0.25);
    observe(0.5, 'abc');
    const plain = await registry.metrics();
    const open = await writeOpenMetrics(registry);
    assert.equal(
      open.replace(/ \d{10}(\.\d+)?$/m, ' TIME'),
      [
        '# HELP calls Calls.',
        '# TYPE calls counter',
        'calls_total{a="\\"x\\""} 2',
        '# HELP open Open.',
        '# TYPE open gauge',
        'open 1',
        '# HELP took_seconds Took.',
        '# TYPE took_seconds histogram',
        'took_seconds_bucket{le="1",b="y"} 2 # {trace_id="abc"} 0.5 TIME',
        'took_seconds_bucket{le="+Inf",b="y"} 2',
        'took_seconds_sum{b="y"} 0.75',
        'took_seconds_count{b="y"} 2',
        '# EOF',
        '',
      ].join('\n'),
    );
    assert.equal(await registry.metrics(), plain);
    assert.match(plain, /^calls_total{a="\\"x\\""} 2$/m);
    assert.match(plain, /^took_seconds_bucket{le="1",b="y"} 2$/m);
  });
});
