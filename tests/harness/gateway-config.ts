import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

/** The environment of a gateway that is configured by a file with that content. The file goes after the test. */
export function gatewayConfig(t: TestContext, content: object): Record<string, string> {
  const directory = mkdtempSync(join(tmpdir(), 'tandem-gateway-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'gateway.yaml');
  writeFileSync(file, JSON.stringify(content));
  return { TARGET: '', GATEWAY_CONFIG: file };
}
