/**
 * By how much the numbers of picks of two endpoints differ at most, over every pair of endpoints and every window of the
 * sequence.
 */
export function widestDifference(picks: readonly string[], endpoints: readonly string[]): number {
  let widest = 0;
  for (const [index, one] of endpoints.entries()) {
    for (const other of endpoints.slice(index + 1)) {
      // Over a window it is the running difference at its end less that at its begin.
      let running = 0;
      let lowest = 0;
      let highest = 0;
      for (const pick of picks) {
        if (pick === one) running += 1;
        else if (pick === other) running -= 1;
        lowest = Math.min(lowest, running);
        highest = Math.max(highest, running);
      }
      widest = Math.max(widest, highest - lowest);
    }
  }
  return widest;
}
