/** What became of one call. */
export interface Outcome {
  /** `OK`, or what it failed with: `UNAVAILABLE`, `HTTP 503`, `ECONNREFUSED`. */
  readonly code: string;
  readonly servedBy?: string | undefined;
  /** It went out twice: its kept connection was closed before any answer. */
  readonly resent?: boolean;
}

/** The account of a load: every call that was sent is either ok or failed. */
export interface Ledger {
  readonly sent: number;
  readonly ok: number;
  readonly failed: number;
  /** How many went out twice. */
  readonly resent: number;
  /** Of the failed ones. */
  readonly codes: ReadonlyMap<string, number>;
  /** Of the ok ones, by replica. */
  readonly servedBy: ReadonlyMap<string, number>;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** What else the scenario measured; a name that ends in `Ms` is a duration, one that ends in `Percent` a share. */
  readonly figures?: Readonly<Record<string, number>>;
}

/** Keeps the account. */
export interface Bookkeeper {
  /** Counts a call as sent and returns what takes its outcome. */
  begin(): (outcome: Outcome) => void;
  readonly inFlight: number;
  /** Throws while a call is in flight. */
  close(): Ledger;
}

export function createBookkeeper(): Bookkeeper {
  const codes = new Map<string, number>();
  const servedBy = new Map<string, number>();
  const latenciesMs: number[] = [];
  let sent = 0;
  let ok = 0;
  let failed = 0;
  let resent = 0;

  return {
    begin() {
      const startedMs = performance.now();
      sent += 1;
      return (outcome) => {
        latenciesMs.push(performance.now() - startedMs);
        if (outcome.resent === true) resent += 1;
        if (outcome.code === 'OK') {
          ok += 1;
          count(servedBy, outcome.servedBy ?? 'unknown');
        } else {
          failed += 1;
          count(codes, outcome.code);
        }
      };
    },
    get inFlight() {
      return sent - ok - failed;
    },
    close() {
      if (sent !== ok + failed) throw new Error(`${sent - ok - failed} of ${sent} calls have no outcome`);
      latenciesMs.sort((a, b) => a - b);
      return {
        sent,
        ok,
        failed,
        resent,
        codes,
        servedBy,
        p50Ms: quantile(latenciesMs, 0.5),
        p99Ms: quantile(latenciesMs, 0.99),
      };
    },
  };
}

/** `sent 300 = ok 299 + failed 1 (UNAVAILABLE 1); a 100, b 100, c 99; p50 1.2 ms, p99 8.4 ms; first call 92 ms` */
export function formatLedger(ledger: Ledger): string {
  const { sent, ok, failed, resent, codes, servedBy, p50Ms, p99Ms, figures = {} } = ledger;
  return [
    `sent ${sent} = ok ${ok} + failed ${failed}${failed > 0 ? ` (${formatCounts(codes)})` : ''}`,
    ...(resent > 0 ? [`resent ${resent}`] : []),
    ...(ok > 0 ? [formatCounts(servedBy)] : []),
    `p50 ${p50Ms.toFixed(1)} ms, p99 ${p99Ms.toFixed(1)} ms`,
    ...Object.entries(figures).map(formatFigure),
  ].join('; ');
}

/** `firstCallMs` 92.4 is `first call 92 ms`; what is not finite never happened. */
function formatFigure([name, value]: [string, number]): string {
  const [, words = '', unit = ''] = /^(.*?)(Ms|Percent)?$/.exec(name) ?? [];
  const rounded = unit === 'Ms' ? Math.round(value) : Math.round(value * 100) / 100;
  const text = Number.isFinite(value) ? `${rounded}${units[unit] ?? ''}` : 'never';
  return `${words.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)} ${text}`;
}

const units: Readonly<Record<string, string>> = { Ms: ' ms', Percent: ' %' };

function formatCounts(counts: ReadonlyMap<string, number>): string {
  return [...counts]
    .toSorted(([a], [b]) => a.localeCompare(b))
    .map(([key, value]) => `${key} ${value}`)
    .join(', ');
}

function count(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

function quantile(sorted: readonly number[], q: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN;
}
