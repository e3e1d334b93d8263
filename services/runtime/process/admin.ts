import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Registry } from 'prom-client';
import { logLevels } from './config.ts';
import type { Logger } from './log.ts';
import { acceptsOpenMetrics, openMetricsType, writeOpenMetrics } from './openmetrics.ts';
import { http } from './node-http.ts';

/** How long `stop()` lets replies in flight finish, such as the last scrape. */
const stopGraceMs = 1_000;

/** Answers one request. What it throws is answered with 500, or with the status of a `RequestError`. */
export type AdminHandler = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>;

/** By method and exact path. A GET route answers HEAD too. */
export type AdminRoutes = Readonly<Record<`${'GET' | 'POST' | 'PUT' | 'DELETE'} /${string}`, AdminHandler>>;

/** The HTTP port of the operators: never the public one. */
export interface Admin {
  /** Listens; resolves with the bound port. Rejects with the error of the bind. */
  start(): Promise<number>;
  /** Closes the port, and after a second whatever reply is still in flight. */
  stop(): Promise<void>;
  /** What `/readyz` says. It begins as not ready: `starting`. */
  setReady(ready: boolean, reason?: string): void;
  /** The bound port; the one asked for before `start()`. */
  readonly port: number;
}

/** Thrown by a handler whose client is at fault: the status and, as the body, the message. */
export class RequestError extends Error {
  override readonly name = 'RequestError';
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** Serves `/livez`, `/readyz`, `/metrics`, `/loglevel` where there is a log, and further routes. */
export function createAdmin(options: {
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
  readonly registry: Registry;
  /** False makes `/livez` fail, and Kubernetes restart the pod. Defaults to always true. */
  readonly live?: () => boolean;
  readonly routes?: AdminRoutes;
  /** Told what handlers throw. `PUT /loglevel {"level": "debug"}` changes its level, which holds until the next start. */
  readonly log?: Logger;
}): Admin {
  const { registry, live = () => true } = options;
  let port = options.port;
  let ready = false;
  let reason = 'starting';

  const routes = new Map<string, AdminHandler>(
    Object.entries({
      'GET /livez': (_request, response) => (live() ? reply(response, 200, 'live') : reply(response, 503, 'not live')),
      'GET /readyz': (_request, response) => (ready ? reply(response, 200, 'ready') : reply(response, 503, reason)),
      'GET /metrics': async ({ headers }, response) => {
        const isOpen = acceptsOpenMetrics(headers.accept);
        const metrics = await (isOpen ? writeOpenMetrics(registry) : registry.metrics());
        response.setHeader('vary', 'accept');
        response.setHeader('content-type', isOpen ? openMetricsType : registry.contentType).end(metrics);
      },
      ...(options.log && logLevelRoutes(options.log)),
      ...options.routes,
    } satisfies AdminRoutes),
  );

  const server = http.createServer(
    { headersTimeout: 5_000, requestTimeout: 10_000, connectionsCheckingInterval: 1_000 },
    (request, response) => {
      void answer(request, response);
    },
  );

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const path = request.url?.replace(/\?.*$/s, '') ?? '/';
      const method = request.method === 'HEAD' ? 'GET' : request.method;
      const handler = routes.get(`${method} ${path}`);
      if (handler !== undefined) return await handler(request, response);
      const allowed = ['GET', 'POST', 'PUT', 'DELETE'].filter((other) => routes.has(`${other} ${path}`));
      if (allowed.length === 0) return reply(response, 404, 'not found');
      response.setHeader('allow', allowed.join(', '));
      reply(response, 405, 'method not allowed');
    } catch (error) {
      if (!(error instanceof RequestError))
        options.log?.error({ err: error, url: request.url }, 'admin request failed');
      if (response.headersSent) response.destroy();
      else if (error instanceof RequestError)
        reply(response.setHeader('connection', 'close'), error.status, error.message);
      else reply(response, 500, 'internal error');
    }
  }

  return {
    async start() {
      server.listen(options.port, options.host);
      await once(server, 'listening');
      port = (server.address() as AddressInfo).port;
      return port;
    },
    async stop() {
      if (!server.listening) return;
      const closed = once(server, 'close');
      server.close();
      const timer = setTimeout(() => server.closeAllConnections(), stopGraceMs);
      await closed;
      clearTimeout(timer);
    },
    setReady(nowReady, why = 'not ready') {
      ready = nowReady;
      reason = why;
    },
    get port() {
      return port;
    },
  };
}

function logLevelRoutes(log: Logger): AdminRoutes {
  const show = (response: ServerResponse) =>
    response.setHeader('content-type', 'application/json').end(`${JSON.stringify({ level: log.level })}\n`);
  return {
    'GET /loglevel': (_request, response) => void show(response),
    async 'PUT /loglevel'(request, response) {
      const body = (await readJsonBody(request)) as { readonly level?: unknown } | null;
      const level = logLevels.find((name) => name === body?.level);
      if (level === undefined) throw new RequestError(400, `level must be one of ${logLevels.join(', ')}`);
      log.level = level;
      show(response);
    },
  };
}

/** Reads the body of a request as JSON. Throws a `RequestError` if it is something else or longer than 64 KiB. */
export async function readJsonBody(request: IncomingMessage, maxBytes = 65_536): Promise<unknown> {
  if (!/^application\/json\s*(;|$)/i.test(request.headers['content-type'] ?? '')) {
    throw new RequestError(415, 'content-type must be application/json');
  }
  const chunks: Buffer[] = [];
  let bytes = 0;
  // Left undestroyed on the way out, so that the refusal can still be sent.
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > maxBytes) throw new RequestError(413, `body must be <= ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    throw new RequestError(400, 'body must be JSON');
  }
}

function reply(response: ServerResponse, status: number, message: string): void {
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' }).end(`${message}\n`);
}
