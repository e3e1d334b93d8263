import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type CryptoKey, exportJWK, generateKeyPair, type JWK, type JWTPayload, SignJWT } from 'jose';

/** A key of an issuer. */
export interface SigningKey {
  readonly alg: string;
  readonly privateKey: CryptoKey;
  /** The public half. */
  readonly jwk: JWK;
}

export async function createSigningKey(kid?: string, alg = 'ES256'): Promise<SigningKey> {
  const { publicKey, privateKey } = await generateKeyPair(alg);
  return {
    alg,
    privateKey,
    jwk: { ...(await exportJWK(publicKey)), alg, use: 'sig', ...(kid !== undefined && { kid }) },
  };
}

/** Seconds since 1970, as tokens have it. */
export function secondsFromNow(seconds: number): number {
  return Math.floor(Date.now() / 1_000) + seconds;
}

/** A token of this key, good for a minute unless its claims say otherwise. A claim that is undefined is left out. */
export function signToken(
  { alg, privateKey, jwk }: SigningKey,
  claims: Readonly<Record<string, unknown>>,
): Promise<string> {
  const payload = { iss: 'https://issuer.example', aud: 'api', exp: secondsFromNow(60), ...claims };
  const header = { alg, ...(jwk.kid !== undefined && { kid: jwk.kid }) };
  return new SignJWT(JSON.parse(JSON.stringify(payload)) as JWTPayload).setProtectedHeader(header).sign(privateKey);
}

/** Serves a key set on loopback, and counts how often it is asked for. */
export async function startIssuer(...keys: readonly SigningKey[]) {
  const serveKeys = (response: ServerResponse, served: readonly SigningKey[]) =>
    void response.setHeader('connection', 'close').end(JSON.stringify({ keys: served.map(({ jwk }) => jwk) }));
  const issuer = {
    url: '',
    fetches: 0,
    keys,
    /** How it answers; the keys by default. */
    respond: undefined as ((response: ServerResponse) => void) | undefined,
    [Symbol.asyncDispose]: async () => {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
  const server = createServer((_request, response) => {
    issuer.fetches++;
    if (issuer.respond === undefined) serveKeys(response, issuer.keys);
    else issuer.respond(response);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  issuer.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks.json`;
  return issuer;
}
