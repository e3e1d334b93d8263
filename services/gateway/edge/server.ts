import { isUtf8 } from 'node:buffer';
import { randomUUID } from 'node:crypto';
import type { IncomingHttpHeaders, IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { type FastifyError, type FastifyReply, type FastifyRequest, fastify } from 'fastify';
import { Counter, Gauge, type Registry } from 'prom-client';
import type { CallStatus, Method } from '#runtime/call/call.ts';
import { Code, RpcError } from '#runtime/call/status.ts';
import type { Logger } from '#runtime/process/log.ts';
import { http } from '#runtime/process/node-http.ts';
import type { EventLoop } from '../stages/event-loop.ts';
import type { HttpObserver, Observation } from '../stages/observe.ts';
import { type RawBody, takesRawBody } from '../transcoding/http-body.ts';
import { problemOfTarget } from '../transcoding/request-target.ts';
import { type HttpRoute, isApiRoute, type Match, type RouteTable } from '../transcoding/routes.ts';
import { type Cors, preflightMethod } from './cors.ts';
import { type ErrorWriter, HttpError, httpStatusOf, statusOf } from './errors.ts';
import type { Exchange, Identity, ServedRoute, Upgrade } from './exchange.ts';
import type { MetadataRules } from './metadata.ts';
import { ndjsonType } from './ndjson.ts';
import { createOpenStreams, type OpenStreams } from './open-streams.ts';
import { createWebSocketAcceptor, isSameOrigin, takeProtocolToken } from './websocket.ts';

/** The HTTP side of the gateway. */
export interface EdgeServer {
  /** Resolves with the bound port; rejects with the error of the bind. */
  listen(): Promise<number>;
  /** Serves on, asks connections and streams to go elsewhere, the streams spread over `delayMs`. */
  drain(delayMs: number): void;
  /** Closes the listener; resolves once no connection is left. */
  close(): Promise<void>;
  /** Cuts the connections that are left. */
  destroy(): void;
}

export interface EdgeServerOptions {
  readonly host: string;
  /** 0 for any free one. */
  readonly port: number;
  readonly routes: RouteTable<ServedRoute<HttpRoute>>;
  readonly errors: ErrorWriter;
  readonly metadata: MetadataRules;
  /** Undefined: no page of another origin may call. */
  readonly cors: Cors | undefined;
  readonly observer: HttpObserver;
  /** While it is overloaded, routes are asked whether they take another request. */
  readonly eventLoop: Pick<EventLoop, 'overloaded'>;
  readonly registry: Registry;
  readonly log: Logger;
  /** The longest body of a request, and the longest message of a stream of them. */
  readonly bodyLimitBytes: number;
  /** How many streams may be open at a time. */
  readonly maxStreams: number;
  /** How long the reader of a WebSocket has, at its end, for what is on its way. */
  readonly streamIdleTimeoutMs: number;
  /** How long a connection without a request stays open: longer than any load balancer in front, so that it closes first. */
  readonly keepAliveTimeoutMs: number;
  /** How long a request that is no stream may take to come; its head at most 10 s. */
  readonly requestTimeoutMs: number;
  /** Whose `X-Forwarded-For` is believed: addresses and networks. */
  readonly trustedProxies: readonly string[];
}

/** How long the head of a request may take to come, and how often that is looked at. */
const headersTimeoutMs = 10_000;
const timeoutCheckMs = 2_000;
/** How long, while closing, a new connection has for its first byte. */
const silentGraceMs = 500;
/** Of the request line and all headers. */
const maxHeadBytes = 16_384;

const requestIdSyntax = /^[\w.:/+=-]{1,128}$/;

/** One request on its way: known by its head first, and then an exchange. */
class Arrival implements Exchange {
  readonly match: Match<ServedRoute<HttpRoute>> | undefined;
  /** Set where the body is taken as it is, whatever its type. */
  readonly contentType: string | undefined;
  readonly request: FastifyRequest;
  readonly reply: FastifyReply;
  readonly observation: Observation;
  identity: Identity | undefined = undefined;
  body: string | RawBody = '';
  upload: IncomingMessage | undefined = undefined;
  upgrade: Upgrade | undefined = undefined;
  readonly errors: ErrorWriter;
  readonly metadata: MetadataRules;
  readonly streams: OpenStreams;

  constructor(
    request: FastifyRequest,
    reply: FastifyReply,
    match: Arrival['match'],
    observation: Observation,
    server: Pick<Exchange, 'errors' | 'metadata' | 'streams'>,
  ) {
    const isRaw = match?.served !== undefined && isApiRoute(match.served.route) && takesRawBody(match.served.route);
    this.match = match;
    this.contentType = isRaw ? (request.headers['content-type'] ?? '') : undefined;
    this.request = request;
    this.reply = reply;
    this.observation = observation;
    this.errors = server.errors;
    this.metadata = server.metadata;
    this.streams = server.streams;
  }

  get headers(): IncomingHttpHeaders {
    return this.request.raw.headers;
  }

  get ip(): string {
    return this.request.ip;
  }

  get requestId(): string {
    return this.request.id;
  }

  get segments(): readonly string[] {
    return this.match?.served === undefined ? [] : this.match.segments;
  }

  get query(): string {
    return queryOf(this.request.raw.url);
  }
}

/** Where each request has its arrival: a property, since a WeakMap of every request is work for the garbage collector. */
const arrivalKey = Symbol('arrival');
type Arriving = FastifyRequest & { [arrivalKey]?: Arrival };

function arrivalOf(request: FastifyRequest): Arrival {
  return (request as Arriving)[arrivalKey] as Arrival;
}

/** Where each connection has its last reply. */
const replyKey = Symbol('reply');
type Replying = Socket & { [replyKey]?: ServerResponse };

/** The part of a refusal that is the same for all requests. */
interface RefusalReply {
  readonly headers: OutgoingHttpHeaders;
  readonly body: string;
}

/** What a body that is taken as it is passes for, so that one parser reads it. */
const rawType = 'application/octet-stream';

/**
 * Fastify for connections, limits, bodies and hooks; routes are found by our own table, because the templates of
 * `google.api.http` (`/v1/hello:collect`, `{name=shelves/*}`) are more than its router has words for.
 */
export function createEdgeServer(options: EdgeServerOptions): EdgeServer {
  const { routes, errors, metadata, cors, observer, eventLoop, registry, log, bodyLimitBytes, requestTimeoutMs } =
    options;
  const streams = createOpenStreams(options);
  const acceptWebSocket = createWebSocketAcceptor({
    maxMessageBytes: bodyLimitBytes,
    closeTimeoutMs: options.streamIdleTimeoutMs,
  });
  const sockets = new Set<Socket>();
  const upgrades = new WeakMap<IncomingMessage, { readonly socket: Socket; readonly head: Buffer }>();
  /** Connections whose request is a stream. */
  const uploads = new WeakSet<Socket>();
  /** Connections that got their last reply, and may still be sending. */
  const refused = new WeakSet<Socket>();
  registry.registerMetric(
    new Gauge({
      name: 'http_server_open_connections',
      help: 'Connections of clients that are open',
      registers: [],
      collect() {
        this.set(sockets.size);
      },
    }),
  );
  const refusedConnections = new Counter({
    name: 'http_server_refused_connections_total',
    help: 'Connections that were ended because no request could be read; code: that of the reply',
    labelNames: ['code'],
    registers: [registry],
  });
  const refusalReplies = new WeakMap<CallStatus, RefusalReply>();
  const replyVaries = cors?.headersFor(undefined)['vary'] !== undefined;
  let draining = false;
  let closing = false;

  const app = fastify({
    bodyLimit: bodyLimitBytes,
    return503OnClosing: false,
    trustProxy: [...options.trustedProxies],
    serverFactory: (serve) =>
      http.createServer(
        {
          maxHeaderSize: maxHeadBytes,
          keepAliveTimeout: options.keepAliveTimeoutMs,
          requestTimeout: requestTimeoutMs,
          headersTimeout: Math.min(headersTimeoutMs, requestTimeoutMs),
          connectionsCheckingInterval: Math.min(timeoutCheckMs, requestTimeoutMs),
          requireHostHeader: false, // Node's own answer has no body.
          shouldUpgradeCallback: (request) => webSocketMatch(request) !== undefined,
        },
        (request, response) => {
          if (!eventLoop.overloaded || !refuse(request, response)) serve(request, response);
        },
      ),
    routerOptions: { maxParamLength: maxHeadBytes, querystringParser: () => ({}) },
    // Messages are read and written by their descriptors: no route has a JSON Schema, whose compilers take 60 ms to load.
    schemaController: { compilersFactory: { buildValidator: noSchemas, buildSerializer: noSchemas } },
    genReqId: requestIdOf,
    frameworkErrors: (error, request, reply) => {
      // A path that Fastify's router cannot read comes here without having met a hook.
      arrive(request, reply);
      sendError(error, request, reply);
    },
    clientErrorHandler: refuseConnection,
  });

  app.server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  // A handshake goes the way of any request, so that whatever refuses it does so by HTTP.
  app.server.on('upgrade', (request: IncomingMessage, socket: Socket, head: Buffer) => {
    upgrades.set(request, { socket, head });
    socket.on('error', () => {}); // It closes, and that is heard.
    const response = new http.ServerResponse(request);
    response.shouldKeepAlive = false;
    response.once('finish', () => socket.destroySoon());
    try {
      response.assignSocket(socket);
    } catch {
      // A client that did not wait for the reply to its request before.
      return void socket.destroy();
    }
    app.routing(request, response);
  });

  // The further methods that Node's parser knows, for `custom` rules; with bodies, which would be dropped otherwise.
  for (const method of http.METHODS) {
    if (!app.supportedMethods.includes(method) && method !== 'CONNECT') app.addHttpMethod(method, { hasBody: true });
  }
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (_request, body, done) => {
    if (isUtf8(body as Buffer)) done(null, body.toString());
    else done(new RpcError(Code.INVALID_ARGUMENT, 'the body must be UTF-8'));
  });
  app.addContentTypeParser(ndjsonType, (request, _body, done) => {
    const { match } = arrivalOf(request);
    if (match?.served && methodOf(match.served.route)?.requestStream) done(null, request.raw);
    else done(wrongMediaType('application/json'));
  });

  app.addContentTypeParser(rawType, { parseAs: 'buffer' }, (request, body, done) => {
    const { contentType } = arrivalOf(request);
    if (contentType === undefined) return done(wrongMediaType('application/json'));
    request.headers['content-type'] = contentType;
    done(null, { contentType, data: body as Buffer } satisfies RawBody);
  });

  app.addHook('onRequest', (request, reply, done) => {
    const arrival = arrive(request, reply);
    const { match, contentType } = arrival;
    if (cors !== undefined && match !== undefined) {
      const asked = preflightMethod(request.method, request.headers);
      if (asked !== undefined) return answerPreflight(cors, asked, request, reply, done);
    }
    if (contentType !== undefined) request.headers['content-type'] = rawType;
    if (match?.served === undefined) return done(refusalOf(match, request.method, request.raw));
    const problem = problemOf(match.served.route, request);
    if (problem !== undefined) return done(problem);
    try {
      const passed = match.served.guard?.(arrival);
      if (passed === undefined) return done();
      // Who has left meanwhile goes no further.
      const goOn = (error?: Error) => void (reply.raw.destroyed || done(error));
      passed.then(() => goOn(), goOn);
    } catch (error) {
      done(error as Error);
    }
  });
  if (replyVaries) {
    app.addHook('onSend', (_request, reply, _payload, done) => {
      const vary = reply.getHeader('vary');
      if (vary !== 'origin') void reply.header('vary', `${String(vary)}, origin`);
      done();
    });
  }
  app.setErrorHandler(sendError);
  app.all('/*', serve);
  app.setNotFoundHandler(serve);

  /** Whether an overload keeps the request from going further. It is seen and told as any other, at as little cost as can be. */
  function refuse(request: IncomingMessage, response: ServerResponse): boolean {
    const served = matchOf(request)?.served;
    const status = served?.refusal?.();
    if (status === undefined) return false;
    const requestId = requestIdOf(request);
    const observation = observer.observe(request, response, served?.route, requestId);
    observation.status = status;
    (request.socket as Replying)[replyKey] = response;
    if (closing) closeAfter(response);
    linger(request, response);
    const { headers, body } = refusalOfStatus(status);
    response.writeHead(httpStatusOf(status.code), {
      'x-request-id': requestId,
      'x-trace-id': observation.traceId,
      ...headers,
      ...cors?.headersFor(request.headers.origin),
      ...(draining && { connection: 'close' }),
    });
    response.end(body);
    return true;
  }

  /** Made once for each status: there are few, and an overload is no time for work. */
  function refusalOfStatus(status: CallStatus): RefusalReply {
    let reply = refusalReplies.get(status);
    if (reply === undefined) {
      const json = errors.statusJson(status);
      const body = JSON.stringify(json);
      const headers = {
        ...errors.headers(json),
        'content-type': 'application/json; charset=utf-8',
        'content-length': Buffer.byteLength(body),
      };
      refusalReplies.set(status, (reply = { headers, body }));
    }
    return reply;
  }

  /** The first sight of a request, before its body: its id, its route, its observation. */
  function arrive(request: FastifyRequest, reply: FastifyReply): Arrival {
    void reply.header('x-request-id', request.id);
    if (draining) void reply.header('connection', 'close');
    if (cors !== undefined) void reply.headers(cors.headersFor(request.headers.origin));
    if (upgrades.has(request.raw)) takeProtocolToken(request.raw.headers);
    const match = matchOf(request.raw);
    (request.raw.socket as Replying)[replyKey] = reply.raw;
    const observation = observer.observe(request.raw, reply.raw, match?.served?.route, request.id);
    void reply.header('x-trace-id', observation.traceId);
    const arrival = new Arrival(request, reply, match, observation, { errors, metadata, streams });
    (request as Arriving)[arrivalKey] = arrival;
    if (closing) closeAfter(reply.raw);
    return arrival;
  }

  function repliesUnderWay(): ServerResponse[] {
    return [...sockets].flatMap((socket) => {
      const reply = (socket as Replying)[replyKey];
      return reply === undefined || reply.closed ? [] : [reply];
    });
  }

  /** The head of this reply may have promised to keep a connection that now has nowhere to go. */
  function closeAfter(reply: ServerResponse): void {
    reply.once('close', () => reply.req.socket.end());
  }

  /** Undefined for a request whose head is wrong. */
  function matchOf(request: IncomingMessage): Match<ServedRoute<HttpRoute>> | undefined {
    if (problemOfHead(request) !== undefined) return undefined;
    if (upgrades.has(request)) return webSocketMatch(request);
    try {
      return routes.match(request.method ?? '', pathOf(request.url));
    } catch {
      return undefined;
    }
  }

  /** The stream that a handshake asks for, which is a GET whatever the method of the route. Other upgrades are ignored. */
  function webSocketMatch({ method, url, headers }: IncomingMessage): Arrival['match'] {
    if (method !== 'GET' || headers.upgrade?.toLowerCase() !== 'websocket') return undefined;
    try {
      return webSocketMethods
        .map((name) => routes.match(name, pathOf(url)))
        .find(({ served }) => served !== undefined && isStream(served.route));
    } catch {
      return undefined;
    }
  }

  /** What a browser asks before a page of another origin may call. It is no call: nothing guards it, whatever it asks for. */
  function answerPreflight(
    { allows, preflightHeaders }: Cors,
    method: string,
    request: FastifyRequest,
    reply: FastifyReply,
    done: (error: Error) => void,
  ): void {
    const match = routes.match(method, pathOf(request.raw.url));
    if (match.served === undefined) return done(refusalOf(match, method, request.raw));
    if (!allows(request.headers.origin ?? '')) {
      return done(new RpcError(Code.PERMISSION_DENIED, 'pages of this origin may not call from a browser'));
    }
    void reply.code(204).headers(preflightHeaders(method, request.headers)).send();
  }

  function refusalOf(match: Match<ServedRoute<HttpRoute>> | undefined, method: string, raw: IncomingMessage): RpcError {
    if (match === undefined) {
      // Who sends such a head cannot be trusted with where it ends.
      return new HttpError(400, Code.INVALID_ARGUMENT, problemOfHead(raw) ?? badPath, { connection: 'close' });
    }
    const allow = match.served === undefined ? match.allow : [];
    if (allow.length === 0) return new RpcError(Code.NOT_FOUND, 'no route has this path');
    const methods = allow.join(', ');
    return new HttpError(405, Code.UNIMPLEMENTED, `this path takes ${methods}, not ${method}`, { allow: methods });
  }

  /** What is wrong with a request to a stream, as far as its head tells. */
  function problemOf(route: HttpRoute, { raw, headers }: FastifyRequest): RpcError | undefined {
    if (upgrades.has(raw)) {
      const { origin, host } = headers;
      if (origin === undefined || isSameOrigin(origin, host) || cors?.allows(origin)) return undefined;
      return new RpcError(Code.PERMISSION_DENIED, 'pages of another origin may not open a WebSocket here');
    }
    if (!methodOf(route)?.requestStream) return undefined;
    if (raw.method === 'GET') {
      const message = 'this route takes a stream of requests, by WebSocket';
      return new HttpError(426, Code.UNIMPLEMENTED, message, { upgrade: 'websocket', connection: 'upgrade' });
    }
    const [mediaType = ''] = (headers['content-type'] ?? '').split(';', 1);
    const isEmpty = headers['transfer-encoding'] === undefined && (headers['content-length'] ?? '0') === '0';
    if (mediaType.trim().toLowerCase() === ndjsonType || (mediaType === '' && isEmpty)) return undefined;
    return wrongMediaType(ndjsonType);
  }

  function serve(request: FastifyRequest, reply: FastifyReply): void {
    const arrival = arrivalOf(request);
    const { match } = arrival;
    if (match?.served === undefined) throw refusalOf(match, request.method, request.raw);
    if (request.body === request.raw) {
      const { socket } = request.raw;
      uploads.add(socket);
      reply.raw.once('close', () => uploads.delete(socket));
      arrival.upload = request.raw;
    } else if (request.body !== undefined) {
      arrival.body = request.body as string | RawBody;
    }
    arrival.upgrade = upgradeOf(request, reply);
    match.served.serve(arrival);
  }

  function upgradeOf(request: FastifyRequest, reply: FastifyReply): Upgrade | undefined {
    const upgrade = upgrades.get(request.raw);
    if (upgrade === undefined) return undefined;
    const { socket, head } = upgrade;
    const { traceId } = arrivalOf(request).observation;
    return {
      socket,
      accept() {
        const ids = { 'x-request-id': request.id, 'x-trace-id': traceId };
        const webSocket = acceptWebSocket(request.raw, socket, head, ids);
        reply.hijack();
        return webSocket;
      },
    };
  }

  function sendError(thrown: Error, request: FastifyRequest, reply: FastifyReply): void {
    const error = fromFastify(thrown as FastifyError);
    const status = statusOf(error);
    const arrival = (request as Arriving)[arrivalKey];
    if (arrival !== undefined) arrival.observation.status = status;
    if (status.code === Code.INTERNAL) log.error({ err: error, requestId: request.id }, 'request failed');
    const json = errors.statusJson(status);
    linger(request.raw, reply.raw);
    void reply.removeHeader('connection'); // Fastify would close at once.
    if (draining) void reply.header('connection', 'close');
    const { httpStatus, headers } =
      error instanceof HttpError ? error : { httpStatus: httpStatusOf(status.code), headers: {} };
    void reply
      .code(httpStatus)
      .headers(errors.headers(json))
      .headers(headers)
      .type('application/json')
      .send(JSON.stringify(json));
  }

  /** What is no HTTP, or came too slowly, has no request to answer. */
  function refuseConnection(error: Error & { readonly code?: string }, socket: Socket): void {
    if (refused.has(socket)) return; // It goes on sending.
    // A stream of requests may take its time; its idle timeout holds.
    if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT' && uploads.has(socket)) return;
    const reply = (socket as Replying)[replyKey];
    const isReplying = reply?.headersSent === true && !reply.writableFinished;
    if (error.code === 'ECONNRESET' || !socket.writable || isReplying) return void socket.destroy();
    const [head, code, message] = refusals[error.code ?? ''] ?? [
      '400 Bad Request',
      Code.INVALID_ARGUMENT,
      'not HTTP/1.1',
    ];
    const body = JSON.stringify({ code, message });
    refused.add(socket);
    refusedConnections.inc({ code: head.slice(0, 3) });
    const timer = setTimeout(() => socket.destroy(), lingerMs);
    socket.once('close', () => clearTimeout(timer));
    socket.end(
      `HTTP/1.1 ${head}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    );
  }

  return {
    async listen() {
      await app.listen({ host: options.host, port: options.port, listenTextResolver: () => '' });
      return (app.server.address() as AddressInfo).port;
    },
    drain(delayMs) {
      draining = true;
      // Later requests are told as they arrive.
      for (const reply of repliesUnderWay()) if (!reply.headersSent) reply.setHeader('connection', 'close');
      streams.drain(delayMs);
    },
    async close() {
      closing = true;
      for (const reply of repliesUnderWay()) closeAfter(reply);
      // Node closes connections between two requests by itself, but waits for those that never had one.
      const timer = setTimeout(() => {
        for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy();
      }, silentGraceMs);
      await app.close();
      clearTimeout(timer);
    },
    destroy() {
      app.server.closeAllConnections();
      // Those that became WebSockets are no longer the HTTP server's.
      for (const socket of sockets) socket.destroy();
    },
  };
}

const refusals: Readonly<Record<string, readonly [head: string, code: number, message: string]>> = {
  HPE_HEADER_OVERFLOW: [
    '431 Request Header Fields Too Large',
    Code.RESOURCE_EXHAUSTED,
    `the request line and the headers must be <= ${maxHeadBytes} bytes`,
  ],
  ERR_HTTP_REQUEST_TIMEOUT: ['408 Request Timeout', Code.DEADLINE_EXCEEDED, 'the request came too slowly'],
};

/** How long a client may go on sending after its reply, which it would not get if the connection were closed at once. */
const lingerMs = 1_000;

/** Throws away what is left of a request after its reply. */
function linger(request: IncomingMessage, response: ServerResponse): void {
  response.once('finish', () => {
    if (request.complete) return;
    request.resume();
    setTimeout(() => request.complete || request.socket.destroy(), lingerMs).unref();
  });
}

/** That of the client, where it is one. */
function requestIdOf({ headers }: Pick<IncomingMessage, 'headers'>): string {
  const given = headers['x-request-id'];
  return typeof given === 'string' && requestIdSyntax.test(given) ? given : randomUUID();
}

const badPath = 'the path must be percent-encoded UTF-8';

/** What is wrong with the head of a request that Node's parser took, in words; undefined if nothing is. */
function problemOfHead({ httpVersion, rawHeaders, url = '' }: IncomingMessage): string | undefined {
  if (httpVersion !== '1.1' && httpVersion !== '1.0') return 'not HTTP/1.1';
  let hosts = 0;
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string;
    if (name.length === 4 && name.toLowerCase() === 'host') hosts++;
  }
  if (hosts > 1 || (hosts === 0 && httpVersion === '1.1')) return `the request must have one Host header, has ${hosts}`;
  return problemOfTarget(url);
}

function noSchemas(): never {
  throw new Error('no route has a JSON Schema');
}

/** Fastify's own errors in our words. */
function fromFastify(error: FastifyError): Error {
  switch (error.code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new HttpError(413, Code.RESOURCE_EXHAUSTED, 'the body is too large');
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return wrongMediaType('application/json');
    case 'FST_ERR_BAD_URL':
      return new RpcError(Code.INVALID_ARGUMENT, badPath);
    default: {
      const { statusCode = 500 } = error;
      return statusCode < 500 && !(error instanceof RpcError)
        ? new HttpError(statusCode, Code.INVALID_ARGUMENT, 'the request cannot be read')
        : error;
    }
  }
}

function wrongMediaType(expected: string): HttpError {
  return new HttpError(415, Code.INVALID_ARGUMENT, `content-type must be ${expected}`);
}

/** A WebSocket may be meant for the route of any method at its path; that of GET first. */
const webSocketMethods = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'] as const;

function isStream(route: HttpRoute): boolean {
  const method = methodOf(route);
  return method !== undefined && (method.requestStream || method.responseStream);
}

/** The method that a route calls; a page has none. */
function methodOf(route: HttpRoute): Method | undefined {
  return isApiRoute(route) ? route.service.method : undefined;
}

function pathOf(url = '/'): string {
  const question = url.indexOf('?');
  return question === -1 ? url : url.slice(0, question);
}

function queryOf(url = '/'): string {
  const question = url.indexOf('?');
  return question === -1 ? '' : url.slice(question + 1);
}
