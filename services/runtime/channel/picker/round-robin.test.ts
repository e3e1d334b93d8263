import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CallStart, Connection } from '../../call/call.ts';
import { ScriptedConnection } from '../testing/scripted-connection.ts';
import { createRoundRobinPicker } from './round-robin.ts';

function picksOf(connections: readonly Connection[]): (avoid?: readonly string[]) => string {
  const pick = createRoundRobinPicker(connections);
  return (avoid = []) => {
    const picked = pick({ avoid } as unknown as CallStart);
    assert.ok(picked !== undefined && 'endpoint' in picked);
    return picked.endpoint.id;
  };
}

const three = ['a', 'b', 'c'].map((id) => new ScriptedConnection(id));

test('takes each in turn: any two counts differ by at most one in any window', () => {
  const pick = picksOf(three);
  const picks = Array.from({ length: 30 }, () => pick());
  for (let from = 0; from < picks.length; from++) {
    for (let to = from + 1; to <= picks.length; to++) {
      const counts = three.map(({ endpoint }) => picks.slice(from, to).filter((id) => id === endpoint.id).length);
      assert.ok(Math.max(...counts) - Math.min(...counts) <= 1);
    }
  }
});

test('gives a further attempt a replica that the call has not used, and leaves the turn of first attempts alone', () => {
  const pick = picksOf(three);
  const firsts: string[] = [];
  for (let call = 0; call < 30; call++) {
    const first = pick();
    firsts.push(first);
    const second = pick([first]);
    assert.notEqual(second, first);
    assert.equal(new Set([first, second, pick([first, second])]).size, 3);
  }
  for (const { endpoint } of three) assert.equal(firsts.filter((id) => id === endpoint.id).length, 10);
});

test('spreads further attempts over all that are left', () => {
  const pick = picksOf(three);
  const again = Array.from({ length: 20 }, () => pick(['a']));
  assert.deepEqual([...new Set(again)].sort(), ['b', 'c']);
  assert.equal(again.filter((id) => id === 'b').length, 10);
});

test('takes a used replica again when there is no other', () => {
  const pick = picksOf(three.slice(0, 1));
  assert.equal(pick(['a']), 'a');
});

test('does not begin with the same replica in every client', () => {
  const firsts = new Set(Array.from({ length: 100 }, () => picksOf(three)()));
  assert.equal(firsts.size, 3);
});
