// Signed calls, of edge and nodes the same in both directions: `authorization: Bearer <JWT>`, short-lived, bound to the body by
// its SHA-256. Edge -> node uses HS256 with the node's dispatch secret; node -> edge uses Ed25519. An operator's say more (admin_call.ts).
import { base64url, decodeJwt, errors, type JWTPayload, jwtVerify, SignJWT } from 'jose'
import { fail, ok, type Result } from './errors.ts'

export type SignatureAlgorithm = 'HS256' | 'EdDSA'
type SigningKey = Uint8Array | CryptoKey

/** Life of a signed call; generous enough for clock skew of half a minute between edge and node. */
export const LIFETIME_SECONDS = 60
export const CLOCK_TOLERANCE_SECONDS = 30

/** SHA-256 of `body`, base64url. */
export const bodyHash = async (body: Uint8Array<ArrayBuffer>): Promise<string> =>
  base64url.encode(new Uint8Array(await crypto.subtle.digest('SHA-256', body)))

/** The `authorization` header value for a call from `issuer` to `audience` with this body; `claims`: what else it says. */
export const signCall = async (
  key: SigningKey,
  algorithm: SignatureAlgorithm,
  issuer: string,
  audience: string,
  body: Uint8Array<ArrayBuffer>,
  claims: JWTPayload = {},
): Promise<string> => {
  const token = await new SignJWT({ ...claims, bsh: await bodyHash(body) })
    .setProtectedHeader({ alg: algorithm })
    .setIssuer(issuer)
    .setAudience(audience)
    .setIssuedAt()
    .setExpirationTime(`${LIFETIME_SECONDS}s`)
    .sign(key)
  return `Bearer ${token}`
}

/** Who a call says it comes from; nothing is checked. */
export const claimedIssuer = (authorization: string | null): string | undefined => {
  try {
    const { iss } = decodeJwt(authorization?.replace('Bearer ', '') ?? '')
    return typeof iss === 'string' ? iss : undefined
  } catch {
    return undefined
  }
}

/** Checks all but the body: signature, audience, expiry. Error: `invalid_signature`. */
export const verifyToken = async (
  key: SigningKey,
  algorithm: SignatureAlgorithm,
  audience: string,
  authorization: string | null | undefined,
): Promise<Result<{ readonly issuer: string; readonly bodyHash: unknown; readonly claims: JWTPayload }>> => {
  const token = /^Bearer (\S+)$/.exec(authorization ?? '')?.[1]
  if (!token) return fail('invalid_signature', { message: 'The signature is missing.' })
  try {
    const { payload } = await jwtVerify(token, key, {
      algorithms: [algorithm],
      audience,
      requiredClaims: ['exp', 'iat', 'iss', 'bsh'],
      clockTolerance: CLOCK_TOLERANCE_SECONDS,
    })
    return ok({ issuer: payload.iss ?? '', bodyHash: payload.bsh, claims: payload })
  } catch (error) {
    // Its signature was right.
    if (error instanceof errors.JWTExpired)
      return fail('invalid_signature', { message: 'The signature has expired: is the clock of who signed this right?' })
    return fail('invalid_signature', { internal: error instanceof Error ? error.message : String(error) })
  }
}

/** Checks signature, audience, expiry and body hash; the value is the issuer. Error: `invalid_signature`. */
export const verifyCall = async (
  key: SigningKey,
  algorithm: SignatureAlgorithm,
  audience: string,
  authorization: string | null | undefined,
  body: Uint8Array<ArrayBuffer>,
): Promise<Result<string>> => {
  const token = await verifyToken(key, algorithm, audience, authorization)
  if (!token.ok) return token
  if (token.value.bodyHash !== (await bodyHash(body)))
    return fail('invalid_signature', { internal: 'body hash differs' })
  return ok(token.value.issuer)
}

/** Ed25519 public key from its JWK `x`. */
export const importPublicKey = (x: string): Promise<CryptoKey> =>
  crypto.subtle.importKey('jwk', { kty: 'OKP', crv: 'Ed25519', x }, { name: 'Ed25519' }, true, ['verify'])
