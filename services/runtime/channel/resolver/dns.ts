import { lookup } from 'node:dns/promises';
import type { Endpoint, Resolver } from '../../call/call.ts';

const lookupIntervalMs = 10_000;
const retryIntervalMs = 1_000;

/**
 * Looks a name up every 10 s, so that replicas that came later are found while the earlier ones stay connected, and
 * every second until the first answer. Each address is an endpoint: DNS does not say which belong to one replica.
 */
export function createDnsResolver(name: string, port: number): Resolver {
  let timer: NodeJS.Timeout | undefined;
  let stopped = false;
  let answered = false;

  const resolve = async (onEndpoints: (endpoints: Endpoint[]) => void, onError: (error: Error) => void) => {
    try {
      // What the system resolver knows counts: search domains, /etc/hosts, a cluster's DNS.
      const found = await lookup(name, { all: true });
      if (stopped) return;
      answered = true;
      onEndpoints(preferredFamily(found).map((address) => toEndpoint(address, port)));
    } catch (error) {
      if (!stopped)
        onError(new Error(`cannot look up ${name}: ${(error as NodeJS.ErrnoException).code}`, { cause: error }));
    }
    if (stopped) return;
    timer = setTimeout(resolve, answered ? lookupIntervalMs : retryIntervalMs, onEndpoints, onError);
    timer.unref();
  };

  return {
    start(onEndpoints, onError) {
      void resolve(onEndpoints, onError);
    },
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}

/** A replica with addresses of both families must not count twice. IPv4 goes first, as the name's A records. */
function preferredFamily(found: readonly { address: string; family: number }[]): string[] {
  const ipv4 = found.filter(({ family }) => family === 4);
  const chosen = ipv4.length > 0 ? ipv4 : found;
  return [...new Set(chosen.map(({ address }) => address))].sort();
}

function toEndpoint(address: string, port: number): Endpoint {
  const hostPort = address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
  return { id: hostPort, addresses: [hostPort] };
}
