import type { Server, Socket } from 'node:net';
import tls from 'node:tls';
import type { Logger } from '../process/log.ts';
import { followTlsFiles, type TlsFiles } from '../process/tls-files.ts';

/**
 * A listener whose connections are TLS, and mutual TLS where `ca` is named: then clients need a certificate that it signed.
 * A new connection uses the files as they then are; connections in use stay. Files that have changed and cannot be used
 * leave the last good ones in use, and are warned of.
 *
 * @throws Error if the files cannot be used.
 */
export function createTlsListener(files: TlsFiles, log: Logger, onConnection: (socket: Socket) => void): Server {
  const listener = tls.createServer({ ALPNProtocols: ['h2'], requestCert: files.ca !== undefined }, onConnection);
  const refresh = followTlsFiles(
    files,
    (pems) => listener.setSecureContext(pems),
    (error) => {
      if (error === undefined) log.info('TLS files changed: new connections use them');
      else log.warn({ err: error }, 'TLS files cannot be used: the last ones stay in use');
    },
  );
  // Before the listener's own, which begins the handshake.
  listener.prependListener('connection', refresh);
  listener.on('tlsClientError', (error, socket) => {
    log.debug({ err: error, client: socket.remoteAddress }, 'TLS handshake failed');
  });
  return listener;
}
