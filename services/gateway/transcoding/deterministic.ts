import { type DescMessage, fromBinary, type Registry, toBinary } from '@bufbuild/protobuf';
import { type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';

/**
 * Compiles how the bytes of a message become those of every message that is equal to it: entries of maps are sorted, and
 * extensions stand in the order of their numbers, down into each `Any` of a type that is known. Undefined for a message
 * that has only one order of its own.
 */
export function createDeterministicEncoding(
  desc: DescMessage,
  types: Registry,
): ((bytes: Uint8Array) => Uint8Array) | undefined {
  if (!hasOrder(desc, new Set())) return undefined;
  return (bytes) => sortedBytes(desc, bytes, types);
}

/** Whether what is equal may be written in more than one order. */
function hasOrder(desc: DescMessage, seen: Set<DescMessage>): boolean {
  if (seen.has(desc)) return false;
  seen.add(desc);
  return (
    isAny(desc) ||
    desc.proto.extensionRange.length > 0 ||
    desc.fields.some(({ fieldKind, message }) => fieldKind === 'map' || (message && hasOrder(message, seen)))
  );
}

function sortedBytes(desc: DescMessage, bytes: Uint8Array, types: Registry): Uint8Array {
  const message = reflect(desc, fromBinary(desc, bytes));
  sort(message, types);
  return toBinary(desc, message.message);
}

function sort(message: ReflectMessage, types: Registry): void {
  if (isAny(message.desc)) sortAny(message, types);
  for (const field of message.fields) {
    if (!message.isSet(field)) continue;
    if (field.fieldKind === 'message') {
      const child = message.get(field);
      sort(child, types);
      message.set(field, child); // That of a google.protobuf.Struct is a copy.
    } else if (field.fieldKind === 'list' && field.message) {
      const list = message.get(field);
      for (const [index, item] of [...list].entries()) {
        sort(item as ReflectMessage, types);
        list.set(index, item);
      }
    } else if (field.fieldKind === 'map') {
      const map = message.get(field);
      const entries = [...map].sort(([a], [b]) => (String(a) < String(b) ? -1 : 1));
      map.clear();
      for (const [key, value] of entries) {
        if (field.message) sort(value as ReflectMessage, types);
        map.set(key, value);
      }
    }
  }
  message.getUnknown()?.sort((a, b) => a.no - b.no);
}

function sortAny(any: ReflectMessage, types: Registry): void {
  const [typeUrl, value] = any.desc.fields;
  if (typeUrl?.fieldKind !== 'scalar' || value?.fieldKind !== 'scalar') return;
  const url = String(any.get(typeUrl));
  const desc = types.getMessage(url.slice(url.lastIndexOf('/') + 1));
  if (desc !== undefined) any.set(value, sortedBytes(desc, any.get(value) as Uint8Array, types));
}

function isAny(desc: DescMessage): boolean {
  return desc.typeName === 'google.protobuf.Any';
}
