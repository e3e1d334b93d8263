import { parseArgs } from 'node:util';
import { boolean, durationMs, integer, oneOf, parseConfig, parsed, type Settings } from '#runtime/process/config.ts';
import { parseTarget } from '#runtime/channel/target.ts';

export type StreamKind = 'reply' | 'request' | 'bidi';

/** What the command line says. */
export interface Arguments {
  readonly target: string;
  readonly timeoutMs: number;
  /** Undefined for a unary call. */
  readonly stream: StreamKind | undefined;
  /** Undefined when it was not said. */
  readonly count: number | undefined;
  readonly json: boolean;
  readonly names: readonly string[];
}

export const help = `usage: hello [option]... [name]...

Greets each name, or the world, and prints the answers. A stream of requests without names reads them from standard
input, one a line.

  --target <target>    dns:///name:port, ipv4:address:port, file:///path or name:port (dns:///localhost:50051)
  --timeout <duration> how long an answer may take, the wait for the server included (1s)
  --stream <kind>      reply: many answers to one name; request: one answer to many names;
                       bidi: an answer to each name as it comes
  --count <number>     how often to greet each name (1; with --stream reply what the server likes)
  --json               a JSON object for each answer, with the replica that gave it
  --help               this text
`;

/** By their flags; there are no variables for them. */
const settings = {
  target: {
    env: 'TARGET',
    help: '',
    default: 'dns:///localhost:50051',
    schema: parsed((text) => {
      const target = /^[^:/]+:\d+$/.test(text) ? `dns:///${text}` : text;
      parseTarget(target);
      return target;
    }),
  },
  timeoutMs: { env: 'TIMEOUT', help: '', default: 1_000, schema: durationMs({ min: 1, max: 3_600_000 }) },
  stream: { env: 'STREAM', help: '', default: undefined, schema: oneOf(['reply', 'request', 'bidi']) },
  count: { env: 'COUNT', help: '', default: undefined, schema: integer({ min: 1, max: 100_000 }) },
  json: { env: 'JSON', help: '', default: false, schema: boolean() },
} satisfies Settings;

/** Throws a `ConfigError` with every problem. */
export function parseArguments(argv: readonly string[]): Arguments {
  const { tokens, positionals } = parseArgs({
    args: [...argv],
    options: {
      target: { type: 'string' },
      timeout: { type: 'string' },
      stream: { type: 'string' },
      count: { type: 'string' },
      json: { type: 'boolean' },
    },
    allowPositionals: true,
    strict: false,
    tokens: true,
  });
  const flags = tokens.flatMap((token) => {
    if (token.kind !== 'option') return [];
    const value = token.name === 'json' ? 'true' : token.value;
    return value === undefined ? [`--${token.name}`] : [`--${token.name}=${value}`];
  });
  return { ...parseConfig(settings, { env: {}, argv: flags }), names: positionals };
}
