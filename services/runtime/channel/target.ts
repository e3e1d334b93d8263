import { isIP } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { Endpoint, Resolver } from '../call/call.ts';
import { createDnsResolver } from './resolver/dns.ts';
import { createFileResolver } from './resolver/file.ts';
import { createKubernetesResolver, type KubernetesAccess } from './resolver/kubernetes.ts';
import { createStaticResolver } from './resolver/static.ts';

/** What a channel connects to, read from its text: https://github.com/grpc/grpc/blob/master/doc/naming.md */
export interface Target {
  /** As it was given, without change. */
  readonly text: string;
  /** The name that a server's certificate must carry, where the target has one. */
  readonly authority: string | undefined;
  /** Throws if the target is one of a cluster that this process has no access to. */
  createResolver(): Resolver;
}

/**
 * Reads `dns:///name:port`, `kubernetes:///service.namespace:port`, `ipv4:address:port,…`, `ipv6:[address]:port,…` or
 * `file:///path`. The port of a Kubernetes Service is its name there, or the number that the pods listen on; without
 * `.namespace` it is the Service in the namespace of this pod.
 *
 * @throws Error that says what the target must look like.
 */
export function parseTarget(text: string, kubernetes?: KubernetesAccess): Target {
  const [, scheme, rest] = /^([a-z0-9]+):(.+)$/s.exec(text) ?? [];
  switch (scheme) {
    case 'ipv4':
    case 'ipv6': {
      const endpoints = (rest ?? '').split(',').map((address) => staticEndpoint(text, scheme, address));
      if (new Set(endpoints.map(({ id }) => id)).size < endpoints.length) throw invalid(text, 'names an address twice');
      return { text, authority: undefined, createResolver: () => createStaticResolver(endpoints) };
    }
    case 'dns': {
      const [, host = '', port = ''] = /^\/\/\/(\[[^\]]+\]|[^:/]+):(\d+)$/.exec(rest ?? '') ?? [];
      if (!isPort(port)) throw invalid(text, 'must be dns:///name:port');
      const name = host.replace(/^\[|\]$/g, '');
      return { text, authority: `${host}:${port}`, createResolver: () => createDnsResolver(name, Number(port)) };
    }
    case 'kubernetes': {
      const [, service = '', namespace = kubernetes?.namespace, port = ''] = kubernetesPattern.exec(rest ?? '') ?? [];
      if (/^\d*$/.test(port) && !isPort(port))
        throw invalid(text, 'must be kubernetes:///service.namespace:port-name-or-number');
      return {
        text,
        // The name by which the pods of the cluster know it.
        authority: namespace && `${service}.${namespace}.svc`,
        createResolver() {
          if (kubernetes === undefined) throw invalid(text, 'can be used only inside a Kubernetes cluster');
          if (!namespace) throw invalid(text, 'must name the namespace: that of this process is not known');
          return createKubernetesResolver({ ...kubernetes, service, namespace, port });
        },
      };
    }
    case 'file': {
      if (!rest?.startsWith('///')) throw invalid(text, 'must be file:///path');
      const path = fileURLToPath(text);
      return { text, authority: undefined, createResolver: () => createFileResolver(path) };
    }
    default:
      throw invalid(text, 'must begin with dns:///, kubernetes:///, file:///, ipv4: or ipv6:');
  }
}

/** Service, namespace and port name are DNS labels. */
const kubernetesPattern = new RegExp(
  '^///(label)(?:\\.(label))?:(label)$'.replaceAll('label', '[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?'),
);

function staticEndpoint(text: string, scheme: 'ipv4' | 'ipv6', address: string): Endpoint {
  const [, host = '', port = ''] = /^(.+):(\d+)$/.exec(address) ?? [];
  const wanted = scheme === 'ipv4' ? 4 : 6;
  const bare = scheme === 'ipv6' ? host.replace(/^\[(.*)\]$/, '$1') : host;
  if (isIP(bare) !== wanted || !isPort(port))
    throw invalid(text, `has "${address}", which is no ${scheme} address:port`);
  return { id: address, addresses: [address] };
}

function isPort(text: string): boolean {
  return /^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65_535;
}

function invalid(text: string, reason: string): Error {
  return new Error(`target "${text}" ${reason}`);
}
