import * as v from 'valibot';
import { durationMs, strictObject } from '#runtime/process/config.ts';
import { problemOfKey } from './edge/metadata.ts';

const text = v.pipe(v.string('must be text'), v.nonEmpty('must not be empty'));

/** A duration such as `5s`, as milliseconds. */
export const duration = (limits: { readonly min: number; readonly max: number }, description: string) =>
  v.pipe(
    v.string('must be a duration such as 250ms, 5s or 1m'),
    v.regex(/^(0|\d+(\.\d+)?(ms|s|m|h))$/, 'must be a duration such as 250ms, 5s or 1m'),
    v.rawTransform<string, number>(({ dataset, addIssue, NEVER }) => {
      const { success, output, issues } = v.safeParse(durationMs(limits), dataset.value);
      if (success) return output;
      for (const { message } of issues) addIssue({ message });
      return NEVER;
    }),
    v.description(description),
  );

const dayMs = 24 * 3_600_000;

const cacheSchema = v.pipe(
  strictObject({
    ttl: duration({ min: 1, max: dayMs }, 'How long a reply is fresh, such as 5s.'),
    staleWhileRevalidate: v.optional(
      duration({ min: 0, max: dayMs }, 'How long after that it may still be given, while a new one is fetched.'),
      '0s',
    ),
    staleIfError: v.optional(
      duration({ min: 0, max: dayMs }, 'How long after that it may be given when a new one cannot be had.'),
      '0s',
    ),
    key: v.optional(
      v.pipe(
        v.array(v.pipe(text, v.regex(/^[0-9a-z_.-]+$/, 'must be a metadata key of 0-9 a-z _ . -')), 'must be a list'),
        v.description(
          'Metadata that the reply depends on besides the request, such as accept-language; no other is sent. Replies to authenticated callers are shared only where it names authorization, or a key that a claim is passed as.',
        ),
      ),
      [],
    ),
  }),
  v.title('Cache'),
  v.description(
    'Replies are kept, and equal requests at the same time are one call. Only for unary methods that are NO_SIDE_EFFECTS.',
  ),
);

const quotaSchema = v.pipe(
  strictObject({
    requests: v.pipe(
      v.number('must be a number'),
      v.integer('must be an integer'),
      v.minValue(1, 'must be >= 1'),
      v.maxValue(1_000_000_000, 'must be <= 1000000000'),
      v.description('How many requests a caller may make in that time.'),
    ),
    per: v.pipe(
      duration({ min: 1_000, max: dayMs }, 'The time, such as 1m.'),
      v.check((ms) => ms % 1_000 === 0, 'must be whole seconds'),
    ),
    key: v.optional(
      v.pipe(
        text,
        v.regex(
          /^(ip|header:[0-9a-z!#$%&'*+.^_`|~-]+|claim:.+)$/,
          'must be ip, header:<name in small letters> or claim:<name>',
        ),
        v.description(
          'Who a caller is: its address (ip), a header (header:x-api-key) or a claim of its token (claim:sub). Who does not bring that counts by its address.',
        ),
      ),
      'ip',
    ),
  }),
  v.title('Quota'),
  v.description('How many requests each caller may make; those past it get 429. Each policy counts on its own.'),
);

const policySchema = strictObject({
  name: v.pipe(
    v.array(
      strictObject({
        service: v.optional(v.pipe(text, v.description('Its full name, such as helloworld.Greeter; all by default.'))),
        method: v.optional(v.pipe(text, v.description('Its name without the service; all of the service by default.'))),
      }),
      'must be a list',
    ),
    v.minLength(1, 'must name at least one method, or all: [{}]'),
    v.description(
      'The methods that it is for, as in a gRPC service config: { service, method }, { service } or {} for all.',
    ),
  ),
  cache: v.optional(cacheSchema),
  quota: v.optional(quotaSchema),
  auth: v.optional(
    v.pipe(
      v.union(
        [v.literal('anonymous'), strictObject({ provider: v.pipe(text, v.description('The name of one in auth.')) })],
        'must be anonymous or { provider: <name> }',
      ),
      v.description('Whose tokens it asks for, or that it asks for none.'),
    ),
  ),
  priority: v.optional(
    v.pipe(
      v.picklist(['high', 'low'], 'must be high or low'),
      v.description('What is shed first in an overload: low.'),
    ),
  ),
});

/** The schema of `policies`. */
export const policiesSchema = v.pipe(
  v.array(policySchema, 'must be a list'),
  v.description(
    'What holds for methods beyond the service config. Each field of a method comes from the policy that names it most exactly and has that field.',
  ),
);

const authProviderSchema = strictObject({
  name: v.pipe(
    text,
    v.regex(/^[0-9A-Za-z_.-]+$/, 'must be of letters, digits, _ . and -'),
    v.description('Its name in policies.'),
  ),
  issuer: v.pipe(text, v.description('The `iss` that its tokens must have.')),
  audiences: v.pipe(
    v.array(text, 'must be a list'),
    v.minLength(1, 'must name at least one audience'),
    v.description('One of these must be in the `aud` of a token.'),
  ),
  jwks: v.pipe(
    text,
    v.check((url) => /^https?:$/.test(URL.parse(url)?.protocol ?? ''), 'must be an http:// or https:// URL'),
    v.description('The URL of its key set (RFC 7517).'),
  ),
  algorithms: v.optional(
    v.pipe(
      v.array(
        v.picklist(
          ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA'],
          'must be an asymmetric algorithm of JWS, such as RS256',
        ),
        'must be a list',
      ),
      v.minLength(1, 'must name at least one algorithm'),
      v.description('The algorithms that a token may be signed with.'),
    ),
    ['RS256', 'ES256'],
  ),
  clockSkew: v.optional(
    duration({ min: 0, max: 300_000 }, 'How far the clock of the issuer may differ, such as 30s.'),
    '30s',
  ),
  claims: v.optional(
    v.pipe(
      v.record(
        text,
        v.pipe(
          text,
          v.regex(/^[0-9a-z_.-]+$/, 'must be a metadata key of 0-9 a-z _ . -'),
          v.rawCheck(({ dataset, addIssue }) => {
            const message = dataset.typed && !dataset.issues ? problemOfKey(dataset.value) : undefined;
            if (message !== undefined) addIssue({ message });
          }),
        ),
      ),
      v.description(
        'Claims that are passed to the upstream, and the metadata keys that they have there, which no client can set. Text beyond ASCII needs a key that ends in -bin; what is no text is passed as JSON.',
      ),
    ),
    {},
  ),
});

export type AuthProvider = v.InferOutput<typeof authProviderSchema>;

/** The schema of `auth`. */
export const authSchema = v.pipe(
  v.array(authProviderSchema, 'must be a list'),
  v.description(
    'Who issues the tokens (JWT) that policies ask for. With one of them the auth of each method must be said.',
  ),
);

export type CachePolicy = v.InferOutput<typeof cacheSchema>;
export type QuotaPolicy = v.InferOutput<typeof quotaSchema>;
export type PolicyConfig = v.InferOutput<typeof policySchema>;
