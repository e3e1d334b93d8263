// A handler that calls a service by a client of its own, as any team's may; with traces where the environment asks.
import { startTracing } from '../../process/tracing.ts';

const tracing = await startTracing({ env: process.env, service: 'fixture', podName: 'fixture' });
const { callMethod, startServer } = await import('../testing.ts');

await using server = await startServer({
  async SayHello({ name }: { readonly name: string }) {
    if (name === 'behind') return { message: 'hello' };
    const { messages } = await callMethod(server.client, 'SayHello', [{ name: 'behind' }]);
    return messages[0];
  },
});
await callMethod(server.client, 'SayHello', [{ name: 'front' }]);
await tracing.stop();
