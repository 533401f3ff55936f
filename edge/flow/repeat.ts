// Requests that come again: what the client says about it, the answer kept for its next try, and the answer given a second time.
// The answer of a request with an `Idempotency-Key` is kept in the account's object, which also decides who runs (account/admit.ts).

import { fail, ok, type Result } from '../../schema/errors.ts'
import { IDEMPOTENCY_KEY_LENGTH_MAX, OUTCOME_BYTES_MAX } from '../../schema/limits.ts'
import { utf8 } from '../../schema/text.ts'
import type { StoredOutcome } from '../account/outcomes.ts'
import type { AccountObject } from '../account.ts'
import { derive, type Secrets } from '../auth.ts'
import { upTo } from '../body.ts'
import { log, reasonOf } from '../log.ts'

/** What says whether a request is one that came before. */
export interface Repeat {
  readonly idempotencyKey: string | null
  /** What the same one was called before the secret was replaced. */
  readonly formerIdempotencyKey?: string
  readonly fingerprint: string | null
  readonly isRetry: boolean
}

const hex = (bytes: ArrayBuffer): string => Buffer.from(bytes).toString('hex')

/** Reads the client's headers. The body is hashed only for clients that may come again with it. Error: invalid_request. */
export const repeatOf = async (
  secrets: Secrets,
  accountId: string,
  headers: Headers,
  dialect: string,
  bodyText: string,
): Promise<Result<Repeat>> => {
  const key = headers.get('idempotency-key')
  if (key !== null && (key === '' || key.length > IDEMPOTENCY_KEY_LENGTH_MAX)) {
    return fail('invalid_request', { message: `Idempotency-Key takes 1 to ${IDEMPOTENCY_KEY_LENGTH_MAX} characters.` })
  }
  const count = headers.get('x-stainless-retry-count')
  if (key === null && count === null) return ok({ idempotencyKey: null, fingerprint: null, isRetry: false })
  const [idempotencyKey = null, formerIdempotencyKey] =
    key === null ? [] : secrets.map((secret) => derive(secret, 'idempotency', accountId, key).toString('base64url'))
  return ok({
    idempotencyKey,
    ...(formerIdempotencyKey === undefined ? {} : { formerIdempotencyKey }),
    fingerprint: hex(await crypto.subtle.digest('SHA-256', utf8(`${dialect}\n${bodyText}`))),
    isRetry: Number(count) > 0,
  })
}

/** The answer under this key, once more: same bytes, same request id, no charge. */
export const replay = ({ requestId, contentType, body }: StoredOutcome): Response => {
  const bytes = new Response(body).body?.pipeThrough(new DecompressionStream('gzip')) ?? null
  return new Response(bytes, {
    headers: {
      'content-type': contentType,
      'cache-control': 'no-cache, no-transform',
      'x-request-id': requestId,
      'x-should-retry': 'false',
      'idempotent-replayed': 'true',
    },
  })
}

export type Keep = (body: ReadableStream, contentType: string) => Promise<void>

/** Keeps an answer, compressed natively: no JavaScript runs for a chunk. Of one that cannot be kept the object is told so. */
export const keeper =
  (account: DurableObjectStub<AccountObject>, requestId: string): Keep =>
  async (body, contentType) => {
    let bytes: Uint8Array | undefined
    try {
      bytes = await upTo(OUTCOME_BYTES_MAX, body.pipeThrough(new CompressionStream('gzip')))
    } catch (error) {
      log('error', 'outcome_not_read', { requestId, error: reasonOf(error) })
    }
    try {
      await account.keepOutcome(requestId, contentType, bytes)
    } catch (error) {
      log('error', 'outcome_not_kept', { requestId, error: reasonOf(error) })
    }
  }
