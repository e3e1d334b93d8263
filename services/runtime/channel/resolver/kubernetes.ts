import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import https from 'node:https';
import { isIPv6 } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import * as v from 'valibot';
import type { Endpoint, Resolver } from '../../call/call.ts';
import { type EndpointSlice, endpointSliceSchema, toEndpoints } from './endpoint-slice.ts';
import { http } from '../../process/node-http.ts';

/** How to reach the API server of a cluster. It must allow `get`, `list` and `watch` of `endpointslices`. */
export interface KubernetesAccess {
  /** Such as `https://10.96.0.1:443`. */
  readonly server: string;
  /** Read for each request, since the cluster replaces the token about every hour. Defaults to none. */
  readonly tokenFile?: string;
  /** PEM of the authority that signed the server's certificate, read for each request. Defaults to the system's. */
  readonly caFile?: string;
  /** That of the pod, for targets that name none. */
  readonly namespace?: string;
}

export interface KubernetesResolverOptions extends KubernetesAccess {
  readonly namespace: string;
  readonly service: string;
  /** A port's name in the Service, or the number that the pods listen on. */
  readonly port: string;
  /** How long a connection may be silent; the server is asked to end each watch before. Defaults to 90 s. */
  readonly silenceTimeoutMs?: number;
  /** How long the server may take to begin an answer, and between two parts of a list. Defaults to 10 s. */
  readonly answerTimeoutMs?: number;
  /** Wait before the first retry; it doubles up to `maxBackoffMs`, with jitter. Defaults to 0.5 s. */
  readonly initialBackoffMs?: number;
  /** Defaults to 5 s, so that a server that is back is found by then. */
  readonly maxBackoffMs?: number;
}

const pageSize = 500;
/** An object has at most 1.5 MB in etcd, where it is smaller than in JSON. */
const maxLineBytes = 8 * 1024 * 1024;
const maxListBytes = 64 * 1024 * 1024;
const maxErrorBytes = 64 * 1024;
const maxErrorLength = 300;
/** A dual-stack pod is in two slices, written one after the other; and a rollout changes several at once. */
const coalesceMs = 50;
/** A watch that ends sooner than that and brought nothing is no watch. */
const minWatchMs = 1_000;

const listSchema = v.object({
  metadata: v.object({ resourceVersion: v.pipe(v.string(), v.nonEmpty()), continue: v.nullish(v.string()) }),
  items: v.nullish(v.array(endpointSliceSchema)),
});
const eventSchema = v.object({ type: v.string(), object: v.unknown() });
const bookmarkSchema = v.object({ metadata: v.object({ resourceVersion: v.pipe(v.string(), v.nonEmpty()) }) });
const statusSchema = v.object({ code: v.optional(v.number(), 500), message: v.optional(v.string(), '') });

/** The server has forgotten the resource version or the rest of a list: only a new list helps. */
class GoneError extends Error {}

/**
 * The access that Kubernetes gives each pod; undefined outside a cluster.
 * https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
 */
export function inClusterAccess(
  env: Readonly<Record<string, string | undefined>>,
  serviceAccount = '/var/run/secrets/kubernetes.io/serviceaccount',
): KubernetesAccess | undefined {
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = env;
  if (!host) return undefined;
  const access = {
    server: `https://${isIPv6(host) ? `[${host}]` : host}:${port || 443}`,
    tokenFile: join(serviceAccount, 'token'),
    caFile: join(serviceAccount, 'ca.crt'),
  };
  try {
    return { ...access, namespace: readFileSync(join(serviceAccount, 'namespace'), 'utf8').trim() };
  } catch {
    return access; // The pod mounts no service account; a target can still name a namespace.
  }
}

/**
 * Lists the EndpointSlices of a Service, then watches them. A watch that ended goes on where it was; whatever else
 * happens ends in a new list, with backoff, and the last endpoints stay until then; a problem that stays is told once.
 * Unchanged endpoints are told again when the server confirms them, about each minute, so that their age can be known.
 * https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
 */
export function createKubernetesResolver(options: KubernetesResolverOptions): Resolver {
  const { namespace, service, port } = options;
  const silenceTimeoutMs = options.silenceTimeoutMs ?? 90_000;
  const answerTimeoutMs = options.answerTimeoutMs ?? 10_000;
  const initialBackoffMs = options.initialBackoffMs ?? 500;
  const maxBackoffMs = options.maxBackoffMs ?? 5_000;
  const stopping = new AbortController();
  const api = createApi(options, answerTimeoutMs, stopping.signal);
  const path = `/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices`;
  const what = `endpointslices of ${service} in ${namespace}`;

  let onEndpoints: (endpoints: readonly Endpoint[]) => void = () => {};
  let onError: (error: Error) => void = () => {};
  let slices = new Map<string, EndpointSlice>();
  /** Where the next watch begins; undefined asks for a list. */
  let resourceVersion: string | undefined;
  let changeTimer: NodeJS.Timeout | undefined;
  let published: string | undefined;
  let failures = 0;
  let lastProblem = '';

  async function run(): Promise<void> {
    while (!stopping.signal.aborted) {
      try {
        if (resourceVersion === undefined) await list();
        publish('confirmed');
        await watch();
      } catch (error) {
        if (stopping.signal.aborted) return;
        const problem = `cannot ${resourceVersion === undefined ? 'list' : 'watch'} ${what}: ${describe(error)}`;
        resourceVersion = undefined;
        failures++;
        if (error instanceof GoneError && failures === 1) continue;
        if (problem !== lastProblem) onError(new Error(problem, { cause: error }));
        lastProblem = problem;
        const backoffMs = Math.min(maxBackoffMs, initialBackoffMs * 2 ** (failures - 1));
        const jitter = 0.5 + Math.random() / 2;
        // It is interrupted by stop().
        await sleep(backoffMs * jitter, undefined, { ref: false, signal: stopping.signal }).catch(() => {});
      }
    }
  }

  async function list(): Promise<void> {
    const found = new Map<string, EndpointSlice>();
    let next: string | null | undefined;
    let version: string;
    do {
      const query = { limit: String(pageSize), ...(next ? { continue: next } : {}) };
      const { metadata, items } = parse(listSchema, await api.getText(pathWith(query), maxListBytes));
      for (const slice of items ?? []) found.set(slice.metadata.name, slice);
      next = metadata.continue;
      version = metadata.resourceVersion;
    } while (next);
    slices = found;
    resourceVersion = version;
  }

  /** Returns when the server ends the watch. */
  async function watch(): Promise<void> {
    // Before the silence counts, whether or not the server sends bookmarks; not all clients at the same time.
    const timeoutSeconds = Math.ceil((silenceTimeoutMs / 1_000) * (0.6 + Math.random() * 0.2));
    const query = {
      watch: '1',
      allowWatchBookmarks: 'true',
      resourceVersion: resourceVersion ?? '',
      timeoutSeconds: String(timeoutSeconds),
    };
    const startedMs = performance.now();
    let works = false;
    try {
      for await (const line of lines(api.get(pathWith(query), silenceTimeoutMs), maxLineBytes)) {
        take(line);
        works = true;
      }
    } finally {
      works ||= performance.now() - startedMs >= minWatchMs;
      if (works) {
        failures = 0;
        lastProblem = '';
      }
    }
    if (!works) throw new Error('the watch ended at once');
  }

  function take(line: string): void {
    const { type, object } = parse(eventSchema, line);
    switch (type) {
      case 'ADDED':
      case 'MODIFIED':
      case 'DELETED': {
        const slice = check(endpointSliceSchema, object);
        if (type === 'DELETED') slices.delete(slice.metadata.name);
        else slices.set(slice.metadata.name, slice);
        resourceVersion = slice.metadata.resourceVersion;
        changeTimer ??= setTimeout(publish, coalesceMs, 'changed').unref();
        break;
      }
      case 'BOOKMARK':
        resourceVersion = check(bookmarkSchema, object).metadata.resourceVersion;
        publish('confirmed');
        break;
      case 'ERROR': {
        const { code, message } = check(statusSchema, object);
        throw statusError(code, path, message);
      }
      default: // of a server that knows more
    }
  }

  /** What changed, but not in a way that matters here, is told when it is next confirmed. */
  function publish(why: 'changed' | 'confirmed'): void {
    clearTimeout(changeTimer);
    changeTimer = undefined;
    if (stopping.signal.aborted) return;
    let endpoints: Endpoint[] | undefined;
    let problem: string | undefined;
    try {
      endpoints = toEndpoints(slices.values(), port);
      if (slices.size === 0) problem = 'there are none: does the service exist?';
    } catch (error) {
      problem = (error as Error).message;
    }
    const outcome = JSON.stringify([endpoints, problem]);
    if (why === 'changed' && outcome === published) return;
    published = outcome;
    if (endpoints !== undefined) onEndpoints(endpoints);
    if (problem !== undefined) onError(new Error(`cannot use ${what}: ${problem}`));
  }

  function pathWith(query: Record<string, string>): string {
    const selector = { labelSelector: `kubernetes.io/service-name=${service}` };
    return `${path}?${new URLSearchParams({ ...selector, ...query }).toString()}`;
  }

  return {
    start(endpointsListener, errorListener) {
      onEndpoints = endpointsListener;
      onError = errorListener;
      void run();
    },
    stop() {
      stopping.abort();
      clearTimeout(changeTimer);
      api.close();
    },
  };
}

/** GET requests to the API server, with the token and the CA as they are at that time. They hold no process alive. */
function createApi(access: KubernetesAccess, answerTimeoutMs: number, signal: AbortSignal) {
  const { server, tokenFile, caFile } = access;
  const secure = server.startsWith('https:');
  const request: typeof https.request = secure ? https.request : http.request;
  // Kept alive: the watch goes over the connection of the list.
  const agent = secure ? new https.Agent({ keepAlive: true }) : new http.Agent({ keepAlive: true });

  async function open(path: string): Promise<IncomingMessage> {
    const [token, ca] = await Promise.all([readIfAny(tokenFile), readIfAny(caFile)]);
    // A request that begins aborted would leave its connection with the agent.
    signal.throwIfAborted();
    const headers = {
      accept: 'application/json',
      'user-agent': 'tandem',
      ...(token === undefined ? {} : { authorization: `Bearer ${token.trim()}` }),
    };
    const sent = request(`${server}${path}`, { agent, headers, signal, ...(ca === undefined ? {} : { ca }) });
    sent.on('socket', (socket) => socket.unref());
    sent.on('error', () => {}); // What happens after the response, the response tells.
    sent.end();
    const noAnswer = () => sent.destroy(new Error(`no answer within ${answerTimeoutMs} ms`));
    const timer = setTimeout(noAnswer, answerTimeoutMs).unref();
    try {
      const [response] = (await once(sent, 'response')) as [IncomingMessage];
      return response;
    } finally {
      clearTimeout(timer);
    }
  }

  async function* get(path: string, silenceTimeoutMs: number): AsyncGenerator<Buffer, void, undefined> {
    const response = await open(path);
    const silence = () => response.destroy(new Error(`nothing came for ${silenceTimeoutMs} ms`));
    const timer = setTimeout(silence, silenceTimeoutMs).unref();
    try {
      const { statusCode = 0 } = response;
      if (statusCode !== 200) {
        const [pathname = ''] = path.split('?');
        throw statusError(statusCode, pathname, messageOf(await readAll(response, maxErrorBytes)), tokenFile);
      }
      for await (const chunk of response) {
        timer.refresh();
        yield chunk;
      }
    } finally {
      clearTimeout(timer);
    }
  }

  return {
    /** The body, as it comes. */
    get,
    getText: (path: string, maxBytes: number) => readAll(get(path, answerTimeoutMs), maxBytes),
    close: () => agent.destroy(),
  };
}

async function readIfAny(file: string | undefined): Promise<string | undefined> {
  return file === undefined ? undefined : readFile(file, 'utf8');
}

async function readAll(body: AsyncIterable<Buffer>, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > maxBytes) throw new Error(`the answer is larger than ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

/** Split as bytes, so that a chunk may end inside a character. */
async function* lines(body: AsyncIterable<Buffer>, maxBytes: number): AsyncGenerator<string, void, undefined> {
  let parts: Buffer[] = [];
  let size = 0;
  for await (const chunk of body) {
    let start = 0;
    for (let end = chunk.indexOf('\n'); end !== -1; end = chunk.indexOf('\n', start)) {
      yield Buffer.concat([...parts, chunk.subarray(start, end)]).toString();
      parts = [];
      size = 0;
      start = end + 1;
    }
    if (start === chunk.length) continue;
    parts.push(chunk.subarray(start));
    size += chunk.length - start;
    if (size > maxBytes) throw new Error(`an event is larger than ${maxBytes} bytes`);
  }
  if (size > 0) throw new Error('the watch ended within an event');
}

function statusError(code: number, path: string, message: string, tokenFile?: string): Error {
  const hint = code === 401 && tokenFile !== undefined ? ` (token from ${tokenFile})` : '';
  const line = message.replace(/\s+/g, ' ').trim();
  const short = line.length > maxErrorLength ? `${line.slice(0, maxErrorLength)}…` : line;
  const text = `${code} ${http.STATUS_CODES[code] ?? ''} for ${path}${hint}: ${short}`;
  return code === 410 ? new GoneError(text) : new Error(text);
}

/** The message of a Kubernetes `Status`; a proxy in between answers with text. */
function messageOf(body: string): string {
  try {
    return parse(statusSchema, body).message;
  } catch {
    return body;
  }
}

function describe(error: unknown): string {
  const { message, code } = error as NodeJS.ErrnoException;
  return message || code || String(error); // several addresses that all failed are an error without a message
}

function parse<T>(schema: v.GenericSchema<unknown, T>, text: string): T {
  return check(schema, JSON.parse(text));
}

function check<T>(schema: v.GenericSchema<unknown, T>, value: unknown): T {
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  const [issue] = result.issues;
  throw new Error(`${v.getDotPath(issue) ?? 'the answer'}: ${issue.message}`);
}
