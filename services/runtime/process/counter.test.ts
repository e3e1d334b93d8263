import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Counter, Registry } from 'prom-client';
import { createCounter } from './counter.ts';

const options = { name: 'calls_total', help: 'Calls.', labelNames: ['method', 'code'] as const };

describe('counter', () => {
  for (const contentType of [Registry.PROMETHEUS_CONTENT_TYPE, Registry.OPENMETRICS_CONTENT_TYPE] as const) {
    it(`writes what prom-client's own would, as ${contentType}`, async () => {
      const registry = new Registry();
      const reference = new Registry();
      registry.setContentType(contentType as typeof Registry.PROMETHEUS_CONTENT_TYPE);
      reference.setContentType(contentType as typeof Registry.PROMETHEUS_CONTENT_TYPE);
      const calls = createCounter(registry, options);
      const expected = new Counter({ ...options, labelNames: [...options.labelNames], registers: [reference] });
      assert.equal(await registry.metrics(), await reference.metrics());
      for (const [method, code, count] of [
        ['GET', '200', 3],
        ['GET', '500', 0],
        ['P"\\\n', '200', 1],
      ] as const) {
        calls.of({ method, code }).value += count;
        expected.inc({ method, code }, count);
      }
      assert.equal(await registry.metrics(), await reference.metrics());
      calls.remove({ code: '200', method: 'GET' });
      expected.remove({ code: '200', method: 'GET' });
      assert.equal(await registry.metrics(), await reference.metrics());
    });
  }

  it('counts in one place whatever has equal labels', () => {
    const calls = createCounter(new Registry(), options);
    calls.of({ method: 'GET', code: '200' }).value++;
    calls.of({ code: '200', method: 'GET' }).value++;
    assert.deepEqual([...calls.series()], [{ labels: { method: 'GET', code: '200' }, value: 2 }]);
  });
});
