import type { Connection, Picker } from '../../call/call.ts';

/**
 * Takes, of a few connections drawn at random, the one with the fewest calls in flight (gRFC A48). Unlike there the
 * draws are distinct: with replacement a slow replica of three would still get every ninth call, drawn against itself.
 */
export function createLeastRequestPicker(connections: readonly Connection[], choiceCount: number): Picker {
  const pool = [...connections];
  return ({ avoid }) => {
    let best: Connection | undefined;
    const choices = Math.min(choiceCount, pool.length);
    for (let drawn = 0; drawn < choices; drawn++) {
      // A partial shuffle: what was drawn comes to the front and is not drawn again.
      const index = drawn + Math.floor(Math.random() * (pool.length - drawn));
      const candidate = pool[index] as Connection;
      pool[index] = pool[drawn] as Connection;
      pool[drawn] = candidate;
      if (best === undefined || isBetter(candidate, best, avoid)) best = candidate;
    }
    if (best === undefined || !avoid.includes(best.endpoint.id)) return best;
    return pool.find(({ endpoint }) => !avoid.includes(endpoint.id)) ?? best;
  };
}

function isBetter(candidate: Connection, best: Connection, avoid: readonly string[]): boolean {
  if (avoid.length > 0) {
    const avoided = avoid.includes(candidate.endpoint.id);
    if (avoided !== avoid.includes(best.endpoint.id)) return !avoided;
  }
  return candidate.inFlight < best.inFlight;
}
