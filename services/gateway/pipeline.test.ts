import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Registry } from 'prom-client';
import type { Caller } from '#runtime/call/call.ts';
import { ConfigError } from '#runtime/process/config.ts';
import type { HttpRule } from './descriptors.ts';
import { createPipeline } from './pipeline.ts';
import { createPolicies } from './policies.ts';
import { createCache } from './stages/cache.ts';
import { compileProto, libraryProto } from './testdata/build.ts';

const descriptors = compileProto(libraryProto);
const upstream = {
  name: 'library',
  start: () => assert.fail('no call is made'),
  timeoutMs: () => undefined,
  refusal: () => undefined,
  admit: (next: Caller) => next,
};

/** The pipeline of the library with some of its rules replaced. */
function pipelineWith(rules: Record<string, HttpRule>) {
  const methods = descriptors.methods.map((service) => {
    const rule = rules[service.method.path.split('/')[2] ?? ''];
    return rule === undefined ? service : { ...service, rule };
  });
  return createPipeline({
    cache: createCache({ maxBytes: 1_048_576, registry: new Registry() }),
    descriptors: { ...descriptors, methods },
    upstreamOf: () => upstream,
    authenticate: () => assert.fail('no policy asks for a token'),
    checkQuota: () => assert.fail('no method has a quota'),
    policyOf: createPolicies(
      undefined,
      descriptors.methods.map(({ method }) => method),
    ),
    streamIdleTimeoutMs: 1,
    streamHeartbeatMs: 1,
    bodyLimitBytes: 1,
  });
}

describe('pipeline', () => {
  it('serves every method, streams too', () => {
    const { served } = pipelineWith({});
    const methods = new Set(served.map(({ service }) => service.method.path));
    assert.deepEqual(
      [...methods],
      descriptors.methods.map(({ method }) => method.path),
    );
  });

  it('stops the start with every route that does not fit its method', () => {
    assert.throws(
      () =>
        pipelineWith({
          GetBook: { get: '/v1/{title}' },
          Tag: { put: 'v1' },
          ListBooks: { get: '/l', responseBody: 'x' },
        }),
      (error) => {
        assert.ok(error instanceof ConfigError);
        assert.deepEqual(error.problems, [
          'library.v1.Library/GetBook: path variable title is not a field of library.v1.GetBookRequest',
          'library.v1.Library/ListBooks: response_body x is not a field of library.v1.ListBooksResponse',
          'library.v1.Library/Tag: path template "v1": must begin with /',
        ]);
        return true;
      },
    );
  });

  it('stops the start for routes that conflict', () => {
    assert.throws(() => pipelineWith({ Tag: { get: '/v1/{name=shelves/*}/books' } }), /conflicts with GET/);
  });
});
