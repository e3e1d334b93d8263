import type { DescField, DescMessage, JsonValue } from '@bufbuild/protobuf';
import { fieldsOf, isSingleValue } from './fields.ts';
import type { Route } from './routes.ts';
import { isObject } from './violations.ts';

/**
 * The field of a PATCH request that says which fields of its body are meant: the only `google.protobuf.FieldMask` beside
 * a body of one message. A client that leaves it out means the fields that it sent.
 * https://google.aip.dev/134, https://grpc-ecosystem.github.io/grpc-gateway/docs/mapping/patch_feature/
 */
export function updateMaskField({ httpMethod, service: { input }, body }: Route): DescField | undefined {
  const target = fieldsOf(input).get(body);
  if (httpMethod !== 'PATCH' || target?.fieldKind !== 'message' || isSingleValue(target.message)) return undefined;
  const masks = input.fields.filter(
    ({ fieldKind, message }) => fieldKind === 'message' && message?.typeName === 'google.protobuf.FieldMask',
  );
  return masks.length === 1 ? masks[0] : undefined;
}

/**
 * The paths of the fields that JSON has, by their proto names: as deep as single messages and structs go, since a path
 * does not lead into lists and maps. What is `null` or an empty message is there too, to be cleared. `isBound` tells the
 * paths that are not taken from the JSON.
 */
export function pathsOf(desc: DescMessage, json: JsonValue, isBound: (path: string) => boolean): string[] {
  const paths: string[] = [];
  visitMessage(desc, json, '');
  return paths;

  function visitMessage(message: DescMessage, json: JsonValue, prefix: string): void {
    if (!isObject(json)) return;
    const fields = fieldsOf(message);
    for (const [key, value] of Object.entries(json)) {
      const field = fields.get(key);
      const path = `${prefix}${field?.name}`;
      if (field === undefined || isBound(path)) continue;
      if (field.fieldKind !== 'message' || !isObject(value) || Object.keys(value).length === 0) paths.push(path);
      else if (/^google\.protobuf\.(?:Struct|Value)$/.test(field.message.typeName)) visitStruct(value, path);
      else if (isSingleValue(field.message)) paths.push(path);
      else visitMessage(field.message, value, `${path}.`);
    }
  }

  function visitStruct(json: JsonValue, path: string): void {
    // A key such as "a.b" has no path of its own.
    const entries = isObject(json) ? Object.entries(json) : [];
    if (entries.length === 0 || !entries.every(([key]) => /^\w+$/.test(key))) paths.push(path);
    else for (const [key, value] of entries) visitStruct(value ?? null, `${path}.${key}`);
  }
}
