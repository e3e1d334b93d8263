import assert from 'node:assert/strict';

const deadlineMs = 5_000;

/** Polls until the condition holds; fails after 5 s. */
export async function until(condition: () => boolean): Promise<void> {
  const giveUpMs = performance.now() + deadlineMs;
  while (!condition()) {
    assert.ok(performance.now() < giveUpMs, `not within ${deadlineMs} ms: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Waits until a figure has stood still for 100 ms. */
export async function settled(figure: () => number): Promise<void> {
  let last = figure();
  let sinceMs = performance.now();
  await until(() => {
    if (figure() !== last) {
      last = figure();
      sinceMs = performance.now();
    }
    return performance.now() - sinceMs > 100;
  });
}
