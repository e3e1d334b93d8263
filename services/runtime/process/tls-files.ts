import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { createSecureContext } from 'node:tls';

/** PEM files. */
export interface TlsFiles {
  /** The authorities that the peer's certificate may come from. Defaults to those that Node knows. */
  readonly ca?: string | undefined;
  /** The certificate chain that the peer is shown; not without `key`. Defaults to none. */
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}

/** What the files hold. */
export interface TlsPems {
  readonly ca: Buffer | undefined;
  readonly cert: Buffer | undefined;
  readonly key: Buffer | undefined;
}

/** What is wrong with which of the files. */
export interface TlsProblem {
  readonly file: keyof TlsFiles;
  readonly message: string;
}

/** Every problem that the files have, for whoever can say where they were named. */
export function findTlsProblems(files: TlsFiles): readonly TlsProblem[] {
  return readTls(files).problems;
}

/**
 * Hands over what the files hold, at once and whenever the returned function is called and they have changed. Files that
 * have changed and cannot be used, such as a certificate whose key is yet to be written, are not handed over. `onChange`
 * hears of each change, with what was wrong if something was.
 *
 * @throws Error if the files cannot be used at first.
 */
export function followTlsFiles(
  files: TlsFiles,
  use: (pems: TlsPems) => void,
  onChange: (error: Error | undefined) => void,
): () => void {
  let version = versionOfTlsFiles(files);
  use(readTlsFiles(files));
  return () => {
    const latest = versionOfTlsFiles(files);
    if (latest === version) return;
    version = latest;
    try {
      use(readTlsFiles(files));
      onChange(undefined);
    } catch (error) {
      onChange(error as Error);
    }
  };
}

function readTlsFiles(files: TlsFiles): TlsPems {
  const { pems, problems } = readTls(files);
  if (pems === undefined) throw new Error(problems.map(({ message }) => message).join('; '));
  return pems;
}

/** Names the problem where OpenSSL would have words of its own, or none: it takes anything for a list of authorities. */
function readTls(files: TlsFiles): { readonly pems?: TlsPems; readonly problems: TlsProblem[] } {
  const problems: TlsProblem[] = [];
  const parse = <T>(file: keyof TlsFiles, what: string, read: (pem: Buffer) => T) => {
    const path = files[file];
    if (path === undefined) return undefined;
    let pem: Buffer;
    try {
      pem = readFileSync(path);
    } catch (error) {
      problems.push({ file, message: `${path} cannot be read: ${(error as NodeJS.ErrnoException).code}` });
      return undefined;
    }
    try {
      return { pem, parsed: read(pem) };
    } catch {
      problems.push({ file, message: `${path} holds no ${what} in PEM` });
      return undefined;
    }
  };
  const ca = parse('ca', 'certificate', (pem) => new X509Certificate(pem));
  const cert = parse('cert', 'certificate', (pem) => new X509Certificate(pem));
  const key = parse('key', 'unencrypted private key', (pem) => createPrivateKey(pem));
  if (cert !== undefined && key !== undefined && !cert.parsed.checkPrivateKey(key.parsed)) {
    problems.push({ file: 'key', message: `${files.key} does not belong to the certificate of ${files.cert}` });
  }
  if (problems.length > 0) return { problems };
  try {
    const pems = { ca: ca?.pem, cert: cert?.pem, key: key?.pem };
    createSecureContext(pems);
    return { pems, problems };
  } catch (error) {
    const file = cert === undefined ? 'ca' : 'cert';
    return { problems: [{ file, message: `${files[file]} cannot be used: ${(error as Error).message}` }] };
  }
}

/** Changes when one of the files does, those that Kubernetes replaces by a symbolic link included. */
function versionOfTlsFiles(files: TlsFiles): string {
  return [files.ca, files.cert, files.key]
    .filter((path) => path !== undefined)
    .map((path) => {
      try {
        const { ino, mtimeMs, size } = statSync(path);
        return `${ino} ${mtimeMs} ${size}`;
      } catch (error) {
        return (error as NodeJS.ErrnoException).code;
      }
    })
    .join();
}
