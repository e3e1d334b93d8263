import { transportContract } from '../testing/transport-contract.ts';
import { createGrpcJsTransport } from './grpc-js.ts';

transportContract('grpc-js', (timeouts) => createGrpcJsTransport({ ...timeouts, initialReconnectBackoffMs: 50 }));
