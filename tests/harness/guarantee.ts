import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { inspect } from 'node:util';
import { formatLedger, type Ledger } from './ledger.ts';

export interface Guarantee<V, L extends Ledger> {
  /** The one variable, as the product has it. */
  readonly on: V;
  /** The same variable without what is claimed to help. */
  readonly control: V;
  /** Runs the world with it and returns the account. */
  readonly scenario: (variable: V, t: TestContext) => Promise<L>;
  /** Whether enough happened for the account to say anything. Must be true of both. */
  readonly valid: (ledger: L) => boolean;
  /** What is claimed. Must be true with `on` and false with `control`. */
  readonly holds: (ledger: L) => boolean;
  /** Why it cannot be tested on this machine. */
  readonly skip?: string | false;
}

/**
 * A test of a claim that shows it can fail: the same scenario and the same predicate with one variable changed must not
 * hold. Both ledgers are printed, in the form that `guarantees-report.ts` reads.
 */
export function guarantee<V, L extends Ledger>(claim: string, options: Guarantee<V, L>): void {
  const { on, control, scenario, valid, holds, skip = false } = options;
  test(claim, { skip }, async (t) => {
    for (const [variable, expected] of [
      [on, true],
      [control, false],
    ] as const) {
      const name = `${expected ? 'on' : 'control'}: ${inspect(variable, { breakLength: Number.POSITIVE_INFINITY })}`;
      await t.test(name, async (t) => {
        const ledger = await scenario(variable, t);
        t.diagnostic(`${name}: ${formatLedger(ledger)}`);
        assert.ok(valid(ledger), `the account says nothing: ${formatLedger(ledger)}`);
        assert.equal(holds(ledger), expected, formatLedger(ledger));
      });
    }
  });
}
