/** The levels of the programs' logs, the least serious first. */
const levels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'];

/** A line of a program's JSON log. */
export interface LogLine {
  readonly level: string;
  readonly msg: string;
  readonly [field: string]: unknown;
}

/** Undefined for a line that is no log, such as what Node itself says before a program logs. */
export function parseLogLine(line: string): LogLine | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    const parsed = JSON.parse(line) as Partial<LogLine>;
    return typeof parsed.level === 'string' && typeof parsed.msg === 'string' ? (parsed as LogLine) : undefined;
  } catch {
    return undefined;
  }
}

/** Whether a log line is as serious as `level`; what is no log line counts as serious. */
export function isAtLeast(line: LogLine | undefined, level: string): boolean {
  return !line || levels.indexOf(line.level) >= levels.indexOf(level);
}
