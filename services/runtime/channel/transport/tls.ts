import { isIP, type Socket } from 'node:net';
import tls from 'node:tls';
import { ChannelCredentials, credentials as grpcCredentials } from '@grpc/grpc-js';
import { followTlsFiles, type TlsFiles, type TlsPems } from '../../process/tls-files.ts';
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
  private context: tls.SecureContext | undefined;
  private readonly refresh: () => void;

  constructor(files: TlsFiles, onChange: (error: Error | undefined) => void) {
    super();
    const use = (pems: TlsPems) => {
      this.context = tls.createSecureContext(pems);
    };
    this.refresh = followTlsFiles(files, use, onChange);
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
          this.refresh();
          const secure: Socket = tls.connect({
            socket,
            host,
            servername: isIP(host) === 0 ? host : '',
            secureContext: this.context,
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
}
