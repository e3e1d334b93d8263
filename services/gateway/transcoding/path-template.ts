/** The path templates of `google.api.http`, such as `/v1/{name=shelves/*}/books/{id}:archive`. */

/** A segment of a path: literal text (percent-decoded), one segment, or all that are left. */
export type Segment = { readonly literal: string } | '*' | '**';

/** A field that takes its value from a part of the path. */
export interface Variable {
  readonly fieldPath: string;
  /** The first segment it captures, and the one after the last; `Infinity` where `**` captures all that are left. */
  readonly start: number;
  readonly end: number;
  /** Declared as `{var}` or `{var=*}`, or any other one segment but `**`: its value is decoded in full. */
  readonly single: boolean;
}

export interface PathTemplate {
  readonly text: string;
  readonly segments: readonly Segment[];
  /** What follows the last `:`; empty for none. */
  readonly verb: string;
  readonly variables: readonly Variable[];
}

const fieldPathSyntax = /^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*$/;
const literalSyntax = /^(?:[\w.~!$&'()+,;=@:-]|%[0-9A-Fa-f]{2})+$/;

/**
 * Parses a template by the grammar of `HttpRule`; throws an `Error` that says what is wrong.
 * https://github.com/googleapis/googleapis/blob/master/google/api/http.proto
 */
export function parsePathTemplate(text: string): PathTemplate {
  const fail = (why: string) => new Error(`path template ${JSON.stringify(text)}: ${why}`);
  if (!text.startsWith('/')) throw fail('must begin with /');

  const colon = text.lastIndexOf(':');
  const hasVerb = colon > Math.max(text.lastIndexOf('/'), text.lastIndexOf('}'));
  const verb = hasVerb ? text.slice(colon + 1) : '';
  if (hasVerb && !literalSyntax.test(verb)) throw fail(`${JSON.stringify(verb)} is not a verb`);

  const segments: Segment[] = [];
  const variables: Variable[] = [];

  const addSegments = (part: string) => {
    for (const segment of part.split('/')) {
      if (segments.at(-1) === '**') throw fail('** must be the last segment');
      if (segment === '*' || segment === '**') segments.push(segment);
      else if (literalSyntax.test(segment)) segments.push({ literal: decodeLiteral(segment, fail) });
      else throw fail(segment === '' ? 'has an empty segment' : `${JSON.stringify(segment)} is not a segment`);
    }
  };

  let rest = text.slice(1, hasVerb ? colon : undefined);
  for (;;) {
    const braced = /^\{([^{}=]*)(?:=([^{}]*))?\}/.exec(rest);
    if (braced) {
      const [whole, fieldPath = '', pattern = '*'] = braced;
      if (!fieldPathSyntax.test(fieldPath)) throw fail(`${JSON.stringify(fieldPath)} is not a field path`);
      if (variables.some((other) => other.fieldPath === fieldPath)) throw fail(`binds ${fieldPath} twice`);
      const start = segments.length;
      addSegments(pattern);
      const open = segments.at(-1) === '**';
      const end = open ? Infinity : segments.length;
      variables.push({ fieldPath, start, end, single: end - start === 1 });
      rest = rest.slice(whole.length);
    } else {
      const slash = rest.indexOf('/');
      const segment = slash === -1 ? rest : rest.slice(0, slash);
      addSegments(segment);
      rest = rest.slice(segment.length);
    }
    if (rest === '') break;
    if (!rest.startsWith('/')) throw fail(`expected / before ${JSON.stringify(rest)}`);
    rest = rest.slice(1);
  }
  return { text, segments, verb, variables };
}

function decodeLiteral(segment: string, fail: (why: string) => Error): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    throw fail(`${JSON.stringify(segment)} is not percent-encoded UTF-8`);
  }
}

/**
 * The value of a variable from the segments of a path, as they were sent. In what captures several segments `%2F`
 * stays as it is, since a decoded one could not be told from a separator. Throws `URIError` for a bad encoding.
 */
export function captureVariable(variable: Variable, segments: readonly string[]): string {
  if (variable.single) return decodeURIComponent(segments[variable.start] ?? '');
  let value = '';
  const end = Math.min(variable.end, segments.length);
  for (let i = variable.start; i < end; i++) {
    if (i > variable.start) value += '/';
    value += decodeKeepingSlashes(segments[i] ?? '');
  }
  return value;
}

function decodeKeepingSlashes(segment: string): string {
  if (!segment.includes('%')) return segment;
  return segment
    .split(/(%2f)/i)
    .map((part, i) => (i % 2 === 1 ? part : decodeURIComponent(part)))
    .join('');
}
