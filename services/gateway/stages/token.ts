import type { JWTPayload } from 'jose';
import type { Metadata, MetadataEntry } from '#runtime/call/call.ts';
import { Code } from '#runtime/call/status.ts';
import { errorInfo, HttpError, retryInfo } from '../edge/errors.ts';
import type { Identity } from '../edge/exchange.ts';
import type { AuthProvider } from '../policy-schema.ts';
import type { AuthOutcome } from './observe.ts';
import { type KeySet, KeysUnavailable, loadJose } from './key-set.ts';

/** A token that is good, and whose it is. */
export interface CheckedToken {
  readonly identity: Identity;
  /** When it ends, in milliseconds since 1970, with the clock skew. */
  readonly endsAtMs: number;
}

/** Refuses a request for its token. */
export class TokenError extends HttpError {
  readonly problem: Exclude<AuthOutcome, 'ok'>;
  /** Words for the log only. */
  readonly reason: string;

  constructor(problem: TokenError['problem'], reply: ConstructorParameters<typeof HttpError>, reason = '') {
    super(...reply);
    this.problem = problem;
    this.reason = reason;
  }
}

/**
 * Compiles the check of a provider's tokens (JWT, RFC 7519): signature, `alg` among those of the provider, `iss`, `aud`,
 * `exp`, which must be there, and `nbf` where it is. It rejects with TokenError.
 */
export function createTokenCheck(provider: AuthProvider, keys: KeySet): (token: string) => Promise<CheckedToken> {
  const { jwtVerify, errors } = loadJose();
  const { issuer, audiences, algorithms, clockSkew, claims } = provider;
  const options = {
    issuer,
    audience: audiences,
    algorithms,
    clockTolerance: clockSkew / 1_000,
    requiredClaims: ['exp'],
  };

  async function verify(token: string): Promise<JWTPayload> {
    try {
      return (await jwtVerify(token, keys.find, options)).payload;
    } catch (error) {
      if (!(error instanceof errors.JWKSMultipleMatchingKeys)) throw error;
      // A token without a `kid` may be of any key.
      for await (const key of error) {
        try {
          return (await jwtVerify(token, key, options)).payload;
        } catch (another) {
          if (!(another instanceof errors.JWSSignatureVerificationFailed)) throw another;
        }
      }
      throw new errors.JWSSignatureVerificationFailed();
    }
  }

  function refusalOf(error: unknown): TokenError {
    const reason = String(error);
    if (error instanceof KeysUnavailable) return keysUnavailable(error);
    if (error instanceof errors.JWTExpired) return invalidToken('expired', 'the token has expired', { reason });
    if (error instanceof errors.JWTClaimValidationFailed) {
      const { claim } = error;
      const what = error.reason === 'missing' ? 'is missing' : 'is not accepted';
      return invalidToken('invalid', `the claim ${claim} of the token ${what}`, { claim, reason });
    }
    // A key that cannot be used comes here too: what cannot be checked is not good.
    return invalidToken('invalid', 'the token is not valid', { reason });
  }

  return async (token) => {
    const payload = await verify(token).catch((error: unknown) => {
      throw refusalOf(error);
    });
    return {
      identity: { claims: payload, metadata: metadataOf(payload, claims) },
      endsAtMs: (payload.exp as number) * 1_000 + clockSkew,
    };
  };
}

const challenge = 'Bearer realm="api"';

/** https://www.rfc-editor.org/rfc/rfc6750#section-3: who brings no token is told no error. */
export function missingToken(): TokenError {
  const headers = { 'www-authenticate': challenge };
  const message = 'this method needs a token: Authorization: Bearer …';
  return new TokenError('missing', [401, Code.UNAUTHENTICATED, message, headers, [errorInfo('TOKEN_MISSING')]]);
}

export function invalidToken(
  problem: 'expired' | 'invalid',
  message: string,
  about: { readonly claim?: string; readonly reason: string },
): TokenError {
  const { claim, reason } = about;
  const headers = { 'www-authenticate': `${challenge}, error="invalid_token", error_description="${message}"` };
  const info = errorInfo(
    problem === 'expired' ? 'TOKEN_EXPIRED' : 'TOKEN_INVALID',
    claim === undefined ? claim : { claim },
  );
  return new TokenError(problem, [401, Code.UNAUTHENTICATED, message, headers, [info]], reason);
}

function keysUnavailable({ message: reason, retryAfterMs }: KeysUnavailable): TokenError {
  const message = 'the token cannot be checked now: the keys of its issuer are not to be had';
  const details = [errorInfo('TOKEN_KEYS_UNAVAILABLE'), retryInfo(Math.ceil(retryAfterMs))];
  return new TokenError('keys-unavailable', [503, Code.UNAVAILABLE, message, {}, details], reason);
}

/** Printable ASCII without blanks around it, which a peer might take away. */
const textSyntax = /^(?:[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?$/;

/**
 * Claims as metadata: text as it is, and anything else as JSON. Keys that end in `-bin` take any text, as UTF-8; the others
 * take printable ASCII, in JSON by its escapes. A claim that a token does not have, or has as null, is left out.
 *
 * @throws TokenError for text that its key cannot take.
 */
function metadataOf(payload: JWTPayload, claims: Readonly<Record<string, string>>): Metadata {
  return Object.entries(claims).flatMap(([claim, key]): MetadataEntry[] => {
    const value = Object.hasOwn(payload, claim) ? payload[claim] : undefined;
    if (value === undefined || value === null) return [];
    const text = typeof value === 'string' ? value : JSON.stringify(value);
    if (key.endsWith('-bin')) return [[key, Buffer.from(text)]];
    if (typeof value !== 'string') return [[key, text.replace(/[^\x20-\x7e]/g, escapeJson)]];
    if (textSyntax.test(text)) return [[key, text]];
    const message = `the claim ${claim} of the token cannot be passed on: it must be printable ASCII`;
    const details = [errorInfo('CLAIM_NOT_PASSABLE', { claim })];
    throw new TokenError('claim-not-passable', [403, Code.PERMISSION_DENIED, message, {}, details]);
  });
}

function escapeJson(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
}
