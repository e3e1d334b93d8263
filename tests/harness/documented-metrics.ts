import { readFileSync } from 'node:fs';
import { projectFile } from './command.ts';

export interface DocumentedMetric {
  readonly type: string;
  readonly labels: ReadonlySet<string>;
}

/** The rows of the tables of metrics in docs/observability.md, by their heading. */
export function readDocumentedMetrics(): Map<string, Map<string, DocumentedMetric>> {
  const tables = new Map<string, Map<string, DocumentedMetric>>();
  const [, metrics = ''] = readFileSync(projectFile('docs/observability.md'), 'utf8').split(
    /^## (?=Metrics)|^## Logs/m,
  );
  for (const section of metrics.split(/^### /m).slice(1)) {
    const rows = [...section.matchAll(/^\| `(\w+)` \| (\w+) \|(.*?)\|.*\|$/gm)].map(
      ([, name = '', type = '', labels = '']) =>
        [name, { type, labels: new Set([...labels.matchAll(/`(\w+)`/g)].map(([, label = '']) => label)) }] as const,
    );
    tables.set(section.split('\n', 1)[0] ?? '', new Map(rows));
  }
  return tables;
}
