import type { PathTemplate, Segment, Variable } from '../transcoding/path-template.ts';

/** A path as OpenAPI can write it. */
export interface OpenApiPath {
  readonly text: string;
  /** By the index of their segments. */
  readonly parameters: ReadonlyMap<number, string>;
}

/**
 * The paths of a document. A parameter of OpenAPI holds no slash, so that a variable such as `{name=shelves/*}` is taken
 * apart into its segments, each `*` under the name of the one before: `shelves/{shelvesId}`, as in the `flatPath` of
 * Google's discovery documents. Templates that differ in nothing but their variables are one path: the first names them.
 */
export function createPaths(): (template: PathTemplate, nameOf: (variable: Variable) => string) => OpenApiPath {
  const paths = new Map<string, OpenApiPath>();
  return (template, nameOf) => {
    const shape = `${template.segments.map((one) => (typeof one === 'string' ? '{}' : literalText(one))).join('/')}:${template.verb}`;
    const path = paths.get(shape) ?? toPath(template, nameOf);
    paths.set(shape, path);
    return path;
  };
}

function toPath(template: PathTemplate, nameOf: (variable: Variable) => string): OpenApiPath {
  const { segments, verb, variables } = template;
  const parameters = new Map<number, string>();
  const taken = new Set<string>();
  const parts = segments.map((segment, index) => {
    if (typeof segment !== 'string') return literalText(segment);
    const variable = variables.find(({ start, end }) => start <= index && index < end);
    const base = variable === undefined ? 'segment' : labelOf(variable, index);
    let name = base;
    for (let count = 2; taken.has(name); count++) name = `${base}${count}`;
    taken.add(name);
    parameters.set(index, name);
    return `{${name}}`;
  });
  return { text: `/${parts.join('/')}${verb && `:${verb}`}`, parameters };

  function labelOf(variable: Variable, index: number): string {
    const before = index > variable.start ? segments[index - 1] : undefined;
    if (typeof before !== 'object') return nameOf(variable);
    return `${before.literal.replace(/\W/g, '_')}${segments[index] === '**' ? 'Path' : 'Id'}`;
  }
}

/** The part of a path that a variable captures, such as `shelves/{shelvesId}`. */
export function capturedText(variable: Variable, { segments }: PathTemplate, { parameters }: OpenApiPath): string {
  return segments
    .map((segment, index) => (typeof segment === 'string' ? `{${parameters.get(index)}}` : segment.literal))
    .slice(variable.start, variable.end)
    .join('/');
}

function literalText({ literal }: Exclude<Segment, string>): string {
  return literal.replace(/[^\w.~!$&'()+,;=@:-]/gu, encodeURIComponent);
}
