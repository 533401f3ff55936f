// Keys as the operator handles them: made once, limited, rotated with overlap, revoked at once. The secret part is derived from the
// call's idempotency key, so that repeating a call shows the same key without storing it.
import { and, desc, eq } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/d1'
import { z } from 'zod'
import { apiKeys } from '../../schema/db.ts'
import { fail, ok, type Result } from '../../schema/errors.ts'
import { type KeyLimits, keyLimitsSchema } from '../../schema/key_limits.ts'
import { newKey } from '../auth.ts'
import { accountObject, type Env } from '../env.ts'
import { findAccount, nameSchema } from './mutations.ts'

type KeyRow = typeof apiKeys.$inferSelect

const DAY_SECONDS = 24 * 3600

export const createKeyBody = z.object({
  account: nameSchema,
  name: nameSchema,
  expiresAt: z
    .int()
    .refine((time) => time > Date.now(), 'lies in the past')
    .nullish(),
  limits: keyLimitsSchema.default({}),
})
export const rotateBody = z.object({
  overlapSeconds: z
    .int()
    .min(0)
    .max(30 * DAY_SECONDS)
    .default(DAY_SECONDS),
})

const findKey = async (env: Env, id: string): Promise<Result<KeyRow>> => {
  const row = (await drizzle(env.DB).select().from(apiKeys).where(eq(apiKeys.id, id)))[0]
  return row ? ok(row) : fail('not_found', { message: `There is no key "${id}".` })
}

interface Wanted {
  readonly accountId: string
  readonly name: string
  readonly family: string | undefined
  readonly expiresAt: number | null
  readonly limits: KeyLimits
}

/** D1 first, then the account object, which alone lets a key be used. */
const make = async (env: Env, idempotencyKey: string, wanted: Wanted): Promise<Result<KeyRow & { key: string }>> => {
  const made = newKey(env.SPARROW_SECRET, wanted.accountId, idempotencyKey)
  const db = drizzle(env.DB)
  const { accountId, name, expiresAt } = wanted
  const family = wanted.family ?? made.id
  const limits = JSON.stringify(wanted.limits)
  await db
    .insert(apiKeys)
    .values({
      ...{ id: made.id, accountId, name, family, limits, expiresAt },
      ...{ keyHash: made.hash, lastFour: made.key.slice(-4), createdAt: Date.now() },
    })
    .onConflictDoNothing()
  const row = await findKey(env, made.id)
  if (!row.ok) return row
  const { value } = row
  // A rotated key has the expiry that the old one had before its first rotation shortened it.
  const isOther = wanted.family === undefined && value.expiresAt !== expiresAt
  if (value.name !== name || isOther || value.family !== family) return fail('conflict', { param: 'idempotency-key' })
  const record = {
    id: made.id,
    hash: made.hash,
    family,
    expiresAt: value.expiresAt,
    limits: JSON.parse(value.limits) as KeyLimits,
  }
  await accountObject(env, accountId).putKey(record)
  return ok({ ...value, key: made.key })
}

/** What a caller may see of a key; the key itself only in the answer that made it. */
export const keyView = ({ keyHash: _, limits, ...row }: KeyRow): object => ({ ...row, limits: JSON.parse(limits) })

export const createKey = async (env: Env, idempotencyKey: string, body: z.infer<typeof createKeyBody>) => {
  const account = await findAccount(env.DB, body.account)
  if (!account.ok) return account
  const { name, limits, expiresAt } = body
  const wanted = { accountId: account.value.id, name, family: undefined, expiresAt: expiresAt ?? null, limits }
  const made = await make(env, idempotencyKey, wanted)
  if (!made.ok) return made
  const { key, ...row } = made.value
  return ok({ ...keyView(row), account: account.value.name, key })
}

/** A new key with the old one's name, limits, expiry and spending; the old one works until the overlap ends. */
export const rotateKey = async (env: Env, idempotencyKey: string, id: string, body: z.infer<typeof rotateBody>) => {
  const old = await findKey(env, id)
  if (!old.ok) return old
  const { accountId, name, limits } = old.value
  if (old.value.revokedAt !== null) return fail('conflict', { message: `The key "${id}" is revoked.` })
  const family = old.value.family || id
  const { expiresAt } = old.value
  const call = `rotate ${id} ${idempotencyKey}`
  const isRepeat = (await findKey(env, newKey(env.SPARROW_SECRET, accountId, call).id)).ok
  if (expiresAt !== null && expiresAt <= Date.now() && !isRepeat)
    return fail('conflict', { message: `The key "${id}" has expired; create a new one.` })
  // The newest of the family has the expiry that was asked for; an older one's was shortened by its rotation.
  const mine = and(eq(apiKeys.accountId, accountId), eq(apiKeys.family, family))
  const newest = (await drizzle(env.DB).select().from(apiKeys).where(mine).orderBy(desc(apiKeys.createdAt)).limit(1))[0]
  const lasting = (newest ?? old.value).expiresAt
  const wanted = { accountId, name, family, expiresAt: lasting, limits: JSON.parse(limits) as KeyLimits }
  const made = await make(env, call, wanted)
  if (!made.ok) return made
  // From the new key's birth, so that repeating the call does not lengthen the overlap.
  const oldExpiresAt = made.value.createdAt + body.overlapSeconds * 1000
  const sooner = Math.min(old.value.expiresAt ?? oldExpiresAt, oldExpiresAt)
  await drizzle(env.DB).update(apiKeys).set({ expiresAt: sooner }).where(eq(apiKeys.id, id))
  await accountObject(env, accountId).expireKey(id, sooner)
  const { key, ...row } = made.value
  return ok({ ...keyView(row), key, rotated: { id, expiresAt: sooner } })
}

/** Limits belong to the family: a key cannot be widened by rotating it. */
export const setKeyLimits = async (env: Env, id: string, limits: KeyLimits) => {
  const key = await findKey(env, id)
  if (!key.ok) return key
  const family = key.value.family || id
  await drizzle(env.DB)
    .update(apiKeys)
    .set({ limits: JSON.stringify(limits) })
    .where(eq(apiKeys.family, family))
  await accountObject(env, key.value.accountId).setLimits(limits, family)
  return ok({ id, family, limits })
}

/** D1 first, then the account object: from its answer on no request is admitted with the key. */
export const revokeKey = async (env: Env, id: string) => {
  const key = await findKey(env, id)
  if (!key.ok) return key
  const revokedAt = key.value.revokedAt ?? Date.now()
  await drizzle(env.DB).update(apiKeys).set({ revokedAt }).where(eq(apiKeys.id, id))
  await accountObject(env, key.value.accountId).revokeKey(id, key.value.keyHash)
  return ok({ id, revokedAt })
}
