import { readFileSync } from 'node:fs';
import {
  createFileRegistry,
  type DescMessage,
  type DescMethod,
  type FileRegistry,
  fromBinary,
  getOption,
  hasOption,
  type Message,
  toJson,
} from '@bufbuild/protobuf';
import { FileDescriptorSetSchema, MethodOptions_IdempotencyLevel } from '@bufbuild/protobuf/wkt';
import type { Method } from '#runtime/call/call.ts';
import { ConfigError } from '#runtime/process/config.ts';
import { httpExtension } from './google.ts';

/** What a descriptor set says: its methods, and the types that messages and `Any` are made of. */
export interface Descriptors {
  readonly methods: readonly ServiceMethod[];
  readonly types: FileRegistry;
}

/** One method of a service, as it is called and as it is served. */
export interface ServiceMethod {
  readonly method: Method;
  readonly input: DescMessage;
  readonly output: DescMessage;
  /** Its `google.api.http`; undefined where it has none. */
  readonly rule: HttpRule | undefined;
}

/** `google.api.HttpRule` in its JSON form. */
export interface HttpRule {
  readonly get?: string;
  readonly put?: string;
  readonly post?: string;
  readonly delete?: string;
  readonly patch?: string;
  readonly custom?: { readonly kind?: string; readonly path?: string };
  readonly body?: string;
  readonly responseBody?: string;
  readonly additionalBindings?: readonly HttpRule[];
}

/**
 * Reads a `google.protobuf.FileDescriptorSet` with its imports, as `buf build -o` and `protoc --include_imports -o` write
 * it. Services of the `google.api` and `google.protobuf` packages are none of the upstream's and left out.
 *
 * @throws ConfigError if the file cannot be read or is something else.
 */
export function readDescriptors(path: string): Descriptors {
  const fail = (why: string) => new ConfigError([`DESCRIPTORS ${path} ${why}`]);
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw fail(`cannot be read: ${(error as NodeJS.ErrnoException).code}`);
  }
  let types: FileRegistry;
  try {
    types = createFileRegistry(fromBinary(FileDescriptorSetSchema, bytes));
  } catch (error) {
    throw fail(`is not a descriptor set with its imports, made by \`buf build -o\`: ${(error as Error).message}`);
  }
  const methods = [...types]
    .filter((type) => type.kind === 'service')
    .filter(({ typeName }) => !typeName.startsWith('google.api.') && !typeName.startsWith('google.protobuf.'))
    .flatMap((service) => service.methods.map(toServiceMethod));
  if (methods.length === 0) throw fail('has no service');
  return { methods, types };
}

const idempotencyNames = {
  [MethodOptions_IdempotencyLevel.IDEMPOTENCY_UNKNOWN]: 'UNKNOWN',
  [MethodOptions_IdempotencyLevel.IDEMPOTENT]: 'IDEMPOTENT',
  [MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS]: 'NO_SIDE_EFFECTS',
} as const;

function toServiceMethod(desc: DescMethod): ServiceMethod {
  return {
    method: {
      path: `/${desc.parent.typeName}/${desc.name}`,
      requestStream: desc.methodKind === 'client_streaming' || desc.methodKind === 'bidi_streaming',
      responseStream: desc.methodKind === 'server_streaming' || desc.methodKind === 'bidi_streaming',
      idempotency: idempotencyNames[desc.idempotency],
    },
    input: desc.input,
    output: desc.output,
    rule: httpRuleOf(desc),
  };
}

/** Read with our own copy of `google.api`: the set's may be older, and a set can do without. */
function httpRuleOf(desc: DescMethod): HttpRule | undefined {
  if (!hasOption(desc, httpExtension)) return undefined;
  return toJson(httpExtension.message, getOption(desc, httpExtension) as Message) as HttpRule;
}
