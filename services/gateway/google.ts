import { readFileSync } from 'node:fs';
import {
  createFileRegistry,
  createRegistry,
  type DescExtension,
  type DescMessage,
  fromBinary,
  type Registry,
} from '@bufbuild/protobuf';
import {
  FileDescriptorSetSchema,
  file_google_protobuf_any,
  file_google_protobuf_duration,
  file_google_protobuf_empty,
  file_google_protobuf_field_mask,
  file_google_protobuf_struct,
  file_google_protobuf_timestamp,
  file_google_protobuf_wrappers,
} from '@bufbuild/protobuf/wkt';

/** Google's types that the gateway itself speaks, whatever the descriptors have: see `third_party/googleapis`. */
export const google = createFileRegistry(
  fromBinary(FileDescriptorSetSchema, readFileSync(new URL('google.binpb', import.meta.url))),
);

/** Types with Google's own beside them: those that an `Any` may hold though no file of the service imports them. */
export function withGoogleTypes(types: Registry): Registry {
  return createRegistry(
    google,
    file_google_protobuf_any,
    file_google_protobuf_duration,
    file_google_protobuf_empty,
    file_google_protobuf_field_mask,
    file_google_protobuf_struct,
    file_google_protobuf_timestamp,
    file_google_protobuf_wrappers,
    types,
  );
}

/** `google.api.http`, an extension of `google.protobuf.MethodOptions`. */
export const httpExtension = google.getExtension('google.api.http') as DescExtension & { message: DescMessage };

/** `google.rpc.Status`. */
export const statusSchema = google.getMessage('google.rpc.Status') as DescMessage;
