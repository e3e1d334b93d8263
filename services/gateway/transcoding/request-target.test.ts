import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { problemOfTarget } from './request-target.ts';

describe('request target', () => {
  const good = [
    '/',
    '/v1/hello/you',
    '/v1/hello/a%20b%2F..%2Fc?x=1',
    '/v1/hello/...',
    '/v1/hello/..a/.b',
    '/v1/hello/a..',
    '/v1//x/',
    '/v1/hello/%E4%B8%96%F0%9F%8C%8D',
    '/v1/hello/%5c',
    '/v1/hello/%2525',
    `/v1/hello/!$&'()*+,;=:@-._~|^{}"<>`,
    '/v1/hello?name=%00%0a../..&path=/../x?y',
    '/v1/hello?name=%ff', // the binder names the parameter
  ];
  for (const target of good) {
    it(`may be ${target}`, () => {
      assert.equal(problemOfTarget(target), undefined);
    });
  }

  const bad: [target: string, problem: string][] = [
    ['', 'the request target must be a path that begins with /'],
    ['*', 'the request target must be a path that begins with /'],
    ['http://example.org/v1', 'the request target must be a path that begins with /'],
    ['example.org:443', 'the request target must be a path that begins with /'],
    ['\\v1', 'the request target must be a path that begins with /'],
    ['/v1\\hello', 'the request target must be percent-encoded ASCII'],
    ['/v1/h\xe9', 'the request target must be percent-encoded ASCII'],
    ['/v1?name=h\xc3\xa9', 'the request target must be percent-encoded ASCII'],
    ['/v1/a b', 'the request target must be percent-encoded ASCII'],
    ['/v1/a#b', 'the request target must be percent-encoded ASCII'],
    ['/v1/hello/..', 'the path must not have . or .. as a segment'],
    ['/v1/../v1/hello', 'the path must not have . or .. as a segment'],
    ['/./v1', 'the path must not have . or .. as a segment'],
    ['/v1/%2e%2E/hello', 'the path must not have . or .. as a segment'],
    ['/v1/.%2e?x', 'the path must not have . or .. as a segment'],
    ['/v1/%2e', 'the path must not have . or .. as a segment'],
    ['/v1/hello/%00', 'the path must not have control characters'],
    ['/v1/hello/a%0D%0Ab', 'the path must not have control characters'],
    ['/v1/hello/%7f', 'the path must not have control characters'],
    ['/v1/hello/%', 'the path must be percent-encoded UTF-8'],
    ['/v1/hello/%zz', 'the path must be percent-encoded UTF-8'],
    ['/v1/hello/%ff', 'the path must be percent-encoded UTF-8'],
    ['/v1/hello/%c0%ae', 'the path must be percent-encoded UTF-8'], // overlong
    ['/v1/hello/%e0%80%af', 'the path must be percent-encoded UTF-8'],
    ['/v1/hello/%ed%a0%80', 'the path must be percent-encoded UTF-8'], // half a surrogate pair
    ['/v1/hello/%f4%90%80%80', 'the path must be percent-encoded UTF-8'], // past U+10FFFF
    ['/v1/hello/%u0041', 'the path must be percent-encoded UTF-8'],
  ];
  for (const [target, problem] of bad) {
    it(`must not be ${JSON.stringify(target)}`, () => {
      assert.equal(problemOfTarget(target), problem);
    });
  }
});
