import type { Metadata } from './call.ts';

/** The first value of an ASCII key. */
export function getText(metadata: Metadata, key: string): string | undefined {
  for (const [name, value] of metadata) if (name === key && typeof value === 'string') return value;
  return undefined;
}

/** The first value of a `-bin` key. */
export function getBytes(metadata: Metadata, key: `${string}-bin`): Uint8Array | undefined {
  for (const [name, value] of metadata) if (name === key && typeof value !== 'string') return value;
  return undefined;
}
