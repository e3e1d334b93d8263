import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { createSecureContext, type SecureContext } from 'node:tls';

/** PEM files. */
export interface TlsFiles {
  /** The authorities that a server's certificate may come from. Defaults to those that Node knows. */
  readonly ca?: string | undefined;
  /** The certificate chain that servers are shown, for mutual TLS; not without `key`. Defaults to none. */
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
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

/** What connections are made secure with. Throws an `Error` if the files cannot be used. */
export function readTlsFiles(files: TlsFiles): SecureContext {
  const { context, problems } = readTls(files);
  if (context === undefined) throw new Error(problems.map(({ message }) => message).join('; '));
  return context;
}

/** Names the problem where OpenSSL would have words of its own, or none: it takes anything for a list of authorities. */
function readTls(files: TlsFiles): { readonly context?: SecureContext; readonly problems: TlsProblem[] } {
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
    return { context: createSecureContext({ ca: ca?.pem, cert: cert?.pem, key: key?.pem }), problems };
  } catch (error) {
    const file = cert === undefined ? 'ca' : 'cert';
    return { problems: [{ file, message: `${files[file]} cannot be used: ${(error as Error).message}` }] };
  }
}

/** Changes when one of the files does, those that Kubernetes replaces by a symbolic link included. */
export function versionOfTlsFiles(files: TlsFiles): string {
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
