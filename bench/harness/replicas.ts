import { built } from './build.ts';
import { onLoopback } from './gateway-config.ts';
import { startSubject } from './subject.ts';
import type { SuiteContext } from './suite.ts';

/** Starts our own greeters, whose faults can be set. */
export async function startGreeters({ use }: Pick<SuiteContext, 'use'>, count: number) {
  const env = { ...onLoopback, FAULTS: 'enabled' };
  const program = built('services/greeter/main.ts');
  const greeters = await Promise.all(
    Array.from({ length: count }, async (_, index) =>
      use(await startSubject({ name: `greeter ${index}`, program, env: { ...env, POD_NAME: `greeter-${index}` } })),
    ),
  );
  return greeters.map(({ port, ports }) => ({
    address: `127.0.0.1:${port}`,
    async setFaults(faults: object) {
      const response = await fetch(`http://127.0.0.1:${ports['adminPort']}/faults`, {
        method: 'PUT',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(faults),
      });
      if (!response.ok) throw new Error(`faults: ${response.status} ${await response.text()}`);
    },
    /** The calls that it was sent, by its own count. */
    async calls() {
      const text = await (await fetch(`http://127.0.0.1:${ports['adminPort']}/metrics`)).text();
      return Number(
        /^grpc_server_call_started_total\{grpc_method="helloworld.Greeter\/SayHello"\} (\d+)$/m.exec(text)?.[1],
      );
    },
  }));
}
