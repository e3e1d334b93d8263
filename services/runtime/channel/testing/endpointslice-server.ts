import { once } from 'node:events';
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import https from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { localCertificate } from './certificates.ts';

/** An EndpointSlice as the API server writes it. */
export interface EndpointSliceObject {
  readonly apiVersion: 'discovery.k8s.io/v1';
  readonly kind: 'EndpointSlice';
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly resourceVersion: string;
  };
  readonly addressType: string;
  readonly endpoints: EndpointObject[] | null;
  readonly ports: { readonly name?: string; readonly port?: number | null; readonly protocol?: string }[] | null;
}

export interface EndpointObject {
  readonly addresses: string[];
  readonly conditions?: { readonly ready?: boolean; readonly serving?: boolean; readonly terminating?: boolean };
  readonly targetRef?: { readonly kind: string; readonly name: string; readonly uid: string };
}

/** A slice of the Service `greeter` in `default`, unless told otherwise. */
export function endpointSlice(
  name: string,
  slice: Partial<Pick<EndpointSliceObject, 'addressType' | 'endpoints' | 'ports'>> & {
    readonly service?: string;
    readonly namespace?: string;
  },
): EndpointSliceObject {
  const { service = 'greeter', namespace = 'default', ...rest } = slice;
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name, namespace, labels: { 'kubernetes.io/service-name': service }, resourceVersion: '0' },
    addressType: 'IPv4',
    endpoints: [],
    ports: [{ name: 'grpc', port: 50051, protocol: 'TCP' }],
    ...rest,
  };
}

/** A ready endpoint of a pod, unless told otherwise. */
export function podEndpoint(
  uid: string,
  address: string,
  conditions: NonNullable<EndpointObject['conditions']> = { ready: true, serving: true, terminating: false },
): EndpointObject {
  return { addresses: [address], conditions, targetRef: { kind: 'Pod', name: `greeter-${uid}`, uid } };
}

export interface EndpointSliceServerOptions {
  /** Speaks TLS with `localCertificate`. */
  readonly tls?: boolean;
  /** Items on a page of a list at most. Defaults to what the client asks for. */
  readonly maxPageSize?: number;
  /** Sends the body of watches in pieces of that size. */
  readonly pieceBytes?: number;
}

/**
 * The part of a Kubernetes API server that concerns EndpointSlices, over a real socket: list with pages, watch with
 * bookmarks and resumption from a resource version, 410 Gone; and each way that it is known to fail.
 * https://kubernetes.io/docs/reference/using-api/api-concepts/
 */
export class EndpointSliceServer {
  readonly requests: { kind: 'list' | 'watch'; url: URL; authorization: string | undefined }[] = [];
  /** Requests with another token are answered 401. */
  token: string | undefined;
  port = 0;
  /** Runs before a request is answered. */
  onRequest: ((url: URL) => void) | undefined;

  private readonly options: EndpointSliceServerOptions;
  private server: http.Server | undefined;
  private readonly sockets = new Set<Socket>();
  private readonly watches = new Set<Watch>();
  private readonly pages = new Map<string, { version: number; items: EndpointSliceObject[] }>();
  private slices = new Map<string, EndpointSliceObject>();
  private history: { version: number; type: string; object: EndpointSliceObject }[] = [];
  private version = 1_000;
  private compactedVersion = 0;
  private answering = true;
  private failure: { code: number; reason: string; message: string } | undefined;

  constructor(options: EndpointSliceServerOptions = {}) {
    this.options = options;
  }

  get url(): string {
    return `${this.options.tls ? 'https' : 'http'}://127.0.0.1:${this.port}`;
  }

  get openSockets(): number {
    return this.sockets.size;
  }

  get openWatches(): number {
    return this.watches.size;
  }

  countOf(kind: 'list' | 'watch'): number {
    return this.requests.filter((request) => request.kind === kind).length;
  }

  /** Listens on a free port, and on the same one when it was stopped. */
  async start(): Promise<void> {
    const handle = (request: IncomingMessage, response: ServerResponse) => this.handle(request, response);
    this.server = this.options.tls ? https.createServer(localCertificate, handle) : http.createServer(handle);
    this.server.on('connection', (socket: Socket) => {
      this.sockets.add(socket);
      socket.on('close', () => this.sockets.delete(socket));
    });
    this.server.listen(this.port, '127.0.0.1');
    await once(this.server, 'listening');
    this.port = (this.server.address() as AddressInfo).port;
  }

  async stop(): Promise<void> {
    const { server } = this;
    if (server === undefined) return;
    this.server = undefined;
    server.close();
    this.cut();
    await once(server, 'close');
  }

  /** Makes these the slices; watches hear of each that came, changed or went. */
  setSlices(slices: readonly EndpointSliceObject[]): void {
    const wanted = new Map(slices.map((slice) => [`${slice.metadata.namespace}/${slice.metadata.name}`, slice]));
    const before = this.slices;
    this.slices = new Map();
    for (const [key, slice] of before) if (!wanted.has(key)) this.record('DELETED', slice);
    for (const [key, slice] of wanted) {
      const old = before.get(key);
      const same = old !== undefined && JSON.stringify(withVersion(old, 0)) === JSON.stringify(withVersion(slice, 0));
      this.slices.set(key, same ? old : this.record(old === undefined ? 'ADDED' : 'MODIFIED', slice));
    }
  }

  /** Something else in the cluster changed, and watches are told the version. */
  bookmark(): void {
    this.version++;
    const metadata = { resourceVersion: String(this.version), creationTimestamp: null };
    const object = { kind: 'EndpointSlice', apiVersion: 'discovery.k8s.io/v1', metadata, addressType: '' };
    for (const watch of this.watches) this.send(watch, 'BOOKMARK', { ...object, endpoints: null, ports: null });
  }

  /** Ends the watches as their `timeoutSeconds` does. */
  endWatches(): void {
    for (const watch of this.watches) watch.response.end();
    this.watches.clear();
  }

  /** Forgets the history. Watches are told so at once (`event`), or they end and the next one is refused (`status`). */
  expire(how: 'event' | 'status'): void {
    const old = this.version++;
    this.compactedVersion = this.version;
    this.history = [];
    if (how === 'event') {
      for (const watch of this.watches) this.send(watch, 'ERROR', gone(old, this.version));
    }
    this.endWatches();
  }

  /** Sends any event to the watches, such as one of another version of Kubernetes. */
  sendEvent(type: string, object: unknown): void {
    for (const watch of this.watches) this.send(watch, type, object);
  }

  /** Sends those bytes to the watches. */
  sendRaw(text: string): void {
    for (const { response } of this.watches) response.write(text);
  }

  /** Sends bytes to the watches that are no HTTP. */
  breakFraming(): void {
    for (const { response } of this.watches) response.socket?.write('no chunk\r\n');
  }

  /** Says nothing more on the watches there are, as when a connection is half open. */
  silence(): void {
    this.watches.clear();
  }

  /** Takes requests and says nothing, until `answerAgain`. */
  stopAnswering(): void {
    this.silence();
    this.answering = false;
  }

  answerAgain(): void {
    this.answering = true;
  }

  /** Resets every connection. */
  cut(): void {
    this.watches.clear();
    for (const socket of this.sockets) socket.resetAndDestroy();
  }

  /** Answers each request with this `Status`, until called without one. */
  failWith(failure?: { code: number; reason: string; message: string }): void {
    this.failure = failure;
  }

  private record(type: string, slice: EndpointSliceObject): EndpointSliceObject {
    this.version++;
    const object = withVersion(slice, this.version);
    this.history.push({ version: this.version, type, object });
    for (const watch of this.watches) if (matches(watch.url, object)) this.send(watch, type, object);
    return object;
  }

  private handle(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? '', this.url);
    const { authorization } = request.headers;
    const kind = url.searchParams.get('watch') === '1' ? 'watch' : 'list';
    this.requests.push({ kind, url, authorization });
    this.onRequest?.(url);
    if (!this.answering) return;
    if (this.failure !== undefined) replyStatus(response, this.failure);
    else if (this.token !== undefined && authorization !== `Bearer ${this.token}`)
      replyStatus(response, { code: 401, reason: 'Unauthorized', message: 'Unauthorized' });
    else if (!pathPattern.test(url.pathname) || !url.searchParams.has('labelSelector'))
      replyStatus(response, {
        code: 404,
        reason: 'NotFound',
        message: 'the server could not find the requested resource',
      });
    else if (kind === 'list') this.list(url, response);
    else this.watch(url, response);
  }

  private list(url: URL, response: ServerResponse): void {
    const token = url.searchParams.get('continue');
    const page = this.pages.get(token ?? '') ?? {
      version: this.version,
      items: [...this.slices.values()].filter((slice) => matches(url, slice)),
    };
    if (page.version < this.compactedVersion) return replyStatus(response, gone(page.version, this.version));
    const limit = Math.min(Number(url.searchParams.get('limit') || Infinity), this.options.maxPageSize ?? Infinity);
    const rest = page.items.slice(limit);
    const next = `${page.version}-${rest.length}`;
    if (rest.length > 0) this.pages.set(next, { version: page.version, items: rest });
    response.setHeader('content-type', 'application/json');
    response.end(
      JSON.stringify({
        kind: 'EndpointSliceList',
        apiVersion: 'discovery.k8s.io/v1',
        metadata: {
          resourceVersion: String(page.version),
          ...(rest.length > 0 ? { continue: next, remainingItemCount: rest.length } : {}),
        },
        items: page.items.slice(0, limit),
      }),
    );
  }

  private watch(url: URL, response: ServerResponse): void {
    const from = Number(url.searchParams.get('resourceVersion'));
    if (from < this.compactedVersion) return replyStatus(response, gone(from, this.version));
    response.setHeader('content-type', 'application/json');
    response.flushHeaders();
    const watch = { url, response };
    this.watches.add(watch);
    response.on('close', () => this.watches.delete(watch));
    for (const { version, type, object } of this.history) {
      if (version > from && matches(url, object)) this.send(watch, type, object);
    }
    const timeoutSeconds = Number(url.searchParams.get('timeoutSeconds'));
    const timer = setTimeout(() => {
      if (this.watches.delete(watch)) response.end();
    }, timeoutSeconds * 1_000).unref();
    response.on('close', () => clearTimeout(timer));
  }

  private send({ response }: Watch, type: string, object: unknown): void {
    const bytes = Buffer.from(`${JSON.stringify({ type, object })}\n`);
    const pieceBytes = this.options.pieceBytes ?? bytes.length;
    for (let at = 0; at < bytes.length; at += pieceBytes) response.write(bytes.subarray(at, at + pieceBytes));
  }
}

interface Watch {
  readonly url: URL;
  readonly response: ServerResponse;
}

const pathPattern = /^\/apis\/discovery\.k8s\.io\/v1\/namespaces\/([^/]+)\/endpointslices$/;

function matches(url: URL, { metadata }: EndpointSliceObject): boolean {
  const [, namespace] = pathPattern.exec(url.pathname) ?? [];
  const [label = '', value] = (url.searchParams.get('labelSelector') ?? '').split('=');
  return metadata.namespace === namespace && metadata.labels[label] === value;
}

function withVersion(slice: EndpointSliceObject, version: number): EndpointSliceObject {
  return { ...slice, metadata: { ...slice.metadata, resourceVersion: String(version) } };
}

function gone(version: number, now: number) {
  return {
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Failure',
    message: `too old resource version: ${version} (${now})`,
    reason: 'Expired',
    code: 410,
  };
}

function replyStatus(response: ServerResponse, status: { code: number; reason: string; message: string }): void {
  response.writeHead(status.code, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', ...status }));
}
