import { readFileSync } from 'node:fs';
import type { Server } from '@grpc/grpc-js';
import type { PackageDefinition } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';

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
  const definition = {
    fileDescriptorProtos: [...splitFiles(options.descriptors), ...splitFiles(readFileSync(healthDescriptors))],
  };
  const files = { '': definition } as unknown as PackageDefinition;
  new ReflectionService(files, { services: [...options.services, 'grpc.health.v1.Health'] }).addToServer(server);
}

/** A `FileDescriptorSet` is nothing but `repeated FileDescriptorProto file = 1`. */
function splitFiles(set: Uint8Array): Buffer[] {
  const files: Buffer[] = [];
  let offset = 0;
  const readVarint = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = set[offset++] ?? 0;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  };
  while (offset < set.length) {
    const tag = readVarint();
    const length = readVarint();
    if (tag !== 0x0a || offset + length > set.length) throw new Error('descriptors are no FileDescriptorSet');
    files.push(Buffer.from(set.subarray(offset, offset + length)));
    offset += length;
  }
  return files;
}
