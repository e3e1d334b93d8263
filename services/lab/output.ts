import type { Lab } from './lab.ts';

/** Where the lab shows what it does: a live screen or plain lines. */
export interface Output {
  /** A line that a program wrote. */
  line(program: string, line: string): void;
  /** Something that happened to a program. */
  event(program: string, text: string): void;
  /** The lab serves. */
  start(lab: Lab, urls: LabUrls): void;
  /** Gives the terminal back; what happens from here on is not shown as it was. May be called at any time, and twice. */
  restore(): void;
  /** Resolves once the lab may stop. */
  stop(): Promise<void>;
}

export interface LabUrls {
  readonly gateway: string;
  readonly admin: string;
}
