import * as v from 'valibot';
import { pathInside, strictObject } from '#runtime/process/config.ts';
import { defaultPassedNames, problemOfReplyHeader, problemOfRequestHeader } from './edge/metadata.ts';
import { duration } from './policy-schema.ts';

/** The name of a header as HTTP/2 has it. */
const headerName = v.pipe(
  v.string('must be text'),
  v.regex(/^[0-9a-z!#$%&'*+.^_`|~-]+$/, 'must be the name of a header in small letters'),
);

/** Names of which each is checked once more. */
function headerNames(problemOf: (name: string) => string | undefined, description: string) {
  const checked = v.pipe(
    headerName,
    v.rawCheck(({ dataset, addIssue }) => {
      const message = dataset.typed && !dataset.issues ? problemOf(dataset.value) : undefined;
      if (message !== undefined) addIssue({ message });
    }),
  );
  return v.pipe(v.array(checked, 'must be a list'), v.description(description));
}

/** The schema of `metadata`. */
export const metadataSchema = v.pipe(
  strictObject({
    request: v.optional(
      headerNames(problemOfRequestHeader, 'Headers of requests that the upstream gets under their own names.'),
      defaultPassedNames.request,
    ),
    reply: v.optional(
      headerNames(problemOfReplyHeader, 'Metadata of replies that clients get under its own name.'),
      defaultPassedNames.reply,
    ),
  }),
  v.title('Metadata'),
  v.description('What is passed on under its own name. The rest has the prefix grpc-metadata- on the side of HTTP.'),
);

const origin = v.pipe(
  v.string('must be text'),
  v.check(
    (text) => text === '*' || (/^https?:[^*]+$/.test(text) && URL.parse(text)?.origin === text),
    'must be an origin such as https://app.example, or "*" for all',
  ),
);

/** The schema of `cors`. */
export const corsSchema = v.pipe(
  strictObject({
    origins: v.pipe(
      v.array(origin, 'must be a list'),
      v.minLength(1, 'must name at least one origin'),
      v.description('The origins of pages that may read replies and open WebSockets, as browsers send them.'),
    ),
    allowHeaders: v.optional(
      v.pipe(
        v.array(headerName, 'must be a list'),
        v.description('Headers that pages may send besides those that the gateway reads.'),
      ),
      [],
    ),
    exposeHeaders: v.optional(
      v.pipe(
        v.array(headerName, 'must be a list'),
        v.description(
          'Headers of replies that pages may read besides those that the gateway writes. Without credentials they may read all.',
        ),
      ),
      [],
    ),
    credentials: v.optional(
      v.pipe(
        v.boolean('must be true or false'),
        v.description('Whether pages may send cookies and client certificates. Tokens need it not.'),
      ),
      false,
    ),
    maxAge: v.optional(
      duration({ min: 0, max: 24 * 3_600_000 }, 'How long browsers keep the answer to a preflight, such as 10m.'),
      '10m',
    ),
  }),
  v.rawCheck(({ dataset, addIssue }) => {
    if (!dataset.typed) return;
    const { origins, credentials } = dataset.value;
    if (!origins.includes('*')) return;
    if (credentials) {
      addIssue({ message: 'must not be true for all origins', path: pathInside(dataset.value, 'credentials') });
    }
    if (origins.length > 1) {
      addIssue({ message: 'must not name others beside "*"', path: pathInside(dataset.value, 'origins') });
    }
  }),
  v.title('CORS'),
  v.description('Which pages of other origins may call the gateway from a browser: none without this.'),
);

export type CorsConfig = v.InferOutput<typeof corsSchema>;
