import { Agent, get, type IncomingMessage, type RequestOptions } from 'node:http';
import { text } from 'node:stream/consumers';
import { codeName } from '#runtime/call/status.ts';
import type { Outcome } from './ledger.ts';

/** A client of gateways that takes them in turn as a load balancer does. */
export interface HttpCaller extends Disposable {
  /** OK takes a whole reply: of a stream, with a last line that says so. One without a status is a `cut stream`. */
  get(path: string): Promise<Outcome>;
  /** Which gateways it may use from now on, by port. */
  use(ports: readonly number[]): void;
}

export interface HttpCallerOptions {
  /** Defaults to this machine. */
  readonly host?: string;
  /** Whether connections are kept for the next call. Defaults to true. */
  readonly keepAlive?: boolean;
  /** How long a connection may be silent. Defaults to 10 s. */
  readonly timeoutMs?: number;
  /**
   * Whether a GET whose kept connection is closed before any answer goes out again, once, on a new one, as clients may and
   * browsers and Go's do: a server that closes an idle connection cannot know that a request is on its way.
   * https://www.rfc-editor.org/rfc/rfc9112#section-9.3.1 Defaults to false.
   */
  readonly resend?: boolean;
  /** Of each request. Defaults to none. */
  readonly headers?: Readonly<Record<string, string>>;
}

export function createHttpCaller(
  ports: readonly number[],
  { host = '127.0.0.1', keepAlive = true, timeoutMs = 10_000, resend = false, headers = {} }: HttpCallerOptions = {},
): HttpCaller {
  const agent = new Agent({ keepAlive });
  let used = ports;
  let turn = 0;

  return {
    async get(path) {
      const port = used[turn % used.length] as number;
      turn += 1;
      const options = { host, port, path, headers, agent, timeout: timeoutMs };
      let resent = false;
      try {
        const response = await request(options).catch((error: Error) => {
          if (!resend || !(error instanceof ClosedBeforeAnswer)) throw error;
          resent = true;
          return request({ ...options, agent: false });
        });
        return { ...(await outcomeOf(response)), resent };
      } catch (error) {
        return { code: (error as NodeJS.ErrnoException).code ?? (error as Error).message, resent };
      }
    },
    use(next) {
      used = next;
    },
    [Symbol.dispose]() {
      agent.destroy();
    },
  };
}

/** A connection that had been used before. */
class ClosedBeforeAnswer extends Error {
  readonly code = 'ECONNRESET';
}

function request(options: RequestOptions & { readonly timeout: number }): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const sent = get(options, resolve);
    sent.once('timeout', () => sent.destroy(new Error(`no reply within ${options.timeout} ms`)));
    sent.once('error', (error: NodeJS.ErrnoException) => {
      const isClosed = error.code === 'ECONNRESET' || error.code === 'EPIPE';
      reject(isClosed && sent.reusedSocket ? new ClosedBeforeAnswer(error.message, { cause: error }) : error);
    });
  });
}

async function outcomeOf(response: IncomingMessage): Promise<Outcome> {
  const body = await text(response);
  const { statusCode, headers } = response;
  if (statusCode === 503 && body.includes('"OVERLOADED"')) return { code: 'shed' };
  if (statusCode !== 200) return { code: `HTTP ${statusCode}` };
  if (headers['content-type'] === 'application/x-ndjson') {
    const [, code] = /^\{"status":\{"code":(\d+).*\n$/m.exec(body) ?? [];
    if (code === undefined) return { code: 'cut stream' };
    if (code !== '0') return { code: `stream ended with ${codeName(Number(code))}` };
  }
  return { code: 'OK', servedBy: String(headers['served-by']) };
}
