import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Histogram, Registry } from 'prom-client';
import { createHistogram } from './histogram.ts';

const options = { name: 'took_seconds', help: 'Took.', labelNames: ['method', 'code'] as const, buckets: [0.1, 1, 10] };

describe('histogram', () => {
  it("writes what prom-client's own would", async () => {
    const [registry, reference] = [new Registry(), new Registry()];
    const took = createHistogram(registry, options);
    const expected = new Histogram({ ...options, labelNames: [...options.labelNames], registers: [reference] });
    assert.equal(await registry.metrics(), await reference.metrics());
    for (const [method, code, ...durations] of [
      ['GET', 200, 0, 0.1, 0.100001, 1, 10, 11],
      ['GET', 500, 1e-9, 3600],
      ['P"\\\n', 200, 0.5],
    ] as const) {
      for (const seconds of durations) {
        took({ method, code })(seconds);
        expected.observe({ method, code }, seconds);
      }
    }
    assert.equal(await registry.metrics(), await reference.metrics());
  });

  it('counts in one place whatever is observed with equal labels', async () => {
    const registry = new Registry();
    const took = createHistogram(registry, options);
    const [one, other] = [took({ method: 'GET', code: 200 }), took({ code: 200, method: 'GET' })];
    one(0.5);
    other(0.5);
    assert.match(await registry.metrics(), /^took_seconds_count{method="GET",code="200"} 2$/m);
  });

  it('refuses a name that is taken', () => {
    const registry = new Registry();
    createHistogram(registry, options);
    assert.throws(() => createHistogram(registry, options), /already been registered/);
  });
});
