import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

export interface HttpLoadOptions {
  readonly port: number;
  /** Of the request with that number: `/v1/hello/world`. */
  readonly path: (index: number) => string;
  /** The whole body of each reply that is right. */
  readonly body: (index: number) => string;
  /** Lines of the head besides `Host`. */
  readonly headers?: readonly string[];
  /** Requests at a time, each on a connection of its own. */
  readonly connections: number;
  readonly durationMs: number;
  /** Defaults to the next as soon as a reply has come. Who finds no connection free is counted as missed. */
  readonly perS?: number;
}

export interface LoadResult {
  readonly ok: number;
  /** Replies that were not right, by their status, and what went without one. */
  readonly wrong: ReadonlyMap<string, number>;
  readonly durationMs: number;
  /** Of the replies that were right, sorted, ms. */
  readonly latenciesMs: readonly number[];
}

/** Requests on their way at the end have so long. */
const lastReplyMs = 15_000;
const openedAtOnce = 100;

/**
 * Sends GETs over plain sockets and looks at each reply, for as little as that can cost: on a small machine what the load
 * takes is missing to who is measured.
 */
export async function runHttpLoad(options: HttpLoadOptions): Promise<LoadResult> {
  const { connections, durationMs, perS } = options;
  const latenciesMs: number[] = [];
  const wrong = new Map<string, number>();
  let index = 0;
  let stopped = false;
  const told = {
    next: () => (stopped || perS !== undefined ? undefined : index++),
    ok: (latencyMs: number) => void latenciesMs.push(latencyMs),
    wrong: (what: string) => void wrong.set(what, (wrong.get(what) ?? 0) + 1),
  };
  const lines: Line[] = [];
  // A few at a time: a connection that finds no place in the queue of the listener waits for seconds.
  while (lines.length < connections) {
    const some = Math.min(connections - lines.length, openedAtOnce);
    lines.push(...(await Promise.all(Array.from({ length: some }, () => openLine(options, told)))));
  }
  const startedMs = performance.now();
  if (perS === undefined) {
    for (const line of lines) line.send(index++);
    await delay(durationMs);
  } else {
    let at = 0;
    const free = () => {
      for (let tried = 0; tried < lines.length; tried++) {
        at = (at + 1) % lines.length;
        const line = lines[at];
        if (line?.isFree) return line;
      }
      return undefined;
    };
    while (performance.now() - startedMs < durationMs) {
      const due = Math.floor(((performance.now() - startedMs) * perS) / 1_000);
      while (index < due) {
        const line = free();
        if (line === undefined) told.wrong('missed');
        line?.send(index);
        index++;
      }
      await delay(1);
    }
  }
  stopped = true;
  const tookMs = performance.now() - startedMs;
  const lastMs = performance.now() + lastReplyMs;
  while (lines.some(({ isFree }) => !isFree) && performance.now() < lastMs) await delay(1);
  for (const line of lines) line.close();
  latenciesMs.sort((a, b) => a - b);
  return { ok: latenciesMs.length, wrong, durationMs: tookMs, latenciesMs };
}

/** Of numbers that are sorted. */
export function percentile(sorted: readonly number[], percent: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor((sorted.length * percent) / 100))] ?? Number.NaN;
}

interface Line {
  readonly isFree: boolean;
  send(index: number): void;
  close(): void;
}

interface Told {
  /** The next request to be sent on a line whose reply has come. */
  next(): number | undefined;
  ok(latencyMs: number): void;
  wrong(what: string): void;
}

/**
 * One connection with one request at a time; made again when the server has ended it. It is open when a first request has
 * been answered: the kernel tells of a connection before the server has it.
 */
async function openLine(options: HttpLoadOptions, told: Told): Promise<Line> {
  const { port, path, body, headers = [] } = options;
  const head = ['', 'Host: localhost', ...headers, '', ''].join('\r\n');
  let socket: Socket;
  let received = '';
  let current: number | undefined;
  let sentMs = 0;
  let closed = false;
  const greeted = Promise.withResolvers<void>();

  const open = () => {
    socket = connect({ port, host: '127.0.0.1', noDelay: true });
    socket.setEncoding('utf8');
    const own = socket;
    socket.on('data', (text) => {
      if (own === socket) onText(String(text));
    });
    socket.on('error', () => {}); // It closes, and that is heard.
    socket.on('close', () => {
      if (closed || own !== socket) return;
      open();
      if (current === undefined) return;
      if (current === greeting) return isOpen();
      told.wrong('cut');
      goOn();
    });
    return socket;
  };
  const send = (index: number) => {
    current = index;
    sentMs = performance.now();
    socket.write(`GET ${index === greeting ? '/' : path(index)} HTTP/1.1${head}`);
  };
  const isOpen = () => {
    current = undefined;
    received = '';
    greeted.resolve();
  };
  const goOn = () => {
    current = undefined;
    received = '';
    const next = told.next();
    if (next !== undefined) send(next);
  };
  const onText = (text: string) => {
    received = received === '' ? text : received + text;
    const end = received.indexOf('\r\n\r\n');
    if (end === -1 || current === undefined) return;
    const content = contentOf(received, end + 4);
    if (content === undefined) return;
    const status = received.slice(9, 12);
    if (current === greeting) return isOpen();
    if (status === '200' && content === body(current)) told.ok(performance.now() - sentMs);
    else told.wrong(status === '200' ? `another reply: ${content}` : `HTTP ${status}`);
    goOn();
  };

  await once(open(), 'connect');
  send(greeting);
  await greeted.promise;
  return {
    get isFree() {
      return current === undefined;
    },
    send,
    close() {
      closed = true;
      socket.destroy();
    },
  };
}

/** In place of a number: a request for what no server has. */
const greeting = -1;

/** The body of a reply, once it is there as a whole; it begins at that place. */
function contentOf(reply: string, start: number): string | undefined {
  const length = /\r\ncontent-length: *(\d+)/i.exec(reply)?.[1];
  if (length !== undefined) {
    const content = reply.slice(start);
    return Buffer.byteLength(content) < Number(length) ? undefined : content;
  }
  if (!reply.endsWith('\r\n0\r\n\r\n')) return undefined;
  // Chunks of text in ASCII, as all of these replies are.
  let content = '';
  for (let at = start; ; ) {
    const line = reply.indexOf('\r\n', at);
    const size = Number.parseInt(reply.slice(at, line), 16);
    if (size === 0) return content;
    content += reply.slice(line + 2, line + 2 + size);
    at = line + 4 + size;
  }
}
