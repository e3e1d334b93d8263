import {
  type DescEnum,
  type DescField,
  type DescMessage,
  type JsonObject,
  type Registry,
  ScalarType,
} from '@bufbuild/protobuf';

/** Types of `google.protobuf` whose JSON is no object of their fields. */
const specialTypes = new Map([
  ['google.protobuf.Any', 'an object with an "@type" that is known'],
  ['google.protobuf.Timestamp', 'an RFC 3339 time such as "2025-01-31T12:00:00Z"'],
  ['google.protobuf.Duration', 'seconds such as "1.5s"'],
  ['google.protobuf.FieldMask', 'field paths such as "name,homeAddress.city"'],
  ['google.protobuf.Struct', 'an object'],
  ['google.protobuf.Value', 'any JSON value'],
  ['google.protobuf.ListValue', 'an array'],
  ['google.protobuf.BoolValue', 'bool'],
  ['google.protobuf.StringValue', 'string'],
  ['google.protobuf.BytesValue', 'base64'],
  ['google.protobuf.DoubleValue', 'double'],
  ['google.protobuf.FloatValue', 'float'],
  ['google.protobuf.Int32Value', 'int32'],
  ['google.protobuf.UInt32Value', 'uint32'],
  ['google.protobuf.Int64Value', 'int64'],
  ['google.protobuf.UInt64Value', 'uint64'],
]);

/** Whether a message is written as one value in JSON, and so in a query parameter. */
export function isSingleValue(desc: DescMessage): boolean {
  return specialTypes.has(desc.typeName);
}

const fieldsByName = new WeakMap<DescMessage, Map<string, DescField>>();

/** The fields of a message by their two names: the one of the proto and the one of JSON. */
export function fieldsOf(desc: DescMessage): ReadonlyMap<string, DescField> {
  let fields = fieldsByName.get(desc);
  if (fields === undefined) {
    fields = new Map(desc.fields.flatMap((field) => [[field.name, field] as const, [field.jsonName, field] as const]));
    fieldsByName.set(desc, fields);
  }
  return fields;
}

/** The type of the message in the JSON of an `Any`, if it is known. */
export function typeOfAny({ '@type': url }: JsonObject, types: Registry): DescMessage | undefined {
  return typeof url === 'string' ? types.getMessage(url.slice(url.lastIndexOf('/') + 1)) : undefined;
}

/** The type of a field's values in words: `must be <words>`. */
export function typeInWords(field: {
  readonly enum?: DescEnum | undefined;
  readonly message?: DescMessage | undefined;
  readonly scalar?: ScalarType | undefined;
}): string {
  if (field.enum) {
    const names = field.enum.values.map(({ name }) => name);
    return names.length > 10 ? `a value of ${field.enum.typeName}` : `one of ${names.join(', ')}`;
  }
  if (field.message) return specialTypes.get(field.message.typeName) ?? 'an object';
  return field.scalar === undefined ? 'a value' : scalarInWords(field.scalar);
}

/** A scalar type by what its JSON is: there `sint32` and `sfixed32` are written as `int32` is. */
export function scalarInWords(scalar: ScalarType): string {
  switch (scalar) {
    case ScalarType.BYTES:
      return 'base64';
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
      return 'int32';
    case ScalarType.FIXED32:
      return 'uint32';
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return 'int64';
    case ScalarType.FIXED64:
      return 'uint64';
    default:
      return ScalarType[scalar].toLowerCase();
  }
}
