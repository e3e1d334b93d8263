import { type DescEnum, type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import { FeatureSet_FieldPresence } from '@bufbuild/protobuf/wkt';
import { commentOf } from './comments.ts';

/** A JSON Schema of draft 2020-12, which is what OpenAPI 3.1 has. */
export type Schema = Readonly<Record<string, unknown>>;

/** The schemas of canonical proto3 JSON: https://protobuf.dev/programming-guides/json/ */
export interface Schemas {
  ofMessage(desc: DescMessage): Schema;
  /** Of a field's value in a JSON object, with its comment. */
  ofField(field: DescField): Schema;
  /** Of a field's value in a path or a query: not null. */
  ofParameter(field: DescField): Schema;
  /** `components.schemas`: what was referred to until now. */
  readonly components: Readonly<Record<string, Schema>>;
}

/** The status of a call, as the gateway writes it. */
export const statusRef = { $ref: '#/components/schemas/google.rpc.Status' } as const;

const anyName = 'google.protobuf.Any';

/** Schemas that every document has, whatever its services: of `google.rpc.Status` and the `Any` in it. */
const common: Readonly<Record<string, Schema>> = {
  'google.rpc.Status': {
    type: 'object',
    description: 'How a call ended: the error model of gRPC.',
    required: ['code'],
    properties: {
      code: { type: 'integer', format: 'int32', description: 'A `google.rpc.Code`: 0 OK, 3 INVALID_ARGUMENT, …' },
      message: { type: 'string', description: 'What went wrong, for developers.' },
      details: {
        type: 'array',
        description: 'Details with a type, such as `google.rpc.BadRequest`, which names the fields at fault.',
        items: { $ref: `#/components/schemas/${anyName}` },
      },
    },
  },
  [anyName]: {
    type: 'object',
    description:
      'A message of any type: its fields beside its type, or its JSON as `value` where that is no object of fields.',
    required: ['@type'],
    properties: {
      '@type': { type: 'string', description: 'Which type, such as `type.googleapis.com/google.rpc.BadRequest`.' },
    },
    additionalProperties: true,
  },
};

export function createSchemas(): Schemas {
  const components = new Map(Object.entries(common));

  function ofMessage(desc: DescMessage): Schema {
    const wellKnown = wellKnownTypes[desc.typeName];
    if (wellKnown !== undefined) return wellKnown;
    const wrapped = wrappedField(desc);
    if (wrapped !== undefined) return nullable(ofScalar(wrapped));
    return refTo(desc.typeName, () => describeMessage(desc));
  }

  /** The component is put down before its fields are looked at, since they may lead back to it. */
  function refTo(name: string, describe: () => Schema): Schema {
    if (!components.has(name)) {
      components.set(name, {});
      components.set(name, describe());
    }
    return { $ref: `#/components/schemas/${name}` };
  }

  function describeMessage(desc: DescMessage): Schema {
    const required = desc.fields.filter(({ presence }) => presence === FeatureSet_FieldPresence.LEGACY_REQUIRED);
    const choices = desc.oneofs.map((oneof) => {
      const members = oneof.fields.map((field) => ({
        title: field.jsonName,
        properties: propertiesOf([field]),
        required: [field.jsonName],
      }));
      const absent = Object.fromEntries(oneof.fields.map(({ jsonName }) => [jsonName, false]));
      const none = { title: 'none of them', properties: absent };
      const description = commentOf(oneof);
      return { ...(description && { description }), oneOf: [...members, none] };
    });
    return {
      type: 'object',
      ...annotationsOf(desc),
      ...(required.length > 0 && { required: required.map(({ jsonName }) => jsonName) }),
      properties: propertiesOf(desc.fields.filter(({ oneof }) => oneof === undefined)),
      ...(choices.length > 0 && { allOf: choices }),
    };
  }

  function propertiesOf(fields: readonly DescField[]): Record<string, Schema> {
    return Object.fromEntries(fields.map((field) => [field.jsonName, ofField(field)]));
  }

  function ofField(field: DescField): Schema {
    return { ...ofValues(field, ofSingle), ...annotationsOf(field) };
  }

  function ofValues(field: DescField, ofOne: (field: DescField) => Schema): Schema {
    if (field.fieldKind === 'list') return { type: 'array', items: ofOne(field) };
    if (field.fieldKind !== 'map') return ofOne(field);
    const propertyNames = mapKeys(field.mapKey);
    return { type: 'object', ...(propertyNames && { propertyNames }), additionalProperties: ofOne(field) };
  }

  function ofSingle(field: DescField): Schema {
    if (field.message) return ofMessage(field.message);
    return field.enum ? ofEnum(field.enum) : ofScalar(field.scalar);
  }

  function ofEnum(desc: DescEnum): Schema {
    if (desc.typeName === 'google.protobuf.NullValue') return { type: 'null' };
    return refTo(desc.typeName, () => {
      const values = desc.values
        .map((value) => [value.name, commentOf(value)] as const)
        .filter(([, comment]) => comment);
      const list = values.map(([name, comment]) => `- \`${name}\`: ${comment.replace(/\s*\n\s*/g, ' ')}`).join('\n');
      const { description: comment, ...annotations } = annotationsOf(desc);
      const description = [comment, list].filter(Boolean).join('\n\n');
      const names = desc.values.map(({ name }) => name);
      return { type: 'string', ...(description && { description }), ...annotations, enum: names };
    });
  }

  return {
    ofMessage,
    ofField,
    ofParameter(field) {
      const ofOne = (one: DescField) => {
        const wrapped = one.message && wrappedField(one.message);
        return wrapped === undefined ? ofSingle(one) : ofScalar(wrapped);
      };
      return ofValues(field, ofOne);
    },
    get components() {
      return Object.fromEntries([...components].sort(([a], [b]) => (a < b ? -1 : 1)));
    },
  };
}

function annotationsOf(desc: DescMessage | DescField | DescEnum): { description?: string; deprecated?: true } {
  const description = commentOf(desc);
  return { ...(description && { description }), ...(desc.deprecated && { deprecated: true as const }) };
}

/** The schema, or null. */
export function nullable(schema: Schema): Schema {
  const { type, oneOf } = schema;
  if (typeof type === 'string') return { ...schema, type: [type, 'null'] };
  if (Array.isArray(oneOf)) {
    const others = (oneOf as Schema[]).filter((one) => one['type'] !== 'null');
    return { ...schema, oneOf: [...others, { type: 'null' }] };
  }
  return '$ref' in schema ? { anyOf: [schema, { type: 'null' }] } : schema;
}

const integerText = '^-?[0-9]+$';
const naturalText = '^[0-9]+$';

function ofScalar(scalar: ScalarType): Schema {
  switch (scalar) {
    case ScalarType.DOUBLE:
      return floating('double');
    case ScalarType.FLOAT:
      return floating('float');
    case ScalarType.INT32:
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
      return { type: 'integer', format: 'int32' };
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return { type: 'integer', format: 'uint32', minimum: 0 };
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return { type: 'string', format: 'int64', pattern: integerText, examples: ['0'] };
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return { type: 'string', format: 'uint64', pattern: naturalText, examples: ['0'] };
    case ScalarType.BOOL:
      return { type: 'boolean' };
    case ScalarType.STRING:
      return { type: 'string' };
    case ScalarType.BYTES:
      return { type: 'string', format: 'byte', contentEncoding: 'base64' };
  }
}

function floating(format: 'double' | 'float'): Schema {
  return {
    oneOf: [
      { type: 'number', format },
      { type: 'string', enum: ['NaN', 'Infinity', '-Infinity'] },
    ],
  };
}

/** What the keys of a map must look like; undefined for strings, which may be any. */
function mapKeys(key: ScalarType): Schema | undefined {
  const { type, pattern = integerText, minimum } = ofScalar(key);
  if (key === ScalarType.STRING) return undefined;
  if (type === 'boolean') return { enum: ['true', 'false'] };
  return { pattern: minimum === 0 ? naturalText : pattern };
}

/** The scalar in one of `google.protobuf`'s wrappers, such as `Int64Value`. */
function wrappedField(desc: DescMessage): ScalarType | undefined {
  return /^google\.protobuf\.(?:Bool|String|Bytes|Double|Float|U?Int(?:32|64))Value$/.test(desc.typeName)
    ? desc.fields[0]?.scalar
    : undefined;
}

const wellKnownTypes: Readonly<Record<string, Schema>> = {
  'google.protobuf.Timestamp': { type: 'string', format: 'date-time' },
  'google.protobuf.Duration': { type: 'string', pattern: '^-?[0-9]+(\\.[0-9]{1,9})?s$', examples: ['1.5s'] },
  'google.protobuf.FieldMask': { type: 'string', format: 'field-mask' },
  'google.protobuf.Struct': { type: 'object', additionalProperties: true },
  'google.protobuf.Value': {},
  'google.protobuf.ListValue': { type: 'array', items: {} },
};
