import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { WebSocket, WebSocketServer } from 'ws';
import { Code, codeName, RpcError } from '#runtime/call/status.ts';
import { type ErrorWriter, HttpError, retryDelayMs, type StatusJson } from './errors.ts';
import type { Encoder, RequestSink, RequestSource, Upgrade } from './exchange.ts';

/** https://www.rfc-editor.org/rfc/rfc6455#section-7.4, and 4000 to 4999 for private use. */
const closeCodes = { ok: 1000, unsupportedData: 1003, serviceRestart: 1012, firstOfStatuses: 4000 } as const;
const maxReasonBytes = 123;
/** Pings that may stay unanswered: a reader may stop for a while, and reads no ping meanwhile. */
const maxUnansweredPings = 3;

/** The subprotocol of a client that brings a token as the other one that it offers. It has no further meaning. */
const tokenProtocol = 'bearer';
const tokenProtocolSyntax = new RegExp(`^${tokenProtocol} *, *([\\w.~+-]+)$`);

/** Completes handshakes; the protocol itself is the library's. */
export type WebSocketAcceptor = (
  request: IncomingMessage,
  socket: Socket,
  head: Buffer,
  headers: Readonly<Record<string, string>>,
) => WebSocket;

/** Messages are as long as a body may be, and never compressed: that would cost memory for each connection. */
export function createWebSocketAcceptor(options: {
  readonly maxMessageBytes: number;
  /** How long, once a stream has ended, its reader has for what is left of it. */
  readonly closeTimeoutMs: number;
}): WebSocketAcceptor {
  // @types/ws does not have `closeTimeout` yet.
  const serverOptions = {
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: options.maxMessageBytes,
    closeTimeout: options.closeTimeoutMs,
    handleProtocols: (offered: Set<string>) => offered.size === 2 && offered.has(tokenProtocol) && tokenProtocol,
  };
  const server = new WebSocketServer(serverOptions);
  return (request, socket, head, headers) => {
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`);
    const addHeaders = (all: string[]) => void all.push(...lines);
    let refusal: Error | undefined;
    let accepted: WebSocket | undefined;
    const onRefused = (error: Error) => {
      refusal = error;
    };
    // All of it happens within the call.
    server.once('headers', addHeaders).once('wsClientError', onRefused);
    server.handleUpgrade(request, socket, head, (webSocket) => {
      accepted = webSocket;
    });
    server.off('headers', addHeaders).off('wsClientError', onRefused);
    if (accepted !== undefined) return accepted;
    throw new HttpError(400, Code.INVALID_ARGUMENT, refusal?.message ?? 'the connection was closed', {
      'sec-websocket-version': '13',
    });
  };
}

/**
 * Makes `Authorization` of the token that a browser's `new WebSocket(url, ['bearer', token])` brings, which can set no
 * header. It has the last word where both are there.
 */
export function takeProtocolToken(headers: IncomingHttpHeaders): void {
  const [, token] = tokenProtocolSyntax.exec(headers['sec-websocket-protocol'] ?? '') ?? [];
  if (token !== undefined) headers.authorization = `Bearer ${token}`;
}

/**
 * Whether a page is of this very host. Browsers ask nobody before they open a WebSocket, and send the user's cookies along:
 * so pages of other origins may only where CORS lets them.
 */
export function isSameOrigin(origin: string, host: string | undefined): boolean {
  const page = URL.parse(origin);
  return page !== null && page.host === URL.parse(`${page.protocol}//${host}`)?.host;
}

/** How many messages the client sends: as many as it likes, the one of the method, or none as the URL has it all. */
export type RequestCount = 'many' | 'one' | 'none';

/**
 * Both directions of a WebSocket, as text frames. The client sends the JSON of one message a frame, and an empty frame
 * where no further will follow. It gets what a line of NDJSON would be: `{"result":{…}}`, and as the last frame
 * `{"status":{…}}`; the close code says the same in short (docs/streams.md). A client that closes leaves its call.
 */
export function openWebSocket(
  upgrade: Upgrade,
  options: {
    readonly errors: ErrorWriter;
    readonly requests: RequestCount;
    /** An empty text stands for a message that the URL has in whole. */
    readonly decode: (text: string) => Uint8Array;
    readonly writeJson: (message: Uint8Array) => string;
    /** How often a ping looks for a peer that is no longer there. */
    readonly heartbeatMs: number;
  },
): { readonly encoder: Encoder; readonly source: RequestSource } {
  const { errors, requests, decode, writeJson, heartbeatMs } = options;
  const { socket } = upgrade;
  const webSocket = upgrade.accept();
  let closeCode: number | undefined;
  let unansweredPings = 0;

  const pings = setInterval(() => {
    // A ping would wait behind what the reader has not taken; its pong, behind what we do not read.
    if (socket.writableNeedDrain) return;
    if (!webSocket.isPaused && unansweredPings++ >= maxUnansweredPings) return void socket.destroy();
    webSocket.ping();
  }, heartbeatMs);
  webSocket.on('pong', () => {
    unansweredPings = 0;
  });
  socket.once('close', () => clearInterval(pings));

  const encoder: Encoder = {
    onHeaders() {},
    onMessage(message) {
      webSocket.send(`{"result":${writeJson(message)}}`);
      return webSocket.readyState === WebSocket.OPEN && !socket.writableNeedDrain;
    },
    onEnd(status) {
      clearInterval(pings);
      const json = errors.statusJson(status);
      webSocket.send(`{"status":${JSON.stringify(json)}}`);
      webSocket.close(closeCode ?? closeCodeOf(json), reasonOf(json));
    },
  };

  let ended = false;
  let stopped = false;

  function take(sink: RequestSink, text: string): void {
    const isEmpty = text.trim() === '';
    if (isEmpty && (ended || requests === 'many')) {
      if (!ended) sink.onEnd();
      ended = true;
      return;
    }
    if (ended) throw new RpcError(Code.INVALID_ARGUMENT, 'no message may follow the last one');
    const last = requests === 'one';
    ended = last;
    if (!sink.onMessage(decode(isEmpty ? '' : text), last)) webSocket.pause();
  }

  const source: RequestSource = {
    start(sink) {
      webSocket.on('message', (data: Buffer, isBinary) => {
        if (stopped) return;
        try {
          if (isBinary) {
            closeCode = closeCodes.unsupportedData;
            throw new RpcError(Code.INVALID_ARGUMENT, 'messages must be text frames');
          }
          take(sink, data.toString());
        } catch (error) {
          sink.onError(error);
        }
      });
      webSocket.on('error', (error: Error & { readonly code?: string }) => {
        // By now the library has closed the connection, with the code that RFC 6455 has for it.
        const tooLong = error.code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH';
        sink.onError(new RpcError(tooLong ? Code.RESOURCE_EXHAUSTED : Code.INVALID_ARGUMENT, error.message));
      });
      if (requests !== 'none') return;
      ended = true;
      sink.onMessage(decode(''), true);
    },
    resume() {
      webSocket.resume();
    },
    stop() {
      stopped = true;
      webSocket.resume();
    },
  };
  return { encoder, source };
}

/** docs/streams.md has the table. */
function closeCodeOf(status: StatusJson): number {
  if (status.code === Code.OK) return closeCodes.ok;
  if (status.code === Code.UNAVAILABLE && retryDelayMs(status) !== undefined) return closeCodes.serviceRestart;
  return closeCodes.firstOfStatuses + Code[codeName(status.code)];
}

/** `NOT_FOUND: no such shelf`, cut to what a close frame holds, between two characters. */
function reasonOf({ code, message = '' }: StatusJson): string {
  if (code === Code.OK) return '';
  const bytes = Buffer.from(message === '' ? codeName(code) : `${codeName(code)}: ${message}`);
  return new TextDecoder().decode(bytes.subarray(0, maxReasonBytes), { stream: true });
}
