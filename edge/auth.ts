// API keys: `sk-` + account id (16 hex) + random (32 hex) + truncated HMAC over both (16 hex). A forged key fails the HMAC and
// costs no look-up; whether a genuine one is still active is the account object's to say. Only an HMAC of a key is stored.
import { createHmac, timingSafeEqual } from 'node:crypto'
import { fail, ok, type Result } from '../schema/errors.ts'
import { remembered } from './remembered.ts'

const ACCOUNT_LENGTH = 16
const RANDOM_LENGTH = 32
const MAC_LENGTH = 16
const KEY = new RegExp(`^sk-([0-9a-f]{${ACCOUNT_LENGTH}})([0-9a-f]{${RANDOM_LENGTH}})([0-9a-f]{${MAC_LENGTH}})$`)

/** A secret, with which all is made, and before its rotation has ended also the one that it replaces. */
export type Secrets = readonly [string, ...string[]]

/** HMAC-SHA256 of the parts under one purpose, so that no use of the secret can stand in for another. */
export const derive = (secret: string, purpose: string, ...parts: string[]): Buffer =>
  createHmac('sha256', secret)
    .update(JSON.stringify([purpose, ...parts]))
    .digest()

/** The same of what is asked for at each request: a tenant's salts, a node's secret. Not to be written to. */
export const derivedOnce = remembered<Buffer>(2000, (secret, purpose, ...parts) =>
  derive(secret ?? '', purpose ?? '', ...parts),
)

export const sameText = (a: string, b: string): boolean => {
  const [left, right] = [Buffer.from(a), Buffer.from(b)]
  return left.length === right.length && timingSafeEqual(left, right)
}

export const newAccountId = (secret: string, idempotencyKey: string): string =>
  derive(secret, 'account', idempotencyKey).toString('hex').slice(0, ACCOUNT_LENGTH)

export interface NewKey {
  readonly id: string
  readonly key: string
  readonly hash: string
}

export const keyHash = (secret: string, key: string): string => derive(secret, 'key-hash', key).toString('base64url')

/** A key made from the idempotency key, so that repeating the call shows the same one without storing it. */
export const newKey = (secret: string, accountId: string, idempotencyKey: string): NewKey => {
  const random = derive(secret, 'key-random', accountId, idempotencyKey).toString('hex').slice(0, RANDOM_LENGTH)
  const mac = derive(secret, 'key-mac', accountId, random).toString('hex').slice(0, MAC_LENGTH)
  const key = `sk-${accountId}${random}${mac}`
  return { id: `key_${derive(secret, 'key-id', key).toString('hex').slice(0, 16)}`, key, hash: keyHash(secret, key) }
}

export interface Caller {
  readonly accountId: string
  readonly keyHash: string
}

/** Of a genuine key. */
const callerOf = remembered<Caller | undefined>(1000, (secret = '', key = '') => {
  const [, accountId = '', random = '', mac = ''] = KEY.exec(key) ?? []
  const genuine = derive(secret, 'key-mac', accountId, random).toString('hex').slice(0, MAC_LENGTH)
  return sameText(mac, genuine) ? { accountId, keyHash: keyHash(secret, key) } : undefined
})

/** The key as OpenAI's clients send it, or as Anthropic's do (`x-api-key`), as an `authorization` value. */
export const authorizationOf = (headers: Headers): string | undefined => {
  const key = headers.get('x-api-key')
  return headers.get('authorization') ?? (key === null ? undefined : `Bearer ${key}`)
}

/** The caller a key names, by whichever secret signed it. Error: invalid_api_key. */
export const authenticate = (secrets: Secrets, authorization: string | undefined): Result<Caller> => {
  const key = /^Bearer\s+(\S+)$/i.exec(authorization ?? '')?.[1]
  if (!key) {
    return fail('invalid_api_key', { message: 'No API key. Send it as "Authorization: Bearer sk-...".' })
  }
  let caller: Caller | undefined
  for (const secret of secrets) caller ??= callerOf(secret, key)
  return caller ? ok(caller) : fail('invalid_api_key', { message: 'This API key is not valid.' })
}
