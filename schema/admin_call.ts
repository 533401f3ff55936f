// A signed call to the admin API: `authorization: Bearer <JWT>` by HS256 with ADMIN_SECRET, of this method, path with query, body and
// idempotency key, and of one call alone: what was seen of it serves for no other, and not again.
import { fail, ok, type Result } from './errors.ts'
import { CLOCK_TOLERANCE_SECONDS, LIFETIME_SECONDS, signCall, verifyToken } from './signature.ts'
import { utf8 } from './text.ts'

const ADMIN = 'admin'

/** Longer than any signature is taken, whatever clock it was made by and however far apart two isolates' are. */
export const ADMIN_CALL_MS_MAX = 2 * (LIFETIME_SECONDS + CLOCK_TOLERANCE_SECONDS) * 1000

/** All of a call but its body. */
export interface AdminCallHead {
  readonly method: string
  /** With its query. */
  readonly path: string
  readonly idempotencyKey: string | undefined
}

export interface AdminCall extends AdminCallHead {
  readonly body: Uint8Array<ArrayBuffer>
}

/** What the token says of the head, claim by claim. */
const claimsOf = ({ method, path, idempotencyKey }: AdminCallHead) => ({
  mth: method,
  pth: path,
  idk: idempotencyKey ?? '',
})

export const signAdminCall = (secret: string, call: AdminCall): Promise<string> =>
  signCall(utf8(secret), 'HS256', ADMIN, ADMIN, call.body, { ...claimsOf(call), jti: crypto.randomUUID() })

const refused = (message: string) => fail('invalid_signature', { message })

/** Checks all but the body. The id of the call, which is to be taken once, and the hash that its body must have. Error: invalid_signature. */
export const verifyAdminCall = async (
  secrets: readonly [string, ...string[]],
  authorization: string | undefined,
  head: AdminCallHead,
): Promise<Result<{ readonly callId: string; readonly bodyHash: unknown }>> => {
  const [secret, ...former] = secrets
  let token = await verifyToken(utf8(secret), 'HS256', ADMIN, authorization)
  for (const before of former) if (!token.ok) token = await verifyToken(utf8(before), 'HS256', ADMIN, authorization)
  if (!token.ok) return token
  const { issuer, bodyHash, claims } = token.value
  const { jti = '', exp = 0 } = claims
  if (issuer !== ADMIN) return refused('The issuer of the signature is not "admin".')
  if (!/^[\w-]{20,64}$/.test(jti) || claims.mth === undefined)
    return refused('The signature covers the body alone: this client is older than the Worker.')
  if (exp * 1000 - Date.now() > (LIFETIME_SECONDS + CLOCK_TOLERANCE_SECONDS) * 1000)
    return refused("The clock of who signed this is ahead of the Worker's.")
  for (const [name, value] of Object.entries(claimsOf(head)))
    if (claims[name] !== value) return refused('What was signed is another call.')
  return ok({ callId: jti, bodyHash })
}
