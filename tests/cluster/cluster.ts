import { hasCluster } from './kubectl.ts';

/** Why a test of the cluster is left out, or false; in CI there has to be one. */
export async function skipWithoutCluster(): Promise<string | false> {
  return (await hasCluster()) ? false : 'kubectl reaches no cluster';
}
