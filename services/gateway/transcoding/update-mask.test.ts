import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { JsonValue } from '@bufbuild/protobuf';
import type { HttpRule } from '../descriptors.ts';
import { compileProto, nastyProtos } from '../testdata/build.ts';
import { routesOf } from './routes.ts';
import { pathsOf, updateMaskField } from './update-mask.ts';

const { methods, types } = compileProto(nastyProtos);

describe('update mask', () => {
  const rules: [rule: HttpRule, method: string, field: string | undefined][] = [
    [{ patch: '/p', body: 'thing' }, 'Patch', 'update_mask'],
    [{ patch: '/p', body: '*' }, 'Patch', undefined],
    [{ put: '/p', body: 'thing' }, 'Patch', undefined],
    [{ patch: '/p', body: 'child' }, 'Name', 'mask'],
    [{ patch: '/p', body: 'parts' }, 'Name', undefined],
    [{ patch: '/p', body: 'config' }, 'Name', undefined],
    [{ patch: '/p', body: 'content' }, 'Upload', undefined],
  ];
  for (const [rule, name, field] of rules) {
    it(`is ${field ?? 'none'} for ${JSON.stringify(rule)}`, () => {
      const service = methods.find(({ method }) => method.path.endsWith(`/${name}`));
      assert.ok(service);
      const [route] = routesOf({ ...service, rule });
      assert.ok(route);
      assert.equal(updateMaskField(route)?.name, field);
    });
  }

  const cases: [json: JsonValue, paths: string[]][] = [
    [{}, []],
    [null, []],
    [{ size: '1', ttl: '1s', line1: 'x' }, ['size', 'ttl', 'line_1']],
    [{ line_1: 'x', unknown: 1 }, ['line_1']],
    [{ flag: false, since: null, child: null }, ['flag', 'since', 'child']],
    [{ child: { child: { ratio: 0, name: '' }, size: '2' } }, ['child.child.ratio', 'child.child.name', 'child.size']],
    [{ child: {} }, ['child']],
    [{ parts: [{ name: 'a' }], byName: { a: { size: 1 } } }, ['parts', 'by_name']],
    [{ config: { aB: 1, c: { d: [1], e: null }, f: {} } }, ['config.aB', 'config.c.d', 'config.c.e', 'config.f']],
    [{ config: { 'a.b': 1, c: 2 } }, ['config']],
    [{ detail: { '@type': 'x/nasty.v1.Thing', name: 'a' }, limit: '1' }, ['detail', 'limit']],
    [{ name: 'bound', child: { key: 'bound', size: 1 } }, ['child.size']],
  ];
  for (const [json, paths] of cases) {
    it(`of ${JSON.stringify(json)} is ${paths.join(',') || 'empty'}`, () => {
      const thing = types.getMessage('nasty.v1.Thing');
      assert.ok(thing);
      const isBound = (path: string) => path === 'name' || path === 'child.key';
      assert.deepEqual(pathsOf(thing, json, isBound), paths);
    });
  }
});
