import { readFileSync } from 'node:fs';
import { isMap, isScalar, parseDocument, type YAMLMap } from 'yaml';

/** A value of a chart, as its `values.yaml` has it. */
export interface Value {
  readonly path: readonly string[];
  /** Its comment. */
  readonly description: string;
  /** Undefined: it has values of its own, which follow. */
  readonly default: unknown;
}

/** The values of a chart, in the order of the file. Throws an `Error` that names those without a comment. */
export function readValues(chart: string): readonly Value[] {
  const document = parseDocument(readFileSync(new URL(`${chart}/values.yaml`, import.meta.url), 'utf8'));
  if (!isMap(document.contents)) throw new Error(`helm/${chart}/values.yaml must be a map`);
  const values = valuesOf(document.contents, []);
  const bare = values.filter(({ description }) => description === '').map(({ path }) => path.join('.'));
  if (bare.length > 0) throw new Error(`helm/${chart}/values.yaml has values without a comment: ${bare.join(', ')}`);
  return values;
}

/** A map whose values have comments is told by them, any other one as a whole. */
function valuesOf(map: YAMLMap, path: readonly string[]): readonly Value[] {
  return map.items.flatMap(({ key, value }, index) => {
    if (!isScalar(key)) return [];
    const inner = [...path, String(key.value)];
    // What stands before the first pair of a map belongs to the map.
    const comment = key.commentBefore ?? (index === 0 ? map.commentBefore : undefined) ?? '';
    const description = comment.replaceAll(/\s*\n\s*/g, ' ').trim();
    if (isMap(value) && (value.commentBefore || value.items.some(hasComment))) {
      return [{ path: inner, description, default: undefined }, ...valuesOf(value, inner)];
    }
    return [{ path: inner, description, default: map.toJSON()[String(key.value)] as unknown }];
  });
}

function hasComment({ key }: { readonly key: unknown }): boolean {
  return isScalar(key) && Boolean(key.commentBefore);
}
