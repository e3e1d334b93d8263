import process from 'node:process';
import { toJsonSchema } from '@valibot/to-json-schema';
import { configFileSchema } from './config-file.ts';

// Run by `make schema`: the JSON Schema of the file that GATEWAY_CONFIG names, for editors, on standard output.
const schema = toJsonSchema(configFileSchema('/'), {
  // What a pipe is in the end: its beginning may take anything, so that messages are our own.
  typeMode: 'output',
  // What JSON Schema has no words for.
  ignoreActions: ['check', 'raw_check', 'transform', 'raw_transform'],
  overrideSchema({ valibotSchema, jsonSchema }) {
    if (valibotSchema.type !== 'object_with_rest') return undefined;
    const { required = [], ...rest } = jsonSchema;
    return { ...rest, ...(required.length > 0 && { required }), additionalProperties: false };
  },
});
process.stdout.write(`${JSON.stringify(schema, null, 2)}\n`);
