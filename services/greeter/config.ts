import {
  type Config,
  ConfigError,
  durationMs,
  oneOf,
  port,
  processSettings,
  type Settings,
  text,
} from '#runtime/process/config.ts';
import { findTlsProblems, type TlsFiles } from '#runtime/process/tls-files.ts';

const maxAge = durationMs({ min: 1_000, max: 86_400_000 });

/** What the greeter can be told. */
export const settings = {
  port: { env: 'PORT', help: 'port of the gRPC server (50051)', default: 50_051, schema: port() },
  maxConnectionAgeMs: {
    env: 'MAX_CONNECTION_AGE',
    help: 'age at which connections end, so that clients find new replicas (5m)',
    default: 300_000,
    schema: maxAge,
  },
  maxConnectionAgeGraceMs: {
    env: 'MAX_CONNECTION_AGE_GRACE',
    help: 'how long the calls of such a connection may still take (5m)',
    default: 300_000,
    schema: maxAge,
  },
  tlsCert: {
    env: 'TLS_CERT',
    help: 'PEM file of the certificate chain, to serve gRPC with TLS; read again when it changes (none)',
    default: undefined,
    schema: text(),
  },
  tlsKey: {
    env: 'TLS_KEY',
    help: 'PEM file of its private key, without a passphrase (none)',
    default: undefined,
    schema: text(),
  },
  tlsClientCa: {
    env: 'TLS_CLIENT_CA',
    help: 'PEM file of the authorities that clients must have a certificate from: mutual TLS (none)',
    default: undefined,
    schema: text(),
  },
  faults: {
    env: 'FAULTS',
    help: 'enabled lets tests inject faults through the admin port (disabled)',
    default: 'disabled',
    schema: oneOf(['disabled', 'enabled']),
  },
  ...processSettings,
} satisfies Settings;

export type GreeterConfig = Config<typeof settings>;

const tlsVariables = { cert: 'TLS_CERT', key: 'TLS_KEY', ca: 'TLS_CLIENT_CA' } as const;

/**
 * The files of TLS; undefined for plaintext.
 *
 * @throws ConfigError if they are not all there, or cannot be used.
 */
export function tlsOf(config: GreeterConfig): TlsFiles | undefined {
  const files = { cert: config.tlsCert, key: config.tlsKey, ca: config.tlsClientCa };
  if (Object.values(files).every((file) => file === undefined)) return undefined;
  const missing = (['cert', 'key'] as const).filter((file) => files[file] === undefined);
  const problems = [
    ...missing.map((file) => `${tlsVariables[file]} is required: other files of TLS are named`),
    ...findTlsProblems(files).map(({ file, message }) => `${tlsVariables[file]}: ${message}`),
  ];
  if (problems.length > 0) throw new ConfigError(problems);
  return files;
}
