import * as grpc from '@grpc/grpc-js';
import type { Descriptors } from '../../services/gateway/descriptors.ts';

/** A call as a replica saw it. */
export interface RecordedCall {
  readonly path: string;
  readonly request: Buffer;
  readonly metadata: grpc.Metadata;
  /** How long it may take, as it came. */
  readonly timeoutMs: number;
}

export interface RecordingServer extends AsyncDisposable {
  readonly target: string;
  /** All calls, oldest first. */
  readonly calls: readonly RecordedCall[];
  /** What the next call is answered with; the request itself by default, of a stream as its only message. */
  answerNext(...replies: readonly Uint8Array[]): void;
}

const sameBytes = (bytes: Buffer) => bytes;

/** A gRPC server for every method of a descriptor set that takes one message: it writes down bytes and sends bytes. */
export async function startRecordingServer({ methods }: Descriptors): Promise<RecordingServer> {
  const server = new grpc.Server();
  const calls: RecordedCall[] = [];
  let next: readonly Uint8Array[] | undefined;

  function record(
    path: string,
    call: grpc.ServerUnaryCall<Buffer, Buffer> | grpc.ServerWritableStream<Buffer, Buffer>,
  ): readonly Buffer[] {
    const { request, metadata } = call;
    calls.push({ path, request, metadata, timeoutMs: new Date(call.getDeadline()).getTime() - Date.now() });
    const replies = next?.map((bytes) => Buffer.from(bytes)) ?? [request];
    next = undefined;
    return replies;
  }

  for (const { method } of methods) {
    const { path, requestStream, responseStream } = method;
    if (requestStream) continue;
    const definition = {
      path,
      requestStream,
      responseStream,
      requestSerialize: sameBytes,
      requestDeserialize: sameBytes,
      responseSerialize: sameBytes,
      responseDeserialize: sameBytes,
    };
    const unary: grpc.handleUnaryCall<Buffer, Buffer> = (call, callback) => callback(null, record(path, call)[0]);
    const stream: grpc.handleServerStreamingCall<Buffer, Buffer> = (call) => {
      for (const reply of record(path, call)) call.write(reply);
      call.end();
    };
    server.addService({ [path]: definition }, { [path]: responseStream ? stream : unary });
  }
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  return {
    target: `ipv4:127.0.0.1:${port}`,
    calls,
    answerNext(...replies) {
      next = replies;
    },
    async [Symbol.asyncDispose]() {
      server.forceShutdown();
    },
  };
}
