// A signed call to the admin API: `authorization: Bearer <JWT>` by HS256 with ADMIN_SECRET, of this method, path with query, body and
// idempotency key, and of one call alone: what was seen of it serves for no other, and not again.
import { jwtVerify, SignJWT } from 'jose'
import { fail, ok, type Result } from './errors.ts'
import { bodyHash, CLOCK_TOLERANCE_SECONDS, LIFETIME_SECONDS } from './signature.ts'
import { utf8 } from './text.ts'

const ADMIN = 'admin'

/** Longer than any signature is taken, whatever clock it was made by and however far apart two isolates' are. */
export const ADMIN_CALL_MS_MAX = 2 * (LIFETIME_SECONDS + CLOCK_TOLERANCE_SECONDS) * 1000

export interface SignedAdminCall {
  readonly method: string
  /** With its query. */
  readonly path: string
  readonly idempotencyKey: string | undefined
  readonly body: Uint8Array<ArrayBuffer>
}

/** What the token says of the call, claim by claim. */
const claimsOf = async ({ method, path, idempotencyKey, body }: SignedAdminCall) => ({
  mth: method,
  pth: path,
  idk: idempotencyKey ?? '',
  bsh: await bodyHash(body),
})

export const signAdminCall = async (secret: string, call: SignedAdminCall): Promise<string> => {
  const token = await new SignJWT(await claimsOf(call))
    .setProtectedHeader({ alg: 'HS256' })
    .setIssuer(ADMIN)
    .setAudience(ADMIN)
    .setJti(crypto.randomUUID())
    .setIssuedAt()
    .setExpirationTime(`${LIFETIME_SECONDS}s`)
    .sign(utf8(secret))
  return `Bearer ${token}`
}

const refused = (message: string) => fail('invalid_signature', { message })

/** The id of the call, which is to be taken once. Error: invalid_signature. */
export const verifyAdminCall = async (
  secret: string,
  authorization: string | undefined,
  call: SignedAdminCall,
): Promise<Result<string>> => {
  const token = /^Bearer (\S+)$/.exec(authorization ?? '')?.[1]
  if (!token) return refused('The signature is missing.')
  const now = new Date()
  try {
    const { payload } = await jwtVerify(token, utf8(secret), {
      ...{ algorithms: ['HS256'], issuer: ADMIN, audience: ADMIN, clockTolerance: CLOCK_TOLERANCE_SECONDS },
      ...{ requiredClaims: ['exp', 'iat', 'bsh'], currentDate: now },
    })
    const { jti = '', exp = 0 } = payload
    if (!/^[\w-]{20,64}$/.test(jti) || payload.mth === undefined)
      return refused('The signature covers the body alone: this client is older than the Worker.')
    if (exp * 1000 - now.getTime() > (LIFETIME_SECONDS + CLOCK_TOLERANCE_SECONDS) * 1000)
      return refused("The clock of who signed this is ahead of the Worker's.")
    for (const [name, value] of Object.entries(await claimsOf(call)))
      if (payload[name] !== value) return refused('What was signed is another call.')
    return ok(jti)
  } catch (error) {
    return fail('invalid_signature', { internal: error instanceof Error ? error.message : String(error) })
  }
}
