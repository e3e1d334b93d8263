import type { RetryThrottling } from './service-config.ts';

/** What retries and hedges of a channel share, so that an outage is not multiplied (gRFC A6, retry throttling). */
export interface Budget {
  /** Whether a further attempt may be made: more than half of the tokens are left. */
  readonly allows: boolean;
  /** 0 … `maxTokens`; `Infinity` without a limit. */
  readonly tokens: number;
  succeeded(): void;
  failed(): void;
}

export function createBudget(throttling: RetryThrottling | undefined): Budget {
  if (throttling === undefined) {
    return { allows: true, tokens: Number.POSITIVE_INFINITY, succeeded: () => {}, failed: () => {} };
  }
  const { maxTokens, tokenRatio } = throttling;
  let tokens = maxTokens;
  return {
    get allows() {
      return tokens > maxTokens / 2;
    },
    get tokens() {
      return tokens;
    },
    succeeded() {
      tokens = Math.min(maxTokens, tokens + tokenRatio);
    },
    failed() {
      tokens = Math.max(0, tokens - 1);
    },
  };
}
