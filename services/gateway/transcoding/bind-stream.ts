import type { Registry } from '@bufbuild/protobuf';
import { RpcError } from '#runtime/call/status.ts';
import { createRequestBinder, type RequestParts } from './bind.ts';
import type { Route } from './routes.ts';

/**
 * Begins a stream of requests: what it returns makes a message of each text. Throws RpcError INVALID_ARGUMENT, as that
 * does too, which says which message was wrong.
 */
export type StreamBinder = (parts: Pick<RequestParts, 'segments' | 'query'>) => (text: string) => Uint8Array;

/**
 * Compiles how the texts of a stream become messages, each as the body of a single request would; where the route has no
 * body, a text is the whole message. What the path and the query say is part of the first message only, where it has the
 * last word: services that take a name or a configuration first do not expect it again.
 *
 * @throws Error for a route that does not fit its message.
 */
export function createStreamBinder(route: Route, types: Registry): StreamBinder {
  const bindUrl = createRequestBinder(route, types);
  const bindText = createRequestBinder(
    { ...route, body: route.body || '*', template: { ...route.template, variables: [] } },
    types,
  );
  return ({ segments, query }) => {
    const isInUrl = route.template.variables.length > 0 || query !== '';
    const fromUrl = isInUrl ? bindUrl({ segments, query, body: '' }) : new Uint8Array();
    let count = 0;
    return (text) => {
      count++;
      try {
        const message = bindText({ segments: [], query: '', body: text });
        // Encodings one after the other are the encoding of the merged message.
        return count === 1 && fromUrl.length > 0 ? Buffer.concat([message, fromUrl]) : message;
      } catch (error) {
        if (!(error instanceof RpcError)) throw error;
        const { code, details, metadata } = error;
        throw new RpcError(code, `message ${count}: ${details}`, { metadata, cause: error });
      }
    };
  };
}
