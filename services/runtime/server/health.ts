import { HealthImplementation } from 'grpc-health-check';

type AddService = Parameters<HealthImplementation['addToServer']>[0]['addService'];
type WatchCall = { end(): void; once(event: 'cancelled', listener: () => void): void };

/**
 * `grpc.health.v1.Health` with the names `''`, `readiness` and each service, which say whether to send calls here, and
 * `liveness`, which is SERVING for as long as the process answers at all: who must not be called need not be killed.
 * https://github.com/grpc/grpc/blob/master/doc/health-checking.md
 */
export interface Health {
  addTo(server: { addService: AddService }): void;
  /** Tells everyone who watches. */
  setServing(serving: boolean): void;
  /** Ends each Watch, now and from now on: an open one would hold the shutdown. */
  endWatches(): void;
}

/** All SERVING to begin with, since nobody can ask before the server listens. */
export function createHealth(services: readonly string[]): Health {
  const names = ['', 'readiness', ...services];
  const implementation = new HealthImplementation(
    Object.fromEntries([...names, 'liveness'].map((name) => [name, 'SERVING'])),
  );
  const watches = new Set<WatchCall>();
  let ended = false;

  return {
    addTo(server) {
      implementation.addToServer({
        addService(definition, { watch, ...others }) {
          server.addService(definition, {
            ...others,
            watch: (call: WatchCall) => {
              watches.add(call);
              call.once('cancelled', () => watches.delete(call));
              (watch as (call: WatchCall) => void)(call);
              if (ended) call.end();
            },
          });
        },
      });
    },
    setServing(serving) {
      for (const name of names) implementation.setStatus(name, serving ? 'SERVING' : 'NOT_SERVING');
    },
    endWatches() {
      ended = true;
      for (const watch of watches) watch.end();
    },
  };
}
