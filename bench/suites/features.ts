import { generateKeyPairSync, sign } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { built } from '../harness/build.ts';
import { runHttpLoad } from '../harness/http-load.ts';
import { interleave, measureLoad } from '../harness/measure.ts';
import { startSubject } from '../harness/subject.ts';
import type { Suite } from '../harness/suite.ts';

const readOnly = [{ service: 'helloworld.Greeter', method: 'SayHello' }];

/** What each feature adds to a unary GET: alone on the bare gateway, and tracing on the whole one. */
export const features: Suite = async ({ measures, use, backends, effort }) => {
  const addresses = await backends(3);
  const directory = mkdtempSync(join(tmpdir(), 'tandem-bench-'));
  const identity = await startIdentity();
  const collector = await startCollector();
  try {
    const file = (name: string, content: object) => {
      const path = join(directory, name);
      writeFileSync(path, JSON.stringify(content));
      return path;
    };
    const cache = file('cache.yaml', { policies: [{ name: readOnly, cache: { ttl: '1s' } }] });
    const auth = file('auth.yaml', {
      auth: [{ name: 'bench', issuer: identity.issuer, audiences: ['bench'], jwks: identity.url }],
      policies: [
        { name: [{ service: 'helloworld.Greeter' }], auth: 'anonymous' },
        { name: readOnly, auth: { provider: 'bench' } },
      ],
    });
    const env = { TARGET: `ipv4:${addresses.join(',')}`, HOST: '127.0.0.1', PORT: '0', ADMIN_PORT: '0' };
    const traced = (ratio: string) => ({
      ...env,
      DRAIN_DELAY: '0s',
      OTEL_TRACES_EXPORTER: 'otlp',
      OTEL_EXPORTER_OTLP_PROTOCOL: 'http/protobuf',
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
      OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
      OTEL_TRACES_SAMPLER_ARG: ratio,
    });
    const parts = built('bench/subjects/gateway.ts');
    const whole = built('services/gateway/main.ts');
    const subjects = [
      { name: 'bare', program: parts, env },
      { name: '+ metrics', program: parts, env: { ...env, FEATURES: 'metrics' } },
      { name: '+ metrics, logs', program: parts, env: { ...env, FEATURES: 'metrics,logs' } },
      { name: '+ metrics, logs, kept traces', program: parts, env: { ...env, FEATURES: 'metrics,logs,traces' } },
      { name: '+ limiter', program: parts, env: { ...env, FEATURES: 'limiter' } },
      { name: '+ cache look-up (a miss)', program: parts, env: { ...env, POLICIES: cache } },
      { name: '+ auth (JWT)', program: parts, env: { ...env, POLICIES: auth } },
      { name: 'everything, no tracing', program: whole, env: { ...env, DRAIN_DELAY: '0s' } },
      { name: 'everything, tracing 0 %', program: whole, env: traced('0') },
      { name: 'everything, tracing 10 %', program: whole, env: traced('0.1') },
      { name: 'everything, tracing 100 %', program: whole, env: traced('1') },
    ];
    const started = await Promise.all(subjects.map(async (subject) => use(await startSubject(subject))));
    let names = 0;
    const load = ({ name, port }: { readonly name: string; readonly port: number }, durationMs: number) => {
      // A miss needs a name that was not asked for before.
      const isMiss = name.includes('cache');
      const first = names;
      names += isMiss ? 1_000_000 : 0;
      const nameOf = (index: number) => (isMiss ? `w${first + index}` : 'world');
      return runHttpLoad({
        port,
        path: (index) => `/v1/hello/${nameOf(index)}`,
        body: (index) => `{"message":"Hello ${nameOf(index)}"}`,
        headers: name.includes('auth') ? [`Authorization: Bearer ${identity.token}`] : [],
        connections: 64,
        durationMs,
      });
    };
    for (const subject of started) await load(subject, effort.warmUpMs);
    await interleave(effort.rounds, started, async (subject) => {
      measures.add(
        'features, c = 64',
        subject.name,
        await measureLoad(subject, effort, (durationMs) => load(subject, durationMs)),
      );
    });
  } finally {
    identity.close();
    collector.close();
    rmSync(directory, { recursive: true });
  }
};

/** Who signs tokens, and shows its key. */
async function startIdentity() {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const keys = [{ ...publicKey.export({ format: 'jwk' }), kid: 'k', alg: 'ES256', use: 'sig' }];
  const server = await listen(createServer((_request, response) => response.end(JSON.stringify({ keys }))));
  const issuer = server.url;
  const text = [
    { alg: 'ES256', kid: 'k' },
    { iss: issuer, aud: 'bench', sub: 'bench', exp: Math.floor(Date.now() / 1_000) + 7_200 },
  ]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.');
  const signature = sign('sha256', Buffer.from(text), { key: privateKey, dsaEncoding: 'ieee-p1363' });
  return { ...server, issuer, token: `${text}.${signature.toString('base64url')}` };
}

/** Takes spans, and throws them away. */
function startCollector() {
  return listen(
    createServer((request, response) => {
      request.resume().on('end', () => response.writeHead(200, { 'content-type': 'application/x-protobuf' }).end());
    }),
  );
}

async function listen(server: ReturnType<typeof createServer>) {
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}
