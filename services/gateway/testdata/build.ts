import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Descriptors, readDescriptors } from '../descriptors.ts';

const buf = join(dirname(createRequire(import.meta.url).resolve('@bufbuild/buf/package.json')), 'bin', 'buf');
const googleapis = fileURLToPath(new URL('../../../third_party/googleapis', import.meta.url));
/** `library.proto`, the tests' own service. */
export const libraryProto = fileURLToPath(new URL('library.proto', import.meta.url));
/** A service with all that is seldom used, in a folder of its own. */
export const nastyProtos = fileURLToPath(new URL('nasty', import.meta.url));

/** Compiles a `.proto`, or a folder of them, in a directory for temporary files; the path of its descriptor set there. */
export function buildDescriptorSet(proto: string, directory: string): string {
  const sources = join(directory, 'sources');
  mkdirSync(sources);
  cpSync(join(googleapis, 'google'), join(sources, 'google'), { recursive: true });
  cpSync(proto, proto.endsWith('.proto') ? join(sources, basename(proto)) : sources, { recursive: true });
  const path = join(directory, 'set.binpb');
  execFileSync(process.execPath, [buf, 'build', sources, '-o', path], { stdio: 'pipe' });
  return path;
}

/** The descriptors of a `.proto`, or of a folder of them. */
export function compileProto(proto: string): Descriptors {
  const directory = mkdtempSync(join(tmpdir(), 'tandem-descriptors-'));
  try {
    return readDescriptors(buildDescriptorSet(proto, directory));
  } finally {
    rmSync(directory, { recursive: true });
  }
}
