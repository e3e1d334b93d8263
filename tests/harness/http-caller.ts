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
  /** Of each request. Defaults to none. */
  readonly headers?: Readonly<Record<string, string>>;
}

export function createHttpCaller(
  ports: readonly number[],
  { host = '127.0.0.1', keepAlive = true, timeoutMs = 10_000, headers = {} }: HttpCallerOptions = {},
): HttpCaller {
  const agent = new Agent({ keepAlive });
  let used = ports;
  let turn = 0;

  return {
    async get(path) {
      const port = used[turn % used.length] as number;
      turn += 1;
      try {
        return await outcomeOf(await request({ host, port, path, headers, agent, timeout: timeoutMs }));
      } catch (error) {
        return { code: (error as NodeJS.ErrnoException).code ?? (error as Error).message };
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

function request(options: RequestOptions & { readonly timeout: number }): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const sent = get(options, resolve);
    sent.once('timeout', () => sent.destroy(new Error(`no reply within ${options.timeout} ms`)));
    sent.once('error', reject);
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
