import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { isIP, type Socket } from 'node:net';
import tls from 'node:tls';
import { ChannelCredentials, credentials as grpcCredentials } from '@grpc/grpc-js';
import { hostOf } from './grpc-js.ts';

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
export function findTlsProblems(files: TlsFiles): TlsProblem[] {
  const { problems } = readTls(files);
  return problems;
}

/**
 * Credentials for TLS, and mutual TLS where `cert` and `key` are named. A new connection uses the files as they then are;
 * connections in use stay. Files that have changed and cannot be used, such as a certificate whose key is yet to be
 * written, leave the last good ones in use. `onChange` hears of each change, with what was wrong if something was.
 *
 * @throws Error if the files cannot be used.
 */
export function createTlsCredentials(
  files: TlsFiles,
  onChange: (error: Error | undefined) => void,
): ChannelCredentials {
  return new TlsCredentials(files, onChange);
}

class TlsCredentials extends ChannelCredentials {
  private readonly files: TlsFiles;
  private readonly onChange: (error: Error | undefined) => void;
  private context: tls.SecureContext;
  private version: string;

  constructor(files: TlsFiles, onChange: (error: Error | undefined) => void) {
    super();
    this.files = files;
    this.onChange = onChange;
    this.version = versionOf(files);
    this.context = createContext(files);
  }

  override _isSecure(): boolean {
    return true;
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  /** That of grpc-js names an IP address as the TLS server name, which RFC 6066 does not allow and Node warns of. */
  override _createSecureConnector(
    ...[target, options, callCredentials]: Parameters<ChannelCredentials['_createSecureConnector']>
  ): ReturnType<ChannelCredentials['_createSecureConnector']> {
    const host = options['grpc.ssl_target_name_override'] ?? hostOf(target.path);
    return {
      connect: (socket) =>
        new Promise((resolve, reject) => {
          const secure: Socket = tls.connect({
            socket,
            host,
            servername: isIP(host) === 0 ? host : '',
            secureContext: this.latestContext(),
            ALPNProtocols: ['h2'],
          });
          secure.once('secureConnect', () => resolve({ socket: secure, secure: true }));
          secure.on('error', reject);
        }),
      waitForReady: () => Promise.resolve(),
      getCallCredentials: () => callCredentials ?? grpcCredentials.createEmpty(),
      destroy() {},
    };
  }

  private latestContext(): tls.SecureContext {
    const version = versionOf(this.files);
    if (version === this.version) return this.context;
    this.version = version;
    let failure: Error | undefined;
    try {
      this.context = createContext(this.files);
    } catch (error) {
      failure = error as Error;
    }
    this.onChange(failure);
    return this.context;
  }
}

function createContext(files: TlsFiles): tls.SecureContext {
  const { context, problems } = readTls(files);
  if (context === undefined) throw new Error(problems.map(({ message }) => message).join('; '));
  return context;
}

/** Names the problem where OpenSSL would have words of its own, or none: it takes anything for a list of authorities. */
function readTls(files: TlsFiles): { readonly context?: tls.SecureContext; readonly problems: TlsProblem[] } {
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
    return { context: tls.createSecureContext({ ca: ca?.pem, cert: cert?.pem, key: key?.pem }), problems };
  } catch (error) {
    const file = cert === undefined ? 'ca' : 'cert';
    return { problems: [{ file, message: `${files[file]} cannot be used: ${(error as Error).message}` }] };
  }
}

/** Changes with any of the files, those that Kubernetes replaces by a symbolic link included. */
function versionOf(files: TlsFiles): string {
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
