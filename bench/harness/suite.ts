import type { Effort, Measures } from './measure.ts';
import type { Subject } from './subject.ts';

export interface SuiteContext {
  readonly measures: Measures;
  readonly effort: Effort;
  /** Go's grpc-gateway, where Go is installed. */
  readonly goGateway: string | undefined;
  /** Stops the subject after the suite. */
  use(subject: Subject): Subject;
  /** Starts lean replicas; their addresses. */
  backends(replicas: number): Promise<string[]>;
}

/** A part of the bench. Ends all that it began. */
export type Suite = (context: SuiteContext) => Promise<void>;
