import { watch, type FSWatcher } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import * as v from 'valibot';
import type { Endpoint, Resolver } from '../../call/call.ts';

const checkIntervalMs = 1_000;

/** The shape of Prometheus's `file_sd`; labels are for others. */
const fileSchema = v.array(
  v.object({
    targets: v.array(
      v.pipe(v.string(), v.regex(/^(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-f:.]+\]):\d{1,5}$/i, 'must be address:port')),
    ),
  }),
);

/**
 * Reads the endpoints from a JSON file, `[{ "targets": ["10.0.0.7:50051"] }]`, again whenever it changes: told by the
 * file system, and checked every second where that says nothing. A file that is missing, half written or wrong is an
 * error; the last good list stays.
 */
export function createFileResolver(path: string): Resolver {
  let watcher: FSWatcher | undefined;
  let timer: NodeJS.Timeout | undefined;
  let stopped = false;
  let lastText: string | undefined;
  let lastProblem = '';
  let reading = false;
  let readAgain = false;

  async function read(onEndpoints: (endpoints: Endpoint[]) => void, onError: (error: Error) => void): Promise<void> {
    if (reading) {
      readAgain = true;
      return;
    }
    reading = true;
    do {
      readAgain = false;
      try {
        const text = await readFile(path, 'utf8');
        if (!stopped && text !== lastText) {
          onEndpoints(toEndpoints(text));
          lastText = text;
        }
        lastProblem = '';
      } catch (error) {
        const { message } = error as Error;
        // Once: a file that stays wrong is not news each second.
        if (!stopped && message !== lastProblem) onError(new Error(`cannot use ${path}: ${message}`, { cause: error }));
        lastProblem = message;
      }
    } while (readAgain && !stopped);
    reading = false;
  }

  return {
    start(onEndpoints, onError) {
      let lastChange: string | undefined;
      const check = async () => {
        const change = await stat(path).then(
          ({ mtimeMs, ino, size }) => `${mtimeMs} ${ino} ${size}`,
          () => 'missing',
        );
        if (stopped) return;
        if (change !== lastChange) await read(onEndpoints, onError);
        lastChange = change;
        if (stopped) return;
        timer = setTimeout(check, checkIntervalMs);
        timer.unref();
      };
      void check();
      try {
        // The directory, since a rename puts another file in this one's place.
        watcher = watch(dirname(path), { persistent: false }, (_event, name) => {
          if (name === null || name === basename(path)) void read(onEndpoints, onError);
        });
        watcher.on('error', () => watcher?.close());
      } catch {
        // The check each second has to do.
      }
    },
    stop() {
      stopped = true;
      clearTimeout(timer);
      watcher?.close();
    },
  };
}

function toEndpoints(text: string): Endpoint[] {
  const parsed = v.safeParse(fileSchema, JSON.parse(text));
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw new Error(`${v.getDotPath(issue) ?? 'the file'} ${issue.message}`);
  }
  const addresses = new Set(parsed.output.flatMap(({ targets }) => targets));
  return [...addresses].map((address) => ({ id: address, addresses: [address] }));
}
