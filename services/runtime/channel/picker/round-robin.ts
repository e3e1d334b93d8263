import type { Connection, Picker } from '../../call/call.ts';

/**
 * Takes the connections in turn, from a random one on, so that many clients do not begin with the same replica. Attempts
 * after the first have a turn of their own: they leave the even spread of first attempts alone, and prefer a replica
 * that the call has not used.
 */
export function createRoundRobinPicker(connections: readonly Connection[]): Picker {
  const { length } = connections;
  let nextFirst = Math.floor(Math.random() * length);
  let nextAgain = nextFirst;
  return ({ avoid }) => {
    if (avoid.length === 0) {
      const picked = connections[nextFirst];
      nextFirst = (nextFirst + 1) % length;
      return picked;
    }
    for (let tried = 0; tried < length; tried++) {
      const candidate = connections[(nextAgain + tried) % length];
      if (candidate === undefined || avoid.includes(candidate.endpoint.id)) continue;
      nextAgain = (nextAgain + tried + 1) % length;
      return candidate;
    }
    const picked = connections[nextAgain];
    nextAgain = (nextAgain + 1) % length;
    return picked;
  };
}
