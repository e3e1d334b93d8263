import { Code } from '../call/status.ts';
import type { ChannelEvent, EjectionReason } from './events.ts';
import type { OutlierDetectionConfig } from './service-config.ts';

/** Transport failures or expired attempts in a row after which an endpoint is taken out. */
const maxConsecutiveFailures = 3;
const firstTrialBackoffMs = 1_000;
const maxTrialBackoffMs = 30_000;

type AttemptEnded = Extract<ChannelEvent, { type: 'attempt-ended' }>;

export interface OutlierDetectorOptions {
  /** `undefined` leaves only the rule of consecutive failures. */
  readonly config: OutlierDetectionConfig | undefined;
  /** Ids of the endpoints that can take calls, the ejected ones among them. */
  readonly serving: () => readonly string[];
  /** Asks an ejected endpoint for any answer at all, so that no caller's request has to be the trial. */
  readonly trial: (endpointId: string) => Promise<boolean>;
  readonly onEjected: (endpointId: string, reason: EjectionReason) => void;
  readonly onReturned: (endpointId: string) => void;
}

/** Takes endpoints that fail out of the pick, and lets them come back. */
export interface OutlierDetector {
  ejection(endpointId: string): EjectionReason | undefined;
  attemptEnded(event: AttemptEnded): void;
  /** The endpoint has gone, or its connection was lost: what was known of it says nothing any more. */
  forget(endpointId: string): void;
  stop(): void;
}

interface Subject {
  readonly id: string;
  consecutiveFailures: number;
  /** Since the last comparison. */
  successes: number;
  failures: number;
  ejection: EjectionReason | undefined;
  /** How often it was ejected, less the comparisons that it has passed since. */
  ejections: number;
  returnsAtMs: number;
  /** When it came back: what was sent before that says nothing of it any more. */
  backAtMs: number;
  trialBackoffMs: number;
  timer: NodeJS.Timeout | undefined;
}

/**
 * Two rules. Passive health: three transport failures or expired attempts in a row take an endpoint out at once, and
 * one answer to a trial brings it back, with backoff. Outlier detection (gRFC A50): endpoints whose calls fail clearly
 * more often than those of their peers are out for a time. Only failures that a replica can be blamed for count: no
 * INVALID_ARGUMENT, no deadline that the caller made too short. The last endpoint is never taken out.
 */
export function createOutlierDetector(options: OutlierDetectorOptions): OutlierDetector {
  const { config, serving, trial, onEjected, onReturned } = options;
  const subjects = new Map<string, Subject>();
  const comparison = config === undefined ? undefined : setInterval(compare, config.intervalMs);
  comparison?.unref();

  function subjectOf(id: string): Subject {
    let subject = subjects.get(id);
    if (subject === undefined) {
      subject = {
        id,
        consecutiveFailures: 0,
        successes: 0,
        failures: 0,
        ejection: undefined,
        ejections: 0,
        returnsAtMs: 0,
        backAtMs: Number.NEGATIVE_INFINITY,
        trialBackoffMs: firstTrialBackoffMs,
        timer: undefined,
      };
      subjects.set(id, subject);
    }
    return subject;
  }

  /** Endpoints in the pick, without those that are out. */
  function remaining(): number {
    return serving().filter((id) => subjects.get(id)?.ejection === undefined).length;
  }

  function eject(subject: Subject, reason: EjectionReason): void {
    subject.ejection = reason;
    subject.consecutiveFailures = 0;
    onEjected(subject.id, reason);
  }

  function bringBack(subject: Subject): void {
    clearTimeout(subject.timer);
    subject.ejection = undefined;
    subject.consecutiveFailures = 0;
    subject.backAtMs = performance.now();
    // It was out for them: at the next comparison they would take it out again, well as it may be.
    subject.successes = 0;
    subject.failures = 0;
    onReturned(subject.id);
  }

  function scheduleTrial(subject: Subject): void {
    subject.timer = setTimeout(
      async () => {
        const answered = await trial(subject.id);
        if (subjects.get(subject.id) !== subject || subject.ejection !== 'consecutive-failures') return;
        if (answered) return bringBack(subject);
        scheduleTrial(subject);
      },
      subject.trialBackoffMs * (0.8 + 0.4 * Math.random()),
    );
    subject.timer.unref();
    subject.trialBackoffMs = Math.min(subject.trialBackoffMs * 2, maxTrialBackoffMs);
  }

  function compare(): void {
    if (config === undefined) return;
    const nowMs = performance.now();
    const known = serving();
    const samples = known.map((id) => {
      const { successes, failures } = subjects.get(id) ?? { successes: 0, failures: 0 };
      return { id, calls: successes + failures, failures };
    });
    const maxOut = Math.max(1, Math.floor((known.length * config.maxEjectionPercent) / 100));
    for (const { id, reason } of outliers(config, samples)) {
      const subject = subjectOf(id);
      if (subject.ejection !== undefined) continue;
      const remain = remaining();
      if (remain <= 1 || known.length - remain >= maxOut) break;
      subject.ejections++;
      const longestMs = Math.max(config.baseEjectionTimeMs, config.maxEjectionTimeMs);
      subject.returnsAtMs = nowMs + Math.min(config.baseEjectionTimeMs * subject.ejections, longestMs);
      eject(subject, reason);
    }
    for (const subject of subjects.values()) {
      subject.successes = 0;
      subject.failures = 0;
      const timed = subject.ejection !== undefined && subject.ejection !== 'consecutive-failures';
      if (timed && subject.returnsAtMs <= nowMs) bringBack(subject);
      if (subject.ejection === undefined && subject.ejections > 0) subject.ejections--;
    }
  }

  return {
    ejection: (endpointId) => subjects.get(endpointId)?.ejection,
    attemptEnded(event) {
      const outcome = outcomeOf(event);
      if (outcome === 'neither') return;
      const subject = subjectOf(event.endpointId);
      if (performance.now() - event.durationMs < subject.backAtMs) return;
      if (outcome === 'success' || outcome === 'error') subject.consecutiveFailures = 0;
      else subject.consecutiveFailures++;
      if (outcome === 'success') {
        subject.successes++;
        subject.trialBackoffMs = firstTrialBackoffMs;
      } else {
        subject.failures++;
      }
      const failing = subject.ejection === undefined && subject.consecutiveFailures >= maxConsecutiveFailures;
      if (!failing || remaining() <= 1) return;
      eject(subject, 'consecutive-failures');
      scheduleTrial(subject);
    },
    forget(endpointId) {
      const subject = subjects.get(endpointId);
      if (subject === undefined) return;
      subjects.delete(endpointId);
      clearTimeout(subject.timer);
      if (subject.ejection !== undefined) onReturned(endpointId);
    },
    stop() {
      clearInterval(comparison);
      for (const { timer } of subjects.values()) clearTimeout(timer);
    },
  };
}

/** Codes that say something of the replica rather than of the request. */
const blamedCodes = new Set<number>([
  Code.UNAVAILABLE,
  Code.DEADLINE_EXCEEDED,
  Code.INTERNAL,
  Code.UNKNOWN,
  Code.DATA_LOSS,
]);

/** `silence`: no answer came, for which a replica is taken out sooner than for an `error` that it sent. */
function outcomeOf({ status, lost, hadWholeTimeout }: AttemptEnded): 'success' | 'error' | 'silence' | 'neither' {
  if (lost || status.seenByPeer === 'no') return 'neither';
  if (status.code === Code.DEADLINE_EXCEEDED && !hadWholeTimeout) return 'neither';
  if (status.from === 'local') {
    return status.code === Code.UNAVAILABLE || status.code === Code.DEADLINE_EXCEEDED ? 'silence' : 'neither';
  }
  return blamedCodes.has(status.code) ? 'error' : 'success';
}

export interface Sample {
  readonly id: string;
  readonly calls: number;
  readonly failures: number;
}

/** The endpoints that gRFC A50's two algorithms find, less those that are not clearly worse than their peers. */
export function outliers(
  config: Pick<OutlierDetectionConfig, 'successRateEjection' | 'failurePercentageEjection'>,
  samples: readonly Sample[],
): { readonly id: string; readonly reason: EjectionReason }[] {
  const found = new Map<string, EjectionReason>();
  const bySuccessRate = config.successRateEjection;
  if (bySuccessRate !== undefined) {
    const judged = samples.filter(({ calls }) => calls >= bySuccessRate.requestVolume);
    const rates = judged.map(({ calls, failures }) => 1 - failures / calls);
    const mean = rates.reduce((sum, rate) => sum + rate, 0) / rates.length;
    const variance = rates.reduce((sum, rate) => sum + (rate - mean) ** 2, 0) / rates.length;
    const threshold = mean - Math.sqrt(variance) * (bySuccessRate.stdevFactor / 1_000);
    for (const [index, sample] of judged.entries()) {
      if (judged.length < bySuccessRate.minimumHosts || (rates[index] ?? 1) >= threshold) continue;
      if (isEnforced(bySuccessRate) && isClearlyWorse(sample, judged)) found.set(sample.id, 'success-rate');
    }
  }
  const byFailures = config.failurePercentageEjection;
  if (byFailures !== undefined) {
    const judged = samples.filter(({ calls }) => calls >= byFailures.requestVolume);
    for (const sample of judged) {
      if (judged.length < byFailures.minimumHosts || (sample.failures * 100) / sample.calls <= byFailures.threshold)
        continue;
      if (isEnforced(byFailures) && isClearlyWorse(sample, judged)) found.set(sample.id, 'failure-percentage');
    }
  }
  return [...found].map(([id, reason]) => ({ id, reason }));
}

function isEnforced({ enforcementPercentage }: { readonly enforcementPercentage: number }): boolean {
  return Math.random() * 100 < enforcementPercentage;
}

/** Fails at least twice as often as the others do: a request that no replica can answer makes none of them an outlier. */
function isClearlyWorse(sample: Sample, judged: readonly Sample[]): boolean {
  let calls = 0;
  let failures = 0;
  for (const other of judged) {
    if (other.id === sample.id) continue;
    calls += other.calls;
    failures += other.failures;
  }
  return calls > 0 && sample.failures / sample.calls >= (2 * failures) / calls;
}
