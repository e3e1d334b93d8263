/** What a PromQL query names. */
export interface QueryNames {
  /** With the labels that its selectors compare. */
  readonly metrics: readonly { readonly name: string; readonly labels: readonly string[] }[];
  /** Labels that results are grouped or matched by. */
  readonly grouping: readonly string[];
}

const words = new Set(['and', 'or', 'unless', 'bool', 'offset', 'inf', 'nan']);

/** Enough of https://prometheus.io/docs/prometheus/latest/querying/basics/ for the queries of this project. */
export function namesOf(query: string): QueryNames {
  const grouping: string[] = [];
  const text = query
    .replaceAll(/"(?:[^"\\]|\\.)*"|'[^']*'/g, '""')
    .replaceAll(/\[[^\]]*\]/g, '')
    .replaceAll(/\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)/g, (_, labels: string) => {
      grouping.push(...namesIn(labels));
      return ' ';
    });
  const metrics = [...text.matchAll(/(?<![\w.:])([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\}|(?!\s*\(|[\w:]))/g)]
    .map(([, name = '', matchers = '']) => ({ name, labels: namesIn(matchers.replaceAll(/[!=~]+\s*""/g, '')) }))
    .filter(({ name }) => !words.has(name));
  return { metrics, grouping };
}

function namesIn(list: string): string[] {
  return list
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
}
