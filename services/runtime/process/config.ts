import { createHash } from 'node:crypto';
import { hostname, networkInterfaces } from 'node:os';
import * as v from 'valibot';

/** A configuration that cannot be used. It carries every problem found, not just the first. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(`invalid configuration:\n  ${problems.join('\n  ')}`);
    this.problems = problems;
  }
}

export interface Setting<T> {
  /** The environment variable. Set to the empty string it counts as unset, as Compose files and OpenTelemetry have it. */
  readonly env: string;
  /** Without the dashes. Defaults to the variable in kebab case; a secret has none, since others can read command lines. */
  readonly flag?: string;
  readonly help: string;
  /** Kept out of messages, logs and flags. */
  readonly secret?: boolean;
  /** The value when none is given. A setting that does not mention a default is required. */
  readonly default?: T;
  /**
   * From the text to the value. An issue that begins with `must` is shown behind the name and the text, and one that
   * begins with `file:line:` alone.
   */
  readonly schema: v.GenericSchema<string, T>;
}

/** A flag without a value: true where it is given. */
export interface Switch {
  /** Without the dashes. */
  readonly flag: string;
  readonly help: string;
}

/** What a program can be told: the keys are those of its configuration. */
export type Settings = Readonly<Record<string, Setting<unknown> | Switch>>;

export type Config<S extends Settings> = {
  readonly [K in keyof S]: S[K] extends { readonly schema: infer Schema extends v.GenericSchema<string, unknown> }
    ? v.InferOutput<Schema> | (S[K] extends { readonly default: undefined } ? undefined : never)
    : boolean;
};

/** Where settings come from: `process.env` and `process.argv.slice(2)`, handed in by `main.ts`. */
export interface ConfigSource {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly argv: readonly string[];
}

/**
 * Reads the settings: a flag (`--port 80`, `--port=80`; the last one counts) beats the variable, which beats the default.
 * The result is frozen. Throws a `ConfigError` with every problem.
 */
export function parseConfig<const S extends Settings>(settings: S, source: ConfigSource): Config<S> {
  const { flags, problems: flagProblems } = parseFlags(settings, source.argv);
  const problems: string[] = [];
  const config: Record<string, unknown> = {};
  for (const [key, setting] of Object.entries(settings)) {
    const flag = flagOf(setting);
    const fromFlag = flag === undefined ? undefined : flags.get(flag);
    if (isSwitch(setting)) {
      config[key] = fromFlag !== undefined;
      continue;
    }
    const name = fromFlag === undefined ? setting.env : `--${flag}`;
    const text = fromFlag ?? (source.env[setting.env] || undefined);
    if (text === undefined) {
      if ('default' in setting) config[key] = setting.default;
      else problems.push(`${name} is required: ${setting.help}`);
      continue;
    }
    const result = v.safeParse(setting.schema, text, { abortPipeEarly: true });
    if (result.success) config[key] = result.output;
    else problems.push(...result.issues.map(({ message }) => describe(name, setting, text, message)));
  }
  problems.push(...flagProblems);
  if (problems.length > 0) throw new ConfigError(problems);
  return Object.freeze(config) as Config<S>;
}

/**
 * Twelve digits that tell whether replicas run with the same settings: secrets, and what differs between replicas by its
 * nature (the pod's name, the address), left out.
 */
export function hashConfig(settings: Settings, config: object): string {
  const { podName: _, host: __, ...shared } = maskConfig(settings, config);
  return createHash('sha256').update(JSON.stringify(shared)).digest('hex').slice(0, 12);
}

/** The configuration for the start-up log line, its secrets as `***`. */
export function maskConfig(settings: Settings, config: object): Record<string, unknown> {
  const isSecret = (setting: Setting<unknown> | Switch | undefined) => setting && !isSwitch(setting) && setting.secret;
  return Object.fromEntries(
    Object.entries(config).map(([key, value]) => [key, isSecret(settings[key]) && value !== undefined ? '***' : value]),
  );
}

/** The text of `--help`. */
export function usage(program: string, settings: Settings): string {
  const rows = Object.values(settings).map((setting) => {
    const flag = flagOf(setting);
    return {
      flag: flag === undefined ? '' : `--${flag}`,
      env: isSwitch(setting) ? '' : setting.env,
      help: setting.help,
    };
  });
  const flagWidth = Math.max(...rows.map(({ flag }) => flag.length));
  const envWidth = Math.max(...rows.map(({ env }) => env.length));
  const lines = rows.map(({ flag, env, help }) => `  ${flag.padEnd(flagWidth)}  ${env.padEnd(envWidth)}  ${help}`);
  return `usage: ${program} [--flag value]...\n\nEach setting is a flag or an environment variable; the flag wins.\n\n${lines.join('\n')}\n`;
}

/** An integer within limits, both included. */
export function integer(limits: { readonly min: number; readonly max: number }) {
  return v.pipe(
    v.string(),
    v.regex(/^[+-]?\d+$/, `must be an integer from ${limits.min} to ${limits.max}`),
    v.transform(Number),
    v.minValue(limits.min, `must be >= ${limits.min}`),
    v.maxValue(limits.max, `must be <= ${limits.max}`),
  );
}

/** A share, from 0 to 1. */
export function ratio() {
  return v.pipe(
    v.string(),
    v.regex(/^(\d+(\.\d*)?|\.\d+)$/, 'must be a number from 0 to 1'),
    v.transform(Number),
    v.maxValue(1, 'must be <= 1'),
  );
}

/** A TCP port; 0 lets the system choose a free one. */
export function port() {
  return integer({ min: 0, max: 65_535 });
}

/** A duration such as `250ms`, `5s`, `0.5s`, `1m` or `2h`, within limits, as milliseconds. */
export function durationMs(limits: { readonly min: number; readonly max: number }) {
  return v.pipe(
    v.string(),
    v.regex(/^(0|\d+(\.\d+)?(ms|s|m|h))$/, 'must be a duration such as 250ms, 5s or 1m'),
    v.transform((text) => Math.round(Number.parseFloat(text) * unitMs(text))),
    v.minValue(limits.min, `must be >= ${formatDuration(limits.min)}`),
    v.maxValue(limits.max, `must be <= ${formatDuration(limits.max)}`),
  );
}

/** Any text that is not empty. */
export function text() {
  return v.pipe(v.string(), v.nonEmpty('must not be empty'));
}

/** One of a few words. */
export function oneOf<const T extends string>(words: readonly T[]): v.GenericSchema<string, T> {
  return v.pipe(v.string(), v.picklist(words, `must be one of ${words.join(', ')}`));
}

/** `true` or `false`. */
export function boolean() {
  return v.pipe(
    oneOf(['true', 'false']),
    v.transform((word) => word === 'true'),
  );
}

/** Whatever `parse` makes of the text. What it throws is the problem, or the problems of a `ConfigError`. */
export function parsed<T>(parse: (text: string) => T): v.GenericSchema<string, T> {
  return v.pipe(
    v.string(),
    v.rawTransform(({ dataset, addIssue, NEVER }) => {
      try {
        return parse(dataset.value);
      } catch (error) {
        const problems = error instanceof ConfigError ? error.problems : [(error as Error).message];
        for (const message of problems) addIssue({ message });
        return NEVER;
      }
    }),
  );
}

/** Keys that valibot skips, lest somebody's prototype changes. */
const skippedKeys = ['__proto__', 'prototype', 'constructor'];

/** A JSON object with these keys and no other. Unlike valibot's own it refuses lists, and each unknown key is an issue. */
export function strictObject<E extends v.ObjectEntries>(
  entries: E,
): v.GenericSchema<unknown, v.InferOutput<v.ObjectSchema<E, undefined>>> {
  return v.pipe(
    v.unknown(),
    v.check((json) => !Array.isArray(json), 'must be an object'),
    v.rawCheck(({ dataset, addIssue }) => {
      const json = dataset.value;
      if (typeof json !== 'object' || json === null) return;
      for (const key of skippedKeys.filter((key) => Object.hasOwn(json, key))) {
        addIssue({ message: 'must not be here', expected: 'never', path: pathInside(json, key) });
      }
    }),
    v.objectWithRest(entries, v.never(), 'must be an object'),
  );
}

/** The path of an issue that a check of `input` finds further inside it. */
export function pathInside(
  input: unknown,
  ...keys: readonly (string | number)[]
): [v.IssuePathItem, ...v.IssuePathItem[]] {
  return keys.map((key) => ({ type: 'unknown', origin: 'value', input, key, value: undefined })) as [v.UnknownPathItem];
}

/**
 * An issue with `json`, which is called `whole`, by its path: `retryPolicy.maxAttempts 9 must be <= 5`. One that does not
 * begin with `must` is shown without the value.
 */
export function describeIssue(issue: v.BaseIssue<unknown>, json: unknown, whole: string): string {
  let path = '';
  let given = json;
  for (const { key } of issue.path ?? []) {
    path += typeof key === 'number' ? `[${key}]` : `${path && '.'}${String(key)}`;
    given = (given as Record<PropertyKey, unknown> | undefined)?.[key as PropertyKey];
  }
  if (issue.expected === 'never') return `${path} is not a field of ${whole}`;
  if (given === undefined) return `${path || whole} ${issue.type === 'raw_check' ? issue.message : 'is missing'}`;
  if (!issue.message.startsWith('must')) return `${path || whole}: ${issue.message}`;
  return `${path || whole} ${shorten(JSON.stringify(given))} ${issue.message}`;
}

/** The least serious first. */
export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const;

/** The settings that every program has. */
export const processSettings = {
  host: {
    env: 'HOST',
    help: 'address to listen on (all)',
    default: hasIpv6() ? '::' : '0.0.0.0',
    schema: text(),
  },
  adminPort: {
    env: 'ADMIN_PORT',
    help: 'port of /livez, /readyz, /metrics and /loglevel (9090)',
    default: 9090,
    schema: port(),
  },
  logLevel: {
    env: 'LOG_LEVEL',
    help: 'trace, debug, info, warn, error or fatal (info)',
    default: 'info',
    schema: oneOf(logLevels),
  },
  logFormat: {
    env: 'LOG_FORMAT',
    help: 'auto, json or pretty (auto: pretty on a terminal)',
    default: 'auto',
    schema: oneOf(['auto', 'json', 'pretty']),
  },
  accessLogRatio: {
    env: 'ACCESS_LOG_RATIO',
    help: 'share of the requests that went well which are logged, from 0 to 1; the others are, always (0.01)',
    default: 0.01,
    schema: ratio(),
  },
  slowRequestMs: {
    env: 'SLOW_REQUEST',
    help: 'a request that takes so long is slow, and always logged; streams never are (1s)',
    default: 1_000,
    schema: durationMs({ min: 1, max: 600_000 }),
  },
  drainDelayMs: {
    env: 'DRAIN_DELAY',
    help: 'how long to serve on after SIGTERM, until clients have moved (5s)',
    default: 5_000,
    schema: durationMs({ min: 0, max: 60_000 }),
  },
  drainGraceMs: {
    env: 'DRAIN_GRACE',
    help: 'how long calls in flight may take after that (20s)',
    default: 20_000,
    schema: durationMs({ min: 0, max: 300_000 }),
  },
  podName: { env: 'POD_NAME', help: 'name of this replica (the host name)', default: hostname(), schema: text() },
} satisfies Settings;

function parseFlags(settings: Settings, argv: readonly string[]) {
  const known = new Map(Object.values(settings).map((setting) => [flagOf(setting), setting]));
  const flags = new Map<string, string>();
  const problems: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const [, flag, inline] = /^--([^=]+)(?:=(.*))?$/s.exec(argv[i] ?? '') ?? [];
    if (flag === undefined) {
      problems.push(`${JSON.stringify(argv[i])} is not a flag`);
      continue;
    }
    const setting = known.get(flag);
    if (setting !== undefined && isSwitch(setting)) {
      if (inline === undefined) flags.set(flag, '');
      else problems.push(`--${flag} takes no value`);
      continue;
    }
    const next = argv[i + 1];
    const separate = inline === undefined && next !== undefined && !next.startsWith('--');
    if (separate) i++;
    const value = separate ? next : inline;
    if (setting === undefined) problems.push(`--${flag} is not a flag of this program (see --help)`);
    else if (value === undefined) problems.push(`--${flag} needs a value`);
    else flags.set(flag, value);
  }
  return { flags, problems };
}

function isSwitch(setting: Setting<unknown> | Switch): setting is Switch {
  return !('schema' in setting);
}

function flagOf(setting: Setting<unknown> | Switch): string | undefined {
  if (isSwitch(setting)) return setting.flag;
  return setting.secret ? undefined : (setting.flag ?? setting.env.toLowerCase().replaceAll('_', '-'));
}

function describe(name: string, setting: Setting<unknown>, given: string, message: string): string {
  if (/^[^ ]+:\d+: /.test(message)) return message;
  if (!message.startsWith('must')) return `${name}: ${message}`;
  if (setting.secret) return `${name} *** ${message}`;
  const shown = shorten(given);
  return `${name} ${/^\d[\w.]*$/.test(shown) ? shown : JSON.stringify(shown)} ${message}`;
}

function shorten(text: string): string {
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

function unitMs(duration: string): number {
  if (duration.endsWith('ms')) return 1;
  if (duration.endsWith('s')) return 1_000;
  if (duration.endsWith('m')) return 60_000;
  return 3_600_000;
}

function formatDuration(ms: number): string {
  return ms % 1_000 === 0 ? `${ms / 1_000}s` : `${ms}ms`;
}

/** A container may have no IPv6 at all, and `::` cannot be bound there. */
function hasIpv6(): boolean {
  return Object.values(networkInterfaces()).some((addresses) => addresses?.some(({ family }) => family === 'IPv6'));
}
