import { setTimeout as delay } from 'node:timers/promises';

const pollMs = 20;

/** Waits until `check` returns something true, and returns it. Throws, saying `what`, after `timeoutMs`. */
export async function eventually<T>(
  what: string | (() => string),
  check: () => T | Promise<T>,
  { timeoutMs = 10_000 }: { readonly timeoutMs?: number } = {},
): Promise<NonNullable<T>> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (performance.now() > deadlineMs)
      throw new Error(`${typeof what === 'string' ? what : what()}: not within ${timeoutMs} ms`);
    await delay(pollMs);
  }
}
