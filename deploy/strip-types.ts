import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { dirname, join, relative, resolve } from 'node:path';
import process from 'node:process';
import { fileURLToPath, pathToFileURL } from 'node:url';

/*
 * node deploy/strip-types.ts OUT ENTRY.ts…
 *
 * Writes the programs as JavaScript below OUT: the files that the entries reach by imports and by `new URL('…',
 * import.meta.url)`, and no other, each at its place in the project. Types become blanks, so that lines and columns stay
 * what they are in the sources. Imports keep working as they are written, relative ones and those of package.json's
 * `#runtime/*` alike, because each one's `.ts` turns into `.js` as its file's name does; package.json comes along.
 */
const root = join(import.meta.dirname, '..');
const [out, ...entries] = process.argv.slice(2);
if (out === undefined || entries.length === 0) throw new Error('usage: node deploy/strip-types.ts OUT ENTRY.ts…');

// Formatted code has no other way to write them.
const imports = /(?<=\b(?:from |import |import\())'((?:\.{1,2}\/|#)[^']+)'/g;
const files = /(?<=\bnew URL\()'([^':]+)'(?=, import\.meta\.url\))/g;

const reached = new Set([join(root, 'package.json'), ...entries.map((entry) => resolve(entry))]);
for (const file of reached) {
  const target = join(out, relative(root, file));
  mkdirSync(dirname(target), { recursive: true });
  if (!file.endsWith('.ts')) {
    copyFileSync(file, target);
    continue;
  }
  const reach = (_: string, specifier: string): string => {
    reached.add(
      fileURLToPath(
        specifier.startsWith('#') ? import.meta.resolve(specifier) : new URL(specifier, pathToFileURL(file)),
      ),
    );
    return `'${withoutTypes(specifier)}'`;
  };
  const code = stripTypeScriptTypes(readFileSync(file, 'utf8')).replace(imports, reach).replace(files, reach);
  const [left] = /['"](?:\.{1,2}\/|#)[^'"\n]*\.ts['"]/.exec(code) ?? [];
  if (left !== undefined) throw new Error(`${file}: ${left} would name a file that the image does not have`);
  writeFileSync(withoutTypes(target), code);
}

function withoutTypes(name: string): string {
  return name.replace(/\.ts$/, '.js');
}
