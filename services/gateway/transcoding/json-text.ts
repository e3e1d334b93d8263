import type { JsonValue } from '@bufbuild/protobuf';
import { badRequest } from '#runtime/call/details.ts';
import { Code, RpcError } from '#runtime/call/status.ts';

/** As deep as protobuf's own readers go. */
const maxDepth = 100;
/** A message is made of each object, at up to 5 µs: this bounds how long a body can hold up all others. */
const maxObjects = 25_000;
const maxValues = 250_000;

/**
 * Parses JSON text, whose size is bounded before anything is made of it, and in which no object has a key twice:
 * `JSON.parse` would keep the last value and forget the others.
 *
 * @throws RpcError INVALID_ARGUMENT, for a key that is there twice with a `google.rpc.BadRequest`.
 */
export function parseJson(text: string): JsonValue {
  const duplicate = scan(text);
  let value: JsonValue;
  try {
    value = JSON.parse(text) as JsonValue;
  } catch (error) {
    throw new RpcError(Code.INVALID_ARGUMENT, `the body is not JSON: ${(error as Error).message}`);
  }
  if (duplicate !== undefined) throw badRequest([{ field: duplicate, description: 'must be given once' }]);
  return value;
}

const quote = 0x22;
const comma = 0x2c;
const colon = 0x3a;
const backslash = 0x5c;

/** An object or array that is open. */
interface Open {
  readonly isObject: boolean;
  /** The key that was read last. */
  key: string | undefined;
  /** All keys so far; made for the second one. */
  keys: Set<string> | undefined;
}

/** Goes once over the text, JSON or not. Returns the path of the first key that is there twice. */
function scan(text: string): string | undefined {
  const stack: Open[] = [];
  let objects = 0;
  let values = 1;
  let duplicate: string | undefined;
  let start = 0; // of the last string
  let end = 0;

  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case quote:
        start = i;
        end = endOfString(text, i);
        i = end;
        break;
      case colon: {
        const open = stack.at(-1);
        if (open?.isObject && !addKey(open, text.slice(start, end + 1))) duplicate ??= pathOf(stack);
        break;
      }
      case comma:
        if (++values > maxValues) throw tooMuch(`have more than ${maxValues} values`);
        break;
      case 0x7b: // {
      case 0x5b: // [
        if (++objects > maxObjects) throw tooMuch(`have more than ${maxObjects} objects and arrays`);
        if (stack.length === maxDepth) throw tooMuch(`be nested deeper than ${maxDepth}`);
        stack.push({ isObject: text.charCodeAt(i) === 0x7b, key: undefined, keys: undefined });
        break;
      case 0x7d: // }
      case 0x5d: // ]
        stack.pop();
        break;
    }
  }
  return duplicate;
}

/** Whether the object did not have the key, which is a JSON string. */
function addKey(open: Open, text: string): boolean {
  const key = text.includes('\\') ? unescaped(text) : text.slice(1, -1);
  const isNew = key !== open.key && !open.keys?.has(key);
  if (open.key !== undefined) (open.keys ??= new Set([open.key])).add(key);
  open.key = key;
  return isNew;
}

function unescaped(text: string): string {
  try {
    return String(JSON.parse(text));
  } catch {
    return text; // The whole is no JSON either.
  }
}

function pathOf(stack: readonly Open[]): string {
  return stack.flatMap(({ key }) => key ?? []).join('.');
}

function tooMuch(what: string): RpcError {
  return new RpcError(Code.INVALID_ARGUMENT, `the body must not ${what}`);
}

/** Where the string that opens at `start` closes. */
function endOfString(text: string, start: number): number {
  let end = text.indexOf('"', start + 1);
  while (end !== -1 && isEscaped(text, end)) end = text.indexOf('"', end + 1);
  return end === -1 ? text.length : end;
}

function isEscaped(text: string, index: number): boolean {
  let backslashes = 0;
  while (text.charCodeAt(index - 1 - backslashes) === backslash) backslashes++;
  return backslashes % 2 === 1;
}
