import { get } from 'node:http';
import { text } from 'node:stream/consumers';

const attempts = 'grpc_client_attempt_duration_seconds_count';
const calls = 'grpc_client_call_duration_seconds_count';

/** How many attempts of the gateway were not the first of their call, by its metrics page. Rejects when it has none. */
export async function readRetried(adminPort: number): Promise<number> {
  return countRetried(await fetchText(adminPort, '/metrics'));
}

/** The same, from the text of the page. */
export function countRetried(metrics: string): number {
  return Math.max(0, sum(metrics, attempts) - sum(metrics, calls));
}

/** Over all labels. */
function sum(metrics: string, name: string): number {
  let total = 0;
  for (const [, value] of metrics.matchAll(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)`, 'gm'))) total += Number(value);
  return total;
}

function fetchText(port: number, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = get({ host: '127.0.0.1', port, path, agent: false, timeout: 1_000 });
    request.once('response', (response) => resolve(text(response)));
    request.once('timeout', () => request.destroy(new Error(`no answer from ${path} within 1000 ms`)));
    request.once('error', reject);
  });
}
