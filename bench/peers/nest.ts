/**
 * NestJS on Fastify with its gRPC client, and what one adds to it until it can do what our gateway does with everything
 * on: prom-client metrics by route and by call, a pino access log of 1 % of the requests that went well and of all others,
 * request IDs, a deadline, retries within a budget, round robin, a limit of requests at a time, a bound of the name, an
 * HTTP status for a failed call.
 *
 * Has not: outlier detection, timeouts of attempts, a cache, an adaptive limit, traces. Health checks are in its service
 * config, which grpc-js reads and does not act upon. Node strips types and knows no decorators, so that they are applied
 * below each class.
 */
import { randomUUID } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { type CallOptions, Metadata, type ServiceError, status } from '@grpc/grpc-js';
import {
  type ArgumentsHost,
  BadRequestException,
  type CallHandler,
  Catch,
  Controller,
  type ExecutionContext,
  Get,
  Header,
  Inject,
  Injectable,
  Module,
  type NestInterceptor,
  type OnModuleInit,
  Param,
  type PipeTransform,
  Req,
  ServiceUnavailableException,
} from '@nestjs/common';
import { APP_FILTER, APP_INTERCEPTOR, BaseExceptionFilter, NestFactory } from '@nestjs/core';
import { type ClientGrpc, ClientsModule, Transport } from '@nestjs/microservices';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { pino } from 'pino';
import { collectDefaultMetrics, Counter, Histogram, Registry } from 'prom-client';
import { finalize, type Observable, tap } from 'rxjs';

const { BACKENDS = '127.0.0.1:50051' } = process.env;
const timeoutMs = 2_000;
const slowMs = 1_000;
const loggedShare = 0.01;
const maxRequestsAtATime = 1_000;
const maxNameBytes = 1_024;

const serviceConfig = {
  loadBalancingConfig: [{ round_robin: {} }],
  healthCheckConfig: { serviceName: '' },
  retryThrottling: { maxTokens: 200, tokenRatio: 0.1 },
  methodConfig: [
    {
      name: [{ service: 'helloworld.Greeter' }],
      retryPolicy: {
        maxAttempts: 3,
        initialBackoff: '0.05s',
        maxBackoff: '0.5s',
        backoffMultiplier: 2,
        retryableStatusCodes: ['UNAVAILABLE'],
      },
    },
  ],
};

const registry = new Registry();
collectDefaultMetrics({ register: registry });
const requestSeconds = new Histogram({
  name: 'http_server_request_duration_seconds',
  help: 'Time from the head of a request to the end of its reply',
  labelNames: ['method', 'route', 'code'],
  buckets: [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
  registers: [registry],
});
const calls = new Counter({
  name: 'grpc_client_calls_total',
  help: 'gRPC calls by method and code',
  labelNames: ['method', 'code'],
  registers: [registry],
});
const log = pino();

interface Greeter {
  sayHello(request: { name: string }, metadata: Metadata, options: CallOptions): Observable<{ message: string }>;
}

const greeterPackage = Symbol('helloworld');

class GreeterService implements OnModuleInit {
  private readonly grpc: ClientGrpc;
  private greeter!: Greeter;

  constructor(grpc: ClientGrpc) {
    this.grpc = grpc;
  }

  onModuleInit() {
    this.greeter = this.grpc.getService<Greeter>('Greeter');
  }

  sayHello(name: string, requestId: string): Observable<{ message: string }> {
    const metadata = new Metadata();
    metadata.set('x-request-id', requestId);
    const count = (code: status) => calls.inc({ method: 'helloworld.Greeter/SayHello', code: status[code] });
    return this.greeter.sayHello({ name }, metadata, { deadline: Date.now() + timeoutMs }).pipe(
      tap({
        complete: () => count(status.OK),
        error: ({ code }: ServiceError) => count(code),
      }),
    );
  }
}
Injectable()(GreeterService);
Inject(greeterPackage)(GreeterService, undefined, 0);

class NamePipe implements PipeTransform<string, string> {
  transform(name: string): string {
    const bytes = Buffer.byteLength(name);
    if (bytes > maxNameBytes) throw new BadRequestException(`name of ${bytes} bytes must be <= ${maxNameBytes}`);
    return name;
  }
}
Injectable()(NamePipe);

class HelloController {
  private readonly greeter: GreeterService;

  constructor(greeter: GreeterService) {
    this.greeter = greeter;
  }

  sayHello(name: string, request: FastifyRequest): Observable<{ message: string }> {
    return this.greeter.sayHello(name, request.id);
  }
}
Controller('v1/hello')(HelloController);
Inject(GreeterService)(HelloController, undefined, 0);
Get(':name')(HelloController.prototype, 'sayHello', methodOf(HelloController, 'sayHello'));
Param('name', NamePipe)(HelloController.prototype, 'sayHello', 0);
Req()(HelloController.prototype, 'sayHello', 1);

class MetricsController {
  metrics(): Promise<string> {
    return registry.metrics();
  }
}
Controller('metrics')(MetricsController);
Get()(MetricsController.prototype, 'metrics', methodOf(MetricsController, 'metrics'));
Header('content-type', registry.contentType)(
  MetricsController.prototype,
  'metrics',
  methodOf(MetricsController, 'metrics'),
);

class LimitInterceptor implements NestInterceptor {
  private running = 0;

  intercept(_context: ExecutionContext, next: CallHandler): Observable<unknown> {
    if (this.running >= maxRequestsAtATime) throw new ServiceUnavailableException('too many requests at a time');
    this.running++;
    return next.handle().pipe(finalize(() => this.running--));
  }
}
Injectable()(LimitInterceptor);

const httpStatusByCode: Readonly<Partial<Record<status, number>>> = {
  [status.CANCELLED]: 499,
  [status.INVALID_ARGUMENT]: 400,
  [status.DEADLINE_EXCEEDED]: 504,
  [status.NOT_FOUND]: 404,
  [status.ALREADY_EXISTS]: 409,
  [status.PERMISSION_DENIED]: 403,
  [status.RESOURCE_EXHAUSTED]: 429,
  [status.FAILED_PRECONDITION]: 400,
  [status.ABORTED]: 409,
  [status.OUT_OF_RANGE]: 400,
  [status.UNIMPLEMENTED]: 501,
  [status.UNAVAILABLE]: 503,
  [status.UNAUTHENTICATED]: 401,
};

/* oxlint-disable promise/no-promise-in-callback, promise/valid-params -- `catch` is that of a filter, not of a promise */
class ServiceErrorFilter extends BaseExceptionFilter {
  override catch(error: unknown, host: ArgumentsHost): void {
    if (!isServiceError(error)) {
      super.catch(error, host);
      return;
    }
    const { code, details } = error;
    const reply = host.switchToHttp().getResponse<FastifyReply>();
    void reply.status(httpStatusByCode[code] ?? 500).send({ code, message: details });
  }
}
Catch()(ServiceErrorFilter);

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error && 'metadata' in error;
}

// oxlint-disable-next-line typescript/no-extraneous-class -- a module of NestJS has nothing but its decorator
class AppModule {}
Module({
  imports: [
    ClientsModule.register([
      {
        name: greeterPackage,
        transport: Transport.GRPC,
        options: {
          package: 'helloworld',
          protoPath: 'helloworld/helloworld.proto',
          url: `ipv4:${BACKENDS}`,
          loader: {
            keepCase: true,
            includeDirs: ['../../proto', '../../third_party/googleapis'].map((path) =>
              fileURLToPath(new URL(path, import.meta.url)),
            ),
          },
          channelOptions: { 'grpc.service_config': JSON.stringify(serviceConfig), 'grpc.enable_channelz': 0 },
        },
      },
    ]),
  ],
  controllers: [HelloController, MetricsController],
  providers: [
    GreeterService,
    { provide: APP_INTERCEPTOR, useClass: LimitInterceptor },
    { provide: APP_FILTER, useClass: ServiceErrorFilter },
  ],
})(AppModule);

/** What a decorator of a method takes. */
function methodOf(type: { readonly prototype: object }, name: string): PropertyDescriptor {
  return Object.getOwnPropertyDescriptor(type.prototype, name) as PropertyDescriptor;
}

/** Tells and counts each request, and gives it its ID. */
function observe(server: FastifyInstance): void {
  server.addHook('onRequest', (request, reply, done) => {
    reply.header('x-request-id', request.id);
    done();
  });
  server.addHook('onResponse', (request, reply, done) => {
    const { method, id, routeOptions } = request;
    const { statusCode, elapsedTime } = reply;
    const route = routeOptions.url ?? '';
    requestSeconds.observe({ method, route, code: statusCode }, elapsedTime / 1_000);
    if (statusCode >= 400 || elapsedTime >= slowMs || Math.random() < loggedShare) {
      const level = statusCode >= 500 ? 'warn' : 'info';
      log[level](
        { requestId: id, method, path: request.url, route, code: statusCode, durationMs: elapsedTime },
        'request',
      );
    }
    done();
  });
}

const adapter = new FastifyAdapter({
  requestIdHeader: 'x-request-id',
  genReqId: () => randomUUID(),
  routerOptions: { maxParamLength: 3 * maxNameBytes + 1 }, // in percent-encoding; more is 414
});
observe(adapter.getInstance());
const app = await NestFactory.create<NestFastifyApplication>(AppModule, adapter, { logger: ['error', 'warn'] });
await app.listen(0, '127.0.0.1');
const { port } = app.getHttpServer().address() as AddressInfo;
console.log(JSON.stringify({ port }));
