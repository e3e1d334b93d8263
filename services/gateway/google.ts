import { readFileSync } from 'node:fs';
import { createFileRegistry, type DescExtension, type DescMessage, fromBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';

/** Google's types that the gateway itself speaks, whatever the descriptors have: see `third_party/googleapis`. */
export const google = createFileRegistry(
  fromBinary(FileDescriptorSetSchema, readFileSync(new URL('google.binpb', import.meta.url))),
);

/** `google.api.http`, an extension of `google.protobuf.MethodOptions`. */
export const httpExtension = google.getExtension('google.api.http') as DescExtension & { message: DescMessage };

/** `google.rpc.Status`. */
export const statusSchema = google.getMessage('google.rpc.Status') as DescMessage;
