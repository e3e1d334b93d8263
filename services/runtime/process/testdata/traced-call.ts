// A program that makes one call to itself; prints what it loaded of OpenTelemetry, and logs from inside the handler.
import { registerHooks } from 'node:module';
import type { handleUnaryCall } from '@grpc/grpc-js';
import { createLog } from '../log.ts';
import { startTracing } from '../tracing.ts';

const loaded = new Set<string>();
registerHooks({
  resolve(specifier, context, next) {
    loaded.add(specifier);
    return next(specifier, context);
  },
});

const log = createLog({ service: 'fixture', podName: 'pod-1', level: 'info', format: 'json', stdout: process.stdout });
const tracing = await startTracing({ env: process.env, service: 'fixture', podName: 'pod-1', log });
log.info({ enabled: tracing.enabled, sdk: loaded.has('@opentelemetry/sdk-node') }, 'started');

// One package loads grpc-js by require() and this program by import: both must meet in one instrumentation.
await import('grpc-health-check');
const grpc = await import('@grpc/grpc-js');

const path = '/test.Echo/Say';
const identity = (bytes: Buffer) => bytes;
const codec = {
  requestSerialize: identity,
  requestDeserialize: identity,
  responseSerialize: identity,
  responseDeserialize: identity,
};
const say: handleUnaryCall<Buffer, Buffer> = (call, callback) => {
  log.info('handling');
  callback(null, call.request);
};

const server = new grpc.Server();
server.addService({ Say: { path, requestStream: false, responseStream: false, ...codec } }, { Say: say });
const port = await new Promise<number>((resolve, reject) => {
  server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, bound) =>
    error === null ? resolve(bound) : reject(error),
  );
});
const client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
const reply = await new Promise<Buffer>((resolve, reject) => {
  client.makeUnaryRequest(path, identity, identity, Buffer.from('hello'), (error, bytes) =>
    error === null && bytes !== undefined ? resolve(bytes) : reject(error),
  );
});
log.info({ reply: reply.toString() }, 'answered');
client.close();
server.forceShutdown();

const stopStartedMs = performance.now();
await tracing.stop();
log.info({ stopMs: performance.now() - stopStartedMs }, 'stopped');
process.exit(0);
