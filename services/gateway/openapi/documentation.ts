import { readFile } from 'node:fs/promises';
import type { Method } from '#runtime/call/call.ts';
import type { Descriptors } from '../descriptors.ts';
import type { PassedNames } from '../edge/metadata.ts';
import type { Policy } from '../policies.ts';
import type { Route } from '../transcoding/routes.ts';
import { createPage, type Page } from './pages.ts';

/**
 * `/openapi.json`, and `/docs` with Swagger UI, which asks no other host for anything. All of it is made when it is first
 * asked for.
 */
export function createDocumentation(
  descriptors: Descriptors,
  routes: readonly Route[],
  policyOf?: (method: Method) => Policy,
  passed?: PassedNames,
): readonly Page[] {
  return [
    createPage({
      path: '/openapi.json',
      contentType: 'application/json',
      async load() {
        const { createOpenApiDocument } = await import('./document.ts');
        return JSON.stringify(createOpenApiDocument(descriptors, routes, policyOf, passed));
      },
    }),
    createPage({
      path: '/docs',
      contentType: 'text/html; charset=utf-8',
      headers: { 'content-security-policy': contentSecurityPolicy, 'referrer-policy': 'no-referrer' },
      load: async () => html,
    }),
    createPage({ path: '/docs/start.js', contentType: 'text/javascript; charset=utf-8', load: async () => script }),
    swaggerUi('swagger-ui.css', 'text/css; charset=utf-8'),
    swaggerUi('swagger-ui-bundle.js', 'text/javascript; charset=utf-8'),
  ];
}

function swaggerUi(file: string, contentType: string): Page {
  return createPage({
    path: `/docs/${file}`,
    contentType,
    load: async () => readFile(new URL(import.meta.resolve(`swagger-ui-dist/${file}`))),
  });
}

/** The bundle's icons are `data:` URLs, and React sets styles by scripts, which a policy for styles does not hold back. */
const contentSecurityPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

/** Its addresses are relative, so that it works behind a prefix of a proxy as well. */
const html = `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>API</title>
    <link rel="icon" href="data:,">
    <link rel="stylesheet" href="docs/swagger-ui.css">
  </head>
  <body>
    <noscript>This page needs JavaScript; <a href="openapi.json">openapi.json</a> does not.</noscript>
    <main id="swagger-ui"></main>
    <script src="docs/swagger-ui-bundle.js"></script>
    <script src="docs/start.js"></script>
  </body>
</html>
`;

/** Without the validator, which is a service elsewhere. The editor spreads a message over lines; NDJSON has it on one. */
const script = `SwaggerUIBundle({
  url: 'openapi.json',
  dom_id: '#swagger-ui',
  validatorUrl: null,
  deepLinking: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  requestInterceptor(request) {
    if (request.headers['Content-Type'] === 'application/x-ndjson') {
      try {
        request.body = JSON.stringify(JSON.parse(request.body));
      } catch {}
    }
    return request;
  },
  onComplete() {
    document.title = document.querySelector('.info .title')?.firstChild.textContent ?? document.title;
  },
});
`;
