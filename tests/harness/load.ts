import { setTimeout as delay } from 'node:timers/promises';
import { createBookkeeper, type Ledger, type Outcome } from './ledger.ts';

/** Makes one call. It tells a failure as an outcome; a rejection is one too. */
export type Send = () => Promise<Outcome>;

/** Makes calls one after another. */
export async function sendInTurn(send: Send, calls: number): Promise<Ledger> {
  const books = createBookkeeper();
  for (let call = 0; call < calls; call += 1) books.begin()(await outcomeOf(send));
  return books.close();
}

export interface Load {
  /** Sends nothing more, waits for what is in flight and closes the account. */
  stop(): Promise<Ledger>;
}

export interface LoadOptions {
  readonly callsPerS: number;
  /** After so long it sends no more. Defaults to 60 s. */
  readonly maxMs?: number;
  /** It holds back while so many are in flight. Defaults to 200. */
  readonly maxInFlight?: number;
}

const tickMs = 5;

/** Makes calls at a steady rate, however long they take, until it is stopped. */
export function startLoad(send: Send, { callsPerS, maxMs = 60_000, maxInFlight = 200 }: LoadOptions): Load {
  const books = createBookkeeper();
  const startedMs = performance.now();
  const pending = new Set<Promise<void>>();
  let sent = 0;
  let stopped = false;

  async function call(): Promise<void> {
    books.begin()(await outcomeOf(send));
  }

  async function run(): Promise<void> {
    while (!stopped) {
      const elapsedMs = performance.now() - startedMs;
      if (elapsedMs > maxMs) return;
      for (; sent < (elapsedMs * callsPerS) / 1000 && books.inFlight < maxInFlight; sent += 1) {
        const made = call().finally(() => pending.delete(made));
        pending.add(made);
      }
      await delay(tickMs);
    }
  }

  const running = run();
  return {
    async stop() {
      stopped = true;
      await running;
      await Promise.all(pending);
      return books.close();
    },
  };
}

async function outcomeOf(send: Send): Promise<Outcome> {
  try {
    return await send();
  } catch (error) {
    return { code: error instanceof Error ? error.message : String(error) };
  }
}
