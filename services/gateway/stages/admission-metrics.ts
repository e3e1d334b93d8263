import { Counter, Gauge, type Registry } from 'prom-client';
import { type Admission, type AdmissionSnapshot, type Priority, type ShedReason, shedReasons } from './admit.ts';

/** The metrics of admission, shared by the upstreams. */
export interface AdmissionMetrics {
  /** What counts the calls that are shed before that upstream. */
  onShed(upstream: string): (reason: ShedReason, priority: Priority) => void;
  /** How the admission stands, looked at whenever the metrics are read. */
  watch(admission: Admission, upstream: string): void;
}

/** Registers `tandem_admission_*`. */
export function createAdmissionMetrics(registry: Registry): AdmissionMetrics {
  const watched = new Map<string, Admission>();
  const shed = new Counter({
    name: 'tandem_admission_shed_total',
    help: 'Calls that were not let in, by why',
    labelNames: ['upstream', 'reason', 'priority'],
    registers: [registry],
  });
  const gauge = (
    name: string,
    help: string,
    labels: readonly string[],
    read: (snapshot: AdmissionSnapshot, set: (value: number, labels?: Record<string, string>) => void) => void,
  ) =>
    new Gauge({
      name: `tandem_admission_${name}`,
      help,
      labelNames: ['upstream', ...labels],
      registers: [registry],
      collect() {
        for (const [upstream, admission] of watched) {
          read(admission.snapshot(), (value, more) => this.set({ upstream, ...more }, value));
        }
      },
    });
  gauge('limit', 'Calls that may be in flight at a time, as learned', [], ({ limit }, set) => set(limit));
  gauge('in_flight', 'Calls that were let in and have not ended', [], ({ inFlight }, set) => set(inFlight));
  gauge('queued', 'Calls that wait to be let in', ['priority'], ({ queued }, set) => {
    for (const [priority, count] of Object.entries(queued)) set(count, { priority });
  });

  return {
    onShed(upstream) {
      const ofReason = (reason: ShedReason, priority: Priority) => {
        const counter = shed.labels({ upstream, reason, priority });
        // A counter that begins with 1 has not increased, and alerts look for increases.
        counter.inc(0);
        return counter;
      };
      const children = new Map(
        shedReasons.map((reason) => [
          reason,
          {
            high: ofReason(reason, 'high'),
            low: ofReason(reason, 'low'),
          },
        ]),
      );
      return (reason, priority) => children.get(reason)?.[priority].inc();
    },
    watch: (admission, upstream) => void watched.set(upstream, admission),
  };
}
