import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CallStart } from '../../call/call.ts';
import { ScriptedConnection } from '../testing/scripted-connection.ts';
import { createLeastRequestPicker } from './least-request.ts';

const calls = 6_000;

function counts(inFlight: Record<string, number>, choiceCount = 2, avoid: readonly string[] = []): Map<string, number> {
  const connections = Object.entries(inFlight).map(([id, count]) => {
    const connection = new ScriptedConnection(id);
    connection.inFlight = count;
    return connection;
  });
  const pick = createLeastRequestPicker(connections, choiceCount);
  const found = new Map(connections.map(({ endpoint }) => [endpoint.id, 0]));
  for (let call = 0; call < calls; call++) {
    const picked = pick({ avoid } as unknown as CallStart);
    assert.ok(picked !== undefined && 'endpoint' in picked);
    found.set(picked.endpoint.id, (found.get(picked.endpoint.id) ?? 0) + 1);
  }
  return found;
}

test('never takes the busiest: it is always drawn beside another', () => {
  const { a, b, c } = Object.fromEntries(counts({ a: 9, b: 1, c: 1 }));
  assert.equal(a, 0);
  assert.ok(Math.abs((b ?? 0) - (c ?? 0)) < calls * 0.1);
});

test('spreads evenly over equally busy replicas', () => {
  for (const count of counts({ a: 2, b: 2, c: 2 }).values()) assert.ok(Math.abs(count - calls / 3) < calls * 0.05);
});

test('with as many choices as replicas takes the least busy of all', () => {
  assert.equal(counts({ a: 3, b: 2, c: 1 }, 10).get('c'), calls);
});

test('prefers replicas that the call has not used, however busy', () => {
  assert.equal(counts({ a: 0, b: 0, c: 9 }, 2, ['a', 'b']).get('c'), calls);
  assert.equal(counts({ a: 0 }, 2, ['a']).get('a'), calls);
});
