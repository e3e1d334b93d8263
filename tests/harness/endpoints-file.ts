import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

/** A `file:///` target that lists what the test says, whether or not it is true. */
export interface EndpointsFile extends AsyncDisposable {
  readonly target: string;
  write(addresses: readonly string[]): Promise<void>;
}

export async function createEndpointsFile(addresses: readonly string[]): Promise<EndpointsFile> {
  const directory = await mkdtemp(join(tmpdir(), 'tandem-endpoints-'));
  const path = join(directory, 'endpoints.json');
  const write = async (targets: readonly string[]) => {
    await writeFile(`${path}.new`, JSON.stringify([{ targets }]));
    await rename(`${path}.new`, path);
  };
  await write(addresses);
  return {
    target: pathToFileURL(path).href,
    write,
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  };
}
