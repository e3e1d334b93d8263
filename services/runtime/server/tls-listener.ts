import type { Server, Socket } from 'node:net';
import tls from 'node:tls';
import { Counter, type Registry } from 'prom-client';
import type { Logger } from '../process/log.ts';
import { followTlsFiles, type TlsFiles } from '../process/tls-files.ts';

/**
 * Why a handshake failed. `client-certificate`: there was none, or none that is trusted; `refused`: by the client, as when it
 * does not trust ours; `protocol`: it was no TLS, or none that both sides know; `timeout`; `closed`: the client left.
 */
const failures = ['client-certificate', 'refused', 'protocol', 'timeout', 'closed'] as const;

/**
 * A listener whose connections are TLS, and mutual TLS where `ca` is named: then clients need a certificate that it signed.
 * A new connection uses the files as they then are; connections in use stay. Files that have changed and cannot be used
 * leave the last good ones in use, and are warned of. Handshakes that fail are counted, and logged only for who debugs:
 * whoever scans ports makes as many as they like.
 *
 * @throws Error if the files cannot be used.
 */
export function createTlsListener(
  files: TlsFiles,
  options: {
    readonly registry: Registry;
    readonly log: Logger;
    readonly onConnection: (socket: Socket) => void;
    /** Defaults to 5 seconds: whoever says nothing holds up the end of the server for so long. */
    readonly handshakeTimeoutMs?: number;
  },
): Server {
  const { registry, log, onConnection, handshakeTimeoutMs: handshakeTimeout = 5_000 } = options;
  const fileErrors = new Counter({
    name: 'tandem_server_tls_errors_total',
    help: 'Changes of the TLS files that left them unusable; the last ones stay in use',
    registers: [registry],
  });
  const handshakeFailures = new Counter({
    name: 'tandem_server_tls_handshake_failures_total',
    help: 'TLS handshakes with clients that failed, by why',
    labelNames: ['reason'],
    registers: [registry],
  });
  for (const reason of failures) handshakeFailures.inc({ reason }, 0);
  const listener = tls.createServer(
    { ALPNProtocols: ['h2'], requestCert: files.ca !== undefined, handshakeTimeout },
    onConnection,
  );
  const refresh = followTlsFiles(
    files,
    (pems) => listener.setSecureContext(pems),
    (error) => {
      if (error === undefined) return log.info('TLS files changed: new connections use them');
      fileErrors.inc();
      log.warn({ err: error }, 'TLS files cannot be used: the last ones stay in use');
    },
  );
  // Before the listener's own, which begins the handshake.
  listener.prependListener('connection', refresh);
  listener.on('tlsClientError', (error: NodeJS.ErrnoException, socket) => {
    const reason = failureOf(error.code, socket);
    handshakeFailures.inc({ reason });
    log.debug({ err: error, reason, client: socket.remoteAddress }, 'TLS handshake failed');
    // Node leaves one that took too long open.
    socket.destroy();
  });
  return listener;
}

function failureOf(code = '', { authorizationError }: tls.TLSSocket): (typeof failures)[number] {
  // A certificate that is not trusted ends like a client that left, but for this.
  if (authorizationError || code.endsWith('_DID_NOT_RETURN_A_CERTIFICATE')) return 'client-certificate';
  if (code === 'ERR_TLS_HANDSHAKE_TIMEOUT') return 'timeout';
  if (!code.startsWith('ERR_SSL_')) return 'closed';
  return code.includes('_ALERT_') ? 'refused' : 'protocol';
}
