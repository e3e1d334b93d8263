import type { Endpoint, Resolver } from '../../call/call.ts';

/** Gives a list that never changes. */
export function createStaticResolver(endpoints: readonly Endpoint[]): Resolver {
  let stopped = false;
  return {
    start(onEndpoints) {
      queueMicrotask(() => {
        if (!stopped) onEndpoints(endpoints);
      });
    },
    stop() {
      stopped = true;
    },
  };
}
