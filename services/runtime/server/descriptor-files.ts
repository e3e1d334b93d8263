/** A file of a `FileDescriptorSet`, as it is in there. */
export interface DescriptorFile {
  /** `google/api/http.proto` */
  readonly name: string;
  /** A `google.protobuf.FileDescriptorProto`. */
  readonly bytes: Buffer;
}

/**
 * The files of a `google.protobuf.FileDescriptorSet`, which is nothing but `repeated FileDescriptorProto file = 1`.
 *
 * @throws Error if it is none.
 */
export function splitFiles(set: Uint8Array): DescriptorFile[] {
  const files: DescriptorFile[] = [];
  let offset = 0;
  while (offset < set.length) {
    const file = readBytes(set, offset);
    if (file === undefined) throw new Error('descriptors are no FileDescriptorSet');
    // Its first field is its name.
    files.push({ name: readBytes(file, 0)?.toString() ?? '', bytes: file });
    offset = file.byteOffset + file.length - set.byteOffset;
  }
  return files;
}

/** The set of those files. */
export function joinFiles(files: readonly DescriptorFile[]): Buffer {
  return Buffer.concat(files.flatMap(({ bytes }) => [Buffer.from([0x0a, ...varint(bytes.length)]), bytes]));
}

/** Only options come from these. */
const annotations = 'google/api/annotations.proto';
/** And from these where nothing else imports them. */
const underAnnotations = ['google/api/http.proto', 'google/protobuf/descriptor.proto'];

/** The files without those that only the HTTP rules of methods are made of: they take as long to load as all the rest. */
export function withoutOptions(files: readonly DescriptorFile[]): DescriptorFile[] {
  const dropped = new Set([annotations, ...underAnnotations]);
  const others = files.filter(({ name }) => !dropped.has(name));
  // Its name in any place of a file may be an import of it.
  const isImported = (name: string) => others.some(({ bytes }) => bytes.includes(name));
  return files.filter((file) => others.includes(file) || (file.name !== annotations && isImported(file.name)));
}

/** The field 1 of bytes that stands there; undefined if none does. */
function readBytes(from: Uint8Array, start: number): Buffer | undefined {
  let offset = start;
  if (from[offset++] !== 0x0a) return undefined;
  let length = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = from[offset++] ?? 0;
    length += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) break;
  }
  if (offset + length > from.length) return undefined;
  return Buffer.from(from.buffer, from.byteOffset + offset, length);
}

function varint(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...varint(Math.floor(value / 0x80))];
}
