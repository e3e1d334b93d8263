import { readFileSync } from 'node:fs';
import type { Server } from '@grpc/grpc-js';
import type { PackageDefinition } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';
import { splitFiles } from './descriptor-files.ts';

/** Of `grpc.health.v1`; what grpc-health-check brings with it is no descriptor that others can read. */
const healthDescriptors = new URL('health.binpb', import.meta.url);

/**
 * Answers `grpc.reflection.v1` and `v1alpha`, so that tools such as grpcurl need no proto files. `descriptors` is a
 * `google.protobuf.FileDescriptorSet`, passed on file by file with its comments, because what proto-loader makes of one
 * lacks imports. `services` are listed, and the health service.
 */
export function addReflection(
  server: Pick<Server, 'addService'>,
  options: { readonly descriptors: Uint8Array; readonly services: readonly string[] },
): void {
  // All that is read of a definition are its files.
  const files = [options.descriptors, readFileSync(healthDescriptors)].flatMap(splitFiles);
  const definition = { fileDescriptorProtos: files.map(({ bytes }) => bytes) };
  const definitions = { '': definition } as unknown as PackageDefinition;
  new ReflectionService(definitions, { services: [...options.services, 'grpc.health.v1.Health'] }).addToServer(server);
}
