import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { suite, test } from 'node:test';
import { Ajv } from 'ajv';
import { parse } from 'yaml';
import { projectFile, run, skipWithout } from '../harness/command.ts';

// oxlint-disable-next-line typescript/no-explicit-any -- as YAML has it
type Node = any;

interface Patch {
  readonly op: 'add' | 'remove';
  readonly path: string;
  readonly value?: unknown;
}

interface Release {
  readonly name: string;
  readonly chartPath: string;
  readonly setValues?: Readonly<Record<string, unknown>>;
  readonly setValueTemplates?: Readonly<Record<string, string>>;
  readonly valuesFiles?: readonly string[];
}

const text = readFileSync(projectFile('skaffold.yaml'), 'utf8');
/** The published schema of its version, which no package has. */
const { SKAFFOLD_SCHEMA: schemaFile } = process.env;

/** What `skaffold diagnose --yaml-only -p …` would say of the releases. */
function withProfiles(names: readonly string[]): Node {
  const config: Node = parse(text);
  for (const name of names) {
    const profile = config.profiles.find((candidate: Node) => candidate.name === name);
    assert.ok(profile, `no profile ${name}`);
    for (const patch of profile.patches as readonly Patch[]) apply(config, patch);
  }
  return config;
}

/** JSON Patch (RFC 6902), as far as the file uses it. */
function apply(config: Node, { op, path, value }: Patch): void {
  const keys = path.split('/').slice(1);
  const last = keys.pop() ?? '';
  const parent = keys.reduce((node, key) => node?.[key], config);
  assert.ok(parent, `${path}: no such place`);
  if (op === 'add' && last === '-') parent.push(structuredClone(value));
  else if (op === 'add') parent[last] = structuredClone(value);
  else {
    assert.equal(op, 'remove');
    assert.ok(last in parent, `${path}: nothing to remove`);
    delete parent[last];
  }
}

suite('skaffold.yaml', () => {
  test('is what its schema says', (t) => {
    if (schemaFile === undefined) {
      if (process.env.CI) throw new Error('SKAFFOLD_SCHEMA names no file');
      return t.skip('SKAFFOLD_SCHEMA does not name the published schema, v4beta14.json');
    }
    const ajv = new Ajv({ strict: false, validateFormats: false, allErrors: true });
    const validate = ajv.compile(JSON.parse(readFileSync(schemaFile, 'utf8')));
    const config = parse(text);
    assert.equal(`${config.apiVersion.replace('skaffold/', '')}.json`, schemaFile.replace(/^.*\//, ''));
    assert.ok(validate(config), ajv.errorsText(validate.errors, { separator: '\n' }));
  });

  for (const profiles of [
    [],
    ['prod'],
    ['jaeger'],
    ['prometheus'],
    ['debug'],
    ['backup'],
    ['jaeger', 'backup'],
    ['prod', 'jaeger'],
  ]) {
    test(`gives the charts values that they know: ${profiles.join(', ') || 'no profile'}`, async (t) => {
      if (await skipWithout(t, 'helm', ['version'])) return;
      for (const { name, chartPath, ...release } of withProfiles(profiles).deploy.helm.releases as readonly Release[]) {
        const values = [
          ...(release.valuesFiles ?? []).flatMap((file) => ['--values', file]),
          ...Object.entries(release.setValues ?? {}).flatMap(([key, value]) => ['--set', `${key}=${value}`]),
          ...Object.keys(release.setValueTemplates ?? {}).flatMap((key) => ['--set', `${key}=built`]),
        ];
        const { code, stdout, stderr } = await run('helm', [
          'template',
          name,
          chartPath,
          '--kube-version=1.34.4',
          ...values,
        ]);
        assert.equal(code, 0, stderr);
        // Files can be synchronized where the image for development runs, and only there.
        assert.equal(/readOnlyRootFilesystem: false/.test(stdout), !profiles.includes('prod'), name);
      }
    });
  }
});
