import { randomBytes } from 'node:crypto';
import { after, type TestContext } from 'node:test';
import { kubectl } from './kubectl.ts';

const deleted: string[] = [];

// Of the whole file, so that no test waits for what the one before it has left.
after(async () => {
  for (const namespace of deleted) {
    await kubectl(['wait', '--for=delete', `namespace/${namespace}`, '--timeout=120s'], { timeoutMs: 130_000 });
  }
});

/**
 * Makes a namespace that goes with the test, and is gone when the file ends. Unless it must be `privileged`, pods in it
 * have to be as the Pod Security Standard `restricted` says.
 */
export async function createNamespace(
  t: TestContext,
  name: string,
  level: 'restricted' | 'privileged' = 'restricted',
): Promise<string> {
  const namespace = `e2e-${name}-${randomBytes(2).toString('hex')}`;
  await kubectl(['create', 'namespace', namespace]);
  t.after(async () => {
    // Nobody waits for their drain any more.
    await kubectl(['-n', namespace, 'delete', 'deployments,pods', '--all', '--grace-period=1', '--wait=false']);
    await kubectl(['delete', 'namespace', namespace, '--wait=false']);
    deleted.push(namespace);
  });
  await kubectl(['label', 'namespace', namespace, `pod-security.kubernetes.io/enforce=${level}`]);
  // No pod may be made before it has one.
  await kubectl(['-n', namespace, 'wait', '--for=create', 'serviceaccount/default', '--timeout=60s']);
  return namespace;
}
