import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { gzip as gzipWithCallback } from 'node:zlib';
import { ConfigError } from '#runtime/process/config.ts';
import type { ServedRoute } from '../edge/exchange.ts';
import { parsePathTemplate } from '../transcoding/path-template.ts';
import { describeRoute, type HttpRoute, type RouteTable } from '../transcoding/routes.ts';

/** A file that the gateway serves by itself, beside its routes. */
export type Page = ServedRoute<HttpRoute>;

interface Content {
  readonly etag: string;
  readonly plain: Buffer;
  readonly zipped: Buffer;
}

const gzip = promisify(gzipWithCallback);

/** A page whose content is made when it is first asked for, and kept. Browsers keep it too, and ask whether it is still so. */
export function createPage(options: {
  readonly path: `/${string}`;
  readonly contentType: string;
  readonly load: () => Promise<string | Buffer>;
  readonly headers?: Readonly<Record<string, string>>;
}): Page {
  let loading: Promise<Content> | undefined;

  async function load(): Promise<Content> {
    const plain = Buffer.from(await options.load());
    const digest = createHash('sha256').update(plain).digest('base64url').slice(0, 22);
    // Weak, since it stands for the compressed form as well.
    return { etag: `W/"${digest}"`, plain, zipped: await gzip(plain) };
  }

  return {
    route: { httpMethod: 'GET', template: parsePathTemplate(options.path) },
    serve({ headers, reply }) {
      loading ??= load();
      loading.then(
        ({ etag, plain, zipped }) => {
          void reply.headers({
            ...options.headers,
            etag,
            'cache-control': 'no-cache',
            vary: 'accept-encoding',
            'x-content-type-options': 'nosniff',
          });
          if (isListed(etag, headers['if-none-match'])) return void reply.code(304).send();
          void reply.type(options.contentType);
          if (!takesGzip(headers['accept-encoding'])) return void reply.send(plain);
          void reply.header('content-encoding', 'gzip').send(zipped);
        },
        (error: Error) => void reply.send(error),
      );
    },
  };
}

/**
 * Routes with pages among them.
 *
 * @throws ConfigError that lists the routes which take the path of a page.
 */
export function addPages(routes: RouteTable<ServedRoute>, pages: readonly Page[]): RouteTable<ServedRoute<HttpRoute>> {
  const pagesByPath = new Map(pages.map((page) => [page.route.template.text, page]));
  const problems = [...pagesByPath.keys()].flatMap((path) => {
    const { served } = routes.match('GET', path);
    if (served === undefined) return [];
    return [`${describeRoute(served.route)} takes ${path}, where the documentation is: set DOCS=disabled`];
  });
  if (problems.length > 0) throw new ConfigError(problems);

  return {
    match(httpMethod, path) {
      const page = pagesByPath.get(path);
      if (page !== undefined && (httpMethod === 'GET' || httpMethod === 'HEAD')) return { served: page, segments: [] };
      const match = routes.match(httpMethod, path);
      if (page === undefined || match.served !== undefined) return match;
      return { served: undefined, allow: ['GET', ...match.allow] };
    },
  };
}

function isListed(etag: string, ifNoneMatch: string | undefined): boolean {
  const tags = ifNoneMatch?.split(',').map((tag) => tag.trim()) ?? [];
  return tags.includes(etag) || tags.includes('*');
}

function takesGzip(acceptEncoding: string | string[] | undefined): boolean {
  return String(acceptEncoding ?? '')
    .split(',')
    .some((coding) => /^\s*gzip\s*(?:;\s*q=(?!0(?:\.0*)?\s*$).*)?$/i.test(coding));
}
