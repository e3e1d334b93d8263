import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parsePathTemplate } from '../transcoding/path-template.ts';
import { capturedText, createPaths } from './paths.ts';

/** The paths of templates in one document. */
function pathsOf(...templates: string[]): string[] {
  const toPath = createPaths();
  return templates.map((text) => toPath(parsePathTemplate(text), ({ fieldPath }) => fieldPath).text);
}

describe('OpenAPI paths', () => {
  const paths: [template: string, path: string][] = [
    ['/v1/hello:collect', '/v1/hello:collect'],
    ['/v1/hello/{name}/stream', '/v1/hello/{name}/stream'],
    ['/v1/{book.id=*}:read', '/v1/{book.id}:read'],
    ['/v1/{name=shelves/*/books/*}', '/v1/shelves/{shelvesId}/books/{booksId}'],
    ['/v1/{from=shelves/*}/to/{to=shelves/*}', '/v1/shelves/{shelvesId}/to/shelves/{shelvesId2}'],
    ['/v1/{name=*/*}', '/v1/{name}/{name2}'],
    ['/v1/{name=projects}', '/v1/projects'],
    ['/v1/*/x/**', '/v1/{segment}/x/{segment2}'],
    ['/v1/books/{name=**}:find', '/v1/books/{name}:find'],
    ['/v1/{name=big-shelves/**}', '/v1/big-shelves/{big_shelvesPath}'],
    ['/caf%C3%A9/%7Bx%7D', '/caf%C3%A9/%7Bx%7D'],
  ];
  for (const [template, path] of paths) {
    it(`write ${template} as ${path}`, () => {
      assert.deepEqual(pathsOf(template), [path]);
    });
  }

  it('are one where only the variables differ', () => {
    assert.deepEqual(
      pathsOf('/v1/{name=shelves/*}', '/v1/shelves/{id}', '/v1/shelves/{all=**}', '/v1/shelves/{id}:x'),
      ['/v1/shelves/{shelvesId}', '/v1/shelves/{shelvesId}', '/v1/shelves/{shelvesId}', '/v1/shelves/{id}:x'],
    );
  });

  it('tell what a variable captures', () => {
    const template = parsePathTemplate('/v1/{name=shelves/*/books/**}');
    const path = createPaths()(template, ({ fieldPath }) => fieldPath);
    const [variable] = template.variables;
    assert.ok(variable);
    assert.equal(capturedText(variable, template, path), 'shelves/{shelvesId}/books/{booksPath}');
  });
});
