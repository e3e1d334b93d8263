import { isIP, type Socket } from 'node:net';
import tls from 'node:tls';
import { ChannelCredentials, credentials as grpcCredentials } from '@grpc/grpc-js';
import { readTlsFiles, type TlsFiles, versionOfTlsFiles } from '../tls-files.ts';
import { hostOf } from './grpc-js.ts';

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
    this.version = versionOfTlsFiles(files);
    this.context = readTlsFiles(files);
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
    const version = versionOfTlsFiles(this.files);
    if (version === this.version) return this.context;
    this.version = version;
    let failure: Error | undefined;
    try {
      this.context = readTlsFiles(this.files);
    } catch (error) {
      failure = error as Error;
    }
    this.onChange(failure);
    return this.context;
  }
}
