import * as v from 'valibot';
import type { Endpoint } from '../../call/call.ts';

/**
 * What a client needs of an EndpointSlice; `managedFields` and the like are dropped when it is read.
 * https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/
 */
export const endpointSliceSchema = v.object({
  metadata: v.object({ name: v.string(), resourceVersion: v.string() }),
  addressType: v.string(),
  endpoints: v.nullish(
    v.array(
      v.object({
        addresses: v.array(v.string()),
        conditions: v.nullish(
          v.object({
            ready: v.nullish(v.boolean()),
            serving: v.nullish(v.boolean()),
            terminating: v.nullish(v.boolean()),
          }),
        ),
        targetRef: v.nullish(v.object({ uid: v.nullish(v.string()) })),
      }),
    ),
  ),
  ports: v.nullish(v.array(v.object({ name: v.nullish(v.string()), port: v.nullish(v.number()) }))),
});

export type EndpointSlice = v.InferOutput<typeof endpointSliceSchema>;

interface Replica {
  readonly ipv4: Set<string>;
  readonly ipv6: Set<string>;
  ready: boolean;
  /** Terminating, and still able to serve. */
  draining: boolean;
  terminating: boolean;
}

/**
 * The replicas that a Service's slices list: those that are ready or, when none is, those that still serve while they
 * terminate, and those that are not ready, with the word that they are not: a cluster calls every pod of a node so once it
 * has not heard of the node for a while, as after an API server that hung, however well the pods may be. Addresses
 * of both families, and of several slices while the cluster moves endpoints between them, are one endpoint when they name one
 * pod. Its conditions count for all its addresses, since slices change one after the other: a pod would otherwise lose and
 * regain an address, and with it its connection, each time it comes or goes.
 *
 * `port` is the name that the Service gave the port, or a number, which is used as it is.
 *
 * @throws Error if there are endpoints, but none has a port of that name.
 */
export function toEndpoints(slices: Iterable<EndpointSlice>, port: string): Endpoint[] {
  const replicas = new Map<string, Replica>();
  const otherPorts = new Set<string>();
  let withPort = 0;
  let withoutPort = 0;
  for (const { addressType, endpoints, ports } of slices) {
    // That of a Service without pods has neither endpoints nor ports.
    if (!endpoints?.length || (addressType !== 'IPv4' && addressType !== 'IPv6')) continue;
    const number = /^\d+$/.test(port) ? port : ports?.find(({ name }) => name === port)?.port;
    if (number === undefined || number === null) {
      withoutPort++;
      for (const { name, port } of ports ?? []) otherPorts.add(name || String(port));
      continue;
    }
    withPort++;
    for (const { addresses, conditions, targetRef } of endpoints) {
      // Those beyond the first have no meaning: https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/
      const [ip] = addresses;
      if (ip === undefined) continue;
      const address = addressType === 'IPv4' ? `${ip}:${number}` : `[${ip}]:${number}`;
      const id = targetRef?.uid || address;
      const replica = replicas.get(id) ?? {
        ipv4: new Set(),
        ipv6: new Set(),
        ready: false,
        draining: false,
        terminating: false,
      };
      replicas.set(id, replica);
      replica[addressType === 'IPv4' ? 'ipv4' : 'ipv6'].add(address);
      replica.ready ||= conditions?.ready ?? true;
      replica.terminating ||= conditions?.terminating ?? false;
      replica.draining ||= (conditions?.terminating ?? false) && (conditions?.serving ?? true);
    }
  }
  if (withPort === 0 && withoutPort > 0)
    throw new Error(`no port is named "${port}", there is ${[...otherPorts].sort().join(', ') || 'none'}`);
  const all = [...replicas];
  const ready = all.filter(([, replica]) => replica.ready);
  const chosen = ready.length > 0 ? ready : all.filter(([, { draining, terminating }]) => draining || !terminating);
  return chosen
    .map(([id, { ipv4, ipv6, ready, draining }]) => {
      const addresses = [...[...ipv4].sort(), ...[...ipv6].sort()];
      return ready || draining ? { id, addresses } : { id, addresses, ready: false };
    })
    .sort((a, b) => (a.id < b.id ? -1 : 1));
}
