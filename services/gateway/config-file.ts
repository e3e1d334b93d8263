import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, resolve } from 'node:path';
import * as v from 'valibot';
import type { Document } from 'yaml';
import type { ChannelTls } from '#runtime/channel/channel.ts';
import { serviceConfigSchema } from '#runtime/channel/service-config.ts';
import { parseTarget } from '#runtime/channel/target.ts';
import { ConfigError, describeIssue, pathInside, strictObject } from '#runtime/process/config.ts';
import { findTlsProblems } from '#runtime/process/tls-files.ts';
import { type CorsConfig, corsSchema, metadataSchema } from './edge-schema.ts';
import type { PassedNames } from './edge/metadata.ts';
import { type AuthProvider, authSchema, policiesSchema, type PolicyConfig } from './policy-schema.ts';
import { type ConcurrencyBounds, defaultBounds } from './stages/concurrency-limit.ts';

/** What a `GATEWAY_CONFIG` says. */
export interface ConfigFile {
  /** Undefined where the file names none. */
  readonly upstreams: readonly UpstreamConfig[] | undefined;
  readonly policies: readonly PolicyConfig[];
  readonly auth: readonly AuthProvider[];
  /** Undefined: no page of another origin may call. */
  readonly cors: CorsConfig | undefined;
  /** What is passed on under its own name. */
  readonly metadata: PassedNames;
  /** Where something stands, such as `gateway.yaml:12`: the place of the last of the keys that is there. */
  placeOf(...keys: readonly (string | number)[]): string;
}

/** A gRPC service to call. */
export interface UpstreamConfig {
  readonly name: string;
  /** The primary, and its backups in order. */
  readonly targets: readonly string[];
  /** Undefined: all that no other upstream names. */
  readonly services?: readonly string[] | undefined;
  /** The JSON of a gRPC service config, as it was given. */
  readonly serviceConfig?: unknown;
  readonly connectionsPerEndpoint: number;
  /** How many calls it may have at a time; undefined for the default. */
  readonly concurrency?: ConcurrencyBounds | undefined;
  readonly tls?: ChannelTls | undefined;
}

/**
 * Reads a YAML file of the gateway. What is unknown or out of range is a problem; paths in it begin at its directory.
 *
 * @throws ConfigError that lists every problem with its file and line.
 */
export function readConfigFile(path: string): ConfigFile {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new ConfigError([`${path} cannot be read: ${(error as NodeJS.ErrnoException).code}`]);
  }
  const { LineCounter, parseDocument } = loadYaml();
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const placeAt = (offset: number) => `${path}:${lines.linePos(offset).line}`;
  const mistakes = [...document.errors, ...document.warnings];
  if (mistakes.length > 0) {
    throw new ConfigError(mistakes.map(({ message, pos: [offset] }) => `${placeAt(offset)}: ${message}`));
  }
  let json: unknown;
  try {
    json = document.toJS();
  } catch (error) {
    throw new ConfigError([`${placeAt(0)}: ${(error as Error).message}`]);
  }

  const read = v.safeParse(configFileSchema(dirname(path)), json);
  if (!read.success) {
    const problems = read.issues.map((issue) => ({
      offset: offsetOf(document, issue.path?.map(({ key }) => key) ?? []),
      message: describeIssue(issue, json, 'the configuration'),
    }));
    problems.sort((a, b) => a.offset - b.offset);
    throw new ConfigError(problems.map(({ offset, message }) => `${placeAt(offset)}: ${message}`));
  }
  const given = json as { readonly upstreams?: readonly { readonly serviceConfig?: unknown }[] };
  return {
    // The service config as it is written, so that it can be logged.
    upstreams: read.output.upstreams?.map((upstream, index) => ({
      ...upstream,
      serviceConfig: given.upstreams?.[index]?.serviceConfig,
    })),
    policies: read.output.policies,
    auth: read.output.auth,
    cors: read.output.cors,
    metadata: read.output.metadata,
    placeOf: (...keys) => placeAt(offsetOf(document, keys)),
  };
}

/** It takes 40 ms, which only who has such a file shall wait for. */
function loadYaml(): typeof import('yaml') {
  return createRequire(import.meta.url)('yaml');
}

/** Where the last of the keys that is there begins in the text. */
function offsetOf(document: Document.Parsed, keys: readonly unknown[]): number {
  const { isAlias, isMap, isScalar, isSeq } = loadYaml();
  let node: unknown = document.contents;
  let offset = document.contents?.range[0] ?? 0;
  for (const key of keys) {
    const inner = isAlias(node) ? node.resolve(document) : node;
    if (isMap(inner)) {
      const pair = inner.items.find((item) => isScalar(item.key) && String(item.key.value) === key);
      if (pair === undefined) break;
      offset = isScalar(pair.key) ? (pair.key.range?.[0] ?? offset) : offset;
      node = pair.value;
    } else if (isSeq(inner)) {
      node = inner.items[key as number];
      offset = (node as { readonly range?: readonly [number] } | undefined)?.range?.[0] ?? offset;
    }
  }
  return offset;
}

const text = v.pipe(v.string('must be text'), v.nonEmpty('must not be empty'));

const targetSchema = v.pipe(
  text,
  v.rawCheck(({ dataset, addIssue }) => {
    if (!dataset.typed || dataset.issues) return;
    try {
      parseTarget(dataset.value);
    } catch (error) {
      addIssue({ message: (error as Error).message });
    }
  }),
);

const callCount = (description: string) =>
  v.optional(
    v.pipe(
      v.number('must be a number'),
      v.integer('must be an integer'),
      v.minValue(1, 'must be >= 1'),
      v.maxValue(100_000, 'must be <= 100000'),
      v.description(description),
    ),
  );

const concurrencySchema = v.pipe(
  strictObject({
    min: callCount('The lowest limit; 4 by default, or max where that is less.'),
    max: callCount('The highest limit; 1000 by default, or min where that is more. The same as min: a fixed limit.'),
  }),
  v.rawCheck(({ dataset, addIssue }) => {
    if (!dataset.typed || dataset.issues) return;
    const { min = 1, max = Number.POSITIVE_INFINITY } = dataset.value;
    if (min > max) addIssue({ message: `must be <= max ${max}`, path: pathInside(dataset.value, 'min') });
  }),
  v.transform(({ min, max }) => ({
    min: min ?? Math.min(defaultBounds.min, max ?? defaultBounds.min),
    max: max ?? Math.max(defaultBounds.max, min ?? defaultBounds.max),
  })),
  v.title('Concurrency'),
  v.description(
    'How many calls, without streams, it may have at a time. The limit is learned from how long they take; these are its bounds.',
  ),
);

/** Adds an issue for each value that was there before, at the path that it has in the input. */
function checkUnique(
  input: unknown,
  values: readonly (readonly [value: string, ...path: (string | number)[]])[],
  addIssue: (info: { message: string; path: [v.IssuePathItem, ...v.IssuePathItem[]] }) => void,
): void {
  const seen = new Set<string>();
  for (const [value, ...path] of values) {
    if (seen.has(value)) addIssue({ message: 'must not be named twice', path: pathInside(input, ...path) });
    seen.add(value);
  }
}

/** The schema of the file, of which the published JSON Schema is made. Its paths begin at that directory. */
export function configFileSchema(directory: string) {
  const file = (description: string) =>
    v.optional(
      v.pipe(
        text,
        v.transform((path) => resolve(directory, path)),
        v.description(`${description} Relative to this file, and read again when it changes.`),
      ),
    );

  const tls = v.pipe(
    strictObject({
      ca: file('PEM file of the authorities that the certificates of servers may come from; those of Node by default.'),
      cert: file('PEM file of the certificate chain that servers are shown (mutual TLS). Needs a key.'),
      key: file('PEM file of its private key, without a passphrase.'),
      serverName: v.optional(
        v.pipe(
          text,
          v.description('The name in the certificates of servers; that of the target, or the address, by default.'),
        ),
      ),
    }),
    v.rawCheck(({ dataset, addIssue }) => {
      if (!dataset.typed || dataset.issues) return;
      const { value } = dataset;
      if (value.cert !== undefined && value.key === undefined) {
        addIssue({ message: 'must stand beside cert', path: pathInside(value, 'key') });
      }
      if (value.key !== undefined && value.cert === undefined) {
        addIssue({ message: 'must stand beside key', path: pathInside(value, 'cert') });
      }
      for (const { file, message } of findTlsProblems(value)) addIssue({ message, path: pathInside(value, file) });
    }),
    v.title('TLS'),
    v.description(
      'TLS to the servers, or mutual TLS with a certificate of its own. Without it calls are in plaintext.',
    ),
  );

  const upstream = v.pipe(
    strictObject({
      name: v.pipe(
        text,
        v.regex(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/, 'must be up to 63 small letters, digits and hyphens'),
        v.description('Its name in metrics, logs and on the admin port.'),
      ),
      targets: v.pipe(
        v.array(targetSchema, 'must be a list'),
        v.minLength(1, 'must name at least one target'),
        v.rawCheck(({ dataset, addIssue }) => {
          if (!dataset.typed) return;
          checkUnique(
            dataset.value,
            dataset.value.map((target, index) => [target, index] as const),
            addIssue,
          );
        }),
        v.description(
          'Where its replicas are: kubernetes:///service.namespace:port, dns:///name:port, ipv4:address:port,… or file:///endpoints.json. The first target that is ready takes the calls, the others are its backups in order.',
        ),
      ),
      services: v.optional(
        v.pipe(
          v.array(text, 'must be a list'),
          v.minLength(1, 'must name at least one service'),
          v.description(
            'The services of the descriptors that it serves, by their full names, such as helloworld.Greeter; those that no other upstream names by default.',
          ),
        ),
      ),
      serviceConfig: v.optional(
        v.pipe(
          serviceConfigSchema,
          v.title('gRPC service config'),
          v.description(
            'Load balancing, timeouts, retries and health checks: the standard gRPC service config. By default round robin, health checks, outlier detection, and idempotent methods in 3 attempts of up to 1s.',
          ),
        ),
      ),
      connectionsPerEndpoint: v.optional(
        v.pipe(
          v.number('must be a number'),
          v.integer('must be an integer'),
          v.minValue(1, 'must be >= 1'),
          v.maxValue(64, 'must be <= 64'),
          v.description('How many connections each replica has.'),
        ),
        1,
      ),
      concurrency: v.optional(concurrencySchema),
      tls: v.optional(tls),
    }),
    v.title('Upstream'),
    v.description('A gRPC service to call.'),
  );

  return v.pipe(
    strictObject({
      upstreams: v.optional(
        v.pipe(
          v.array(upstream, 'must be a list'),
          v.minLength(1, 'must name at least one upstream'),
          v.rawCheck(({ dataset, addIssue }) => {
            if (!dataset.typed) return;
            const { value: upstreams } = dataset;
            checkUnique(
              upstreams,
              upstreams.map(({ name }, index) => [name, index, 'name'] as const),
              addIssue,
            );
            checkUnique(
              upstreams,
              upstreams.flatMap(({ services = [] }, index) =>
                services.map((service, at) => [service, index, 'services', at] as const),
              ),
              addIssue,
            );
            const [, ...others] = upstreams.flatMap(({ services }, index) => (services === undefined ? [index] : []));
            for (const index of others) {
              const message = 'must be named: another upstream has those that are not';
              addIssue({ message, path: pathInside(upstreams, index, 'services') });
            }
          }),
          v.description('The gRPC services to call. They take the place of TARGET and SERVICE_CONFIG.'),
        ),
      ),
      policies: v.optional(policiesSchema, []),
      auth: v.optional(
        v.pipe(
          authSchema,
          v.rawCheck(({ dataset, addIssue }) => {
            if (!dataset.typed) return;
            const names = dataset.value.map(({ name }, index) => [name, index, 'name'] as const);
            checkUnique(dataset.value, names, addIssue);
          }),
        ),
        [],
      ),
      cors: v.optional(corsSchema),
      metadata: v.optional(metadataSchema, {}),
    }),
    v.rawCheck(({ dataset, addIssue }) => {
      if (!dataset.typed) return;
      const { auth, metadata } = dataset.value;
      for (const [index, { claims }] of auth.entries()) {
        for (const [claim, key] of Object.entries(claims)) {
          if (!metadata.request.includes(key)) continue;
          const message = 'must not be a header of clients that metadata.request passes on';
          addIssue({ message, path: pathInside(dataset.value, 'auth', index, 'claims', claim) });
        }
      }
    }),
    v.title('Configuration of the Tandem gateway'),
    v.description('What GATEWAY_CONFIG names. The rest is environment variables and flags: docs/configuration.md.'),
  );
}
