import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { captureVariable, parsePathTemplate } from './path-template.ts';

describe('path template', () => {
  const shapes: [text: string, segments: string, variables: string, verb: string][] = [
    ['/v1', 'v1', '', ''],
    ['/v1/hello/{name}', 'v1 hello *', 'name=2..3', ''],
    ['/v1/hello/{name=*}', 'v1 hello *', 'name=2..3', ''],
    ['/v1/hello:collect', 'v1 hello', '', 'collect'],
    ['/v1/{name=shelves/*}', 'v1 shelves *', 'name=1..3', ''],
    ['/v1/{name=shelves/*/books/**}', 'v1 shelves * books **', 'name=1..Infinity', ''],
    ['/{a.b_c=**}:do', '**', 'a.b_c=0..Infinity', 'do'],
    ['/v1/{a}/x/{b.c}:v', 'v1 * x *', 'a=1..2 b.c=3..4', 'v'],
    ['/v1/*/x/**', 'v1 * x **', '', ''],
    ['/v1/{name=only}', 'v1 only', 'name=1..2', ''],
    ['/v1/a:b:c', 'v1 a:b', '', 'c'],
    ['/v1/a:b/c', 'v1 a:b c', '', ''],
    ['/v1/caf%C3%A9', 'v1 café', '', ''],
    ['/package.Service/Method', 'package.Service Method', '', ''],
  ];
  for (const [text, segments, variables, verb] of shapes) {
    it(`reads ${text}`, () => {
      const template = parsePathTemplate(text);
      const words = template.segments.map((segment) => (typeof segment === 'string' ? segment : segment.literal));
      assert.equal(words.join(' '), segments);
      assert.equal(
        template.variables.map(({ fieldPath, start, end }) => `${fieldPath}=${start}..${end}`).join(' '),
        variables,
      );
      assert.equal(template.verb, verb);
    });
  }

  const bad: [text: string, why: RegExp][] = [
    ['', /must begin with \//],
    ['v1', /must begin with \//],
    ['/', /empty segment/],
    ['/v1//x', /empty segment/],
    ['/v1/', /empty segment/],
    ['/v1/**/x', /\*\* must be the last/],
    ['/v1/{a=**}/x', /\*\* must be the last/],
    ['/v1/{a=x/**/y}', /\*\* must be the last/],
    ['/v1/{a', /not a segment/],
    ['/v1/{a}b', /expected \/ before "b"/],
    ['/v1/x{a}', /not a segment/],
    ['/v1/{a={b}}', /not a segment/],
    ['/v1/{}', /"" is not a field path/],
    ['/v1/{a..b}', /not a field path/],
    ['/v1/{1a}', /not a field path/],
    ['/v1/{a}/{a}', /binds a twice/],
    ['/v1/***', /not a segment/],
    ['/v1/a b', /not a segment/],
    ['/v1/a?b', /not a segment/],
    ['/v1/%zz', /not a segment/],
    ['/v1/%ff', /not percent-encoded UTF-8/],
    ['/v1/x:', /"" is not a verb/],
    ['/v1/{a}:{b}', /expected \/ before ":/],
  ];
  for (const [text, why] of bad) {
    it(`refuses ${JSON.stringify(text)}`, () => {
      assert.throws(() => parsePathTemplate(text), why);
    });
  }

  const captures: [template: string, path: string, value: string][] = [
    ['/v1/{a}', 'v1/x', 'x'],
    ['/v1/{a}', 'v1/a%2Fb%20c+d', 'a/b c+d'],
    ['/v1/{a}', 'v1/%E4%B8%96%F0%9F%8C%8D', '世🌍'],
    ['/v1/{a=shelves/*}', 'v1/shelves/a%2fb%20c', 'shelves/a%2fb c'],
    ['/v1/{a=**}', 'v1/x/y%2Fz/%C3%A9', 'x/y%2Fz/é'],
    ['/v1/{a=**}', 'v1', ''],
    ['/v1/{a=**}', 'v1/one', 'one'],
    ['/v1/{a=x/**}', 'v1/x', 'x'],
    ['/v1/{a=**}', 'v1/a//b', 'a//b'],
  ];
  for (const [template, path, value] of captures) {
    it(`captures ${JSON.stringify(value)} from ${path} by ${template}`, () => {
      const [variable] = parsePathTemplate(template).variables;
      assert.ok(variable);
      assert.equal(captureVariable(variable, path.split('/')), value);
    });
  }

  it('refuses to capture what is not percent-encoded UTF-8', () => {
    const [variable] = parsePathTemplate('/v1/{a}').variables;
    assert.ok(variable);
    for (const bad of ['%', '%zz', '%ff', '%ed%a0%80']) {
      assert.throws(() => captureVariable(variable, ['v1', bad]), URIError);
    }
  });
});
