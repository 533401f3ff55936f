// What an operator may change. Every mutation is idempotent by its key: ids and secrets are derived from it, so repeating a
// call finds the first outcome instead of making a second one.
import { eq } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/d1'
import { z } from 'zod'
import { accounts, apiKeys, prices } from '../../schema/db.ts'
import { fail, ok, type Result } from '../../schema/errors.ts'
import { newAccountId, newKey } from '../auth.ts'
import { accountObject, type Env } from '../env.ts'

const name = z.string().trim().min(1).max(100)
const nano = z.int().min(0).max(1e15)

export const createAccountBody = z.object({ name, creditNano: nano.default(0) })
export const createKeyBody = z.object({ account: name, name, expiresAt: z.int().positive().nullish() })
export const topUpBody = z.object({ account: name, amountNano: nano.min(1) })
export const priceBody = z.object({
  model: z.string().min(1).max(128),
  hitNano: z.int().min(0).max(1e9),
  missNano: z.int().min(0).max(1e9),
  outputNano: z.int().min(0).max(1e9),
  effectiveFrom: z.int().positive().optional(),
})

/** An account by id or by name. */
export const findAccount = async (
  database: D1Database,
  idOrName: string,
): Promise<Result<typeof accounts.$inferSelect>> => {
  const db = drizzle(database)
  const byId = await db.select().from(accounts).where(eq(accounts.id, idOrName))
  const found = byId[0] ?? (await db.select().from(accounts).where(eq(accounts.name, idOrName)))[0]
  return found ? ok(found) : fail('not_found', { message: `There is no account "${idOrName}".`, param: 'account' })
}

export const createAccount = async (env: Env, key: string, body: z.infer<typeof createAccountBody>) => {
  const id = newAccountId(env.SPARROW_SECRET, key)
  const db = drizzle(env.DB)
  await db.insert(accounts).values({ id, name: body.name, createdAt: Date.now() }).onConflictDoNothing()
  const rows = await db.select().from(accounts).where(eq(accounts.id, id))
  if (!rows[0]) return fail('conflict', { message: `There is an account "${body.name}" already.`, param: 'name' })
  if (rows[0].name !== body.name) return fail('conflict', { param: 'idempotency-key' })
  const object = accountObject(env, id)
  await object.open(id)
  const balance = await object.topUp(`credit:${id}`, body.creditNano)
  if (balance === 'conflict') return fail('conflict', { message: 'The same call was made with another credit.' })
  return ok({ id, name: body.name, createdAt: rows[0].createdAt, ...balance })
}

export const createKey = async (env: Env, key: string, body: z.infer<typeof createKeyBody>) => {
  const account = await findAccount(env.DB, body.account)
  if (!account.ok) return account
  const made = newKey(env.SPARROW_SECRET, account.value.id, key)
  const db = drizzle(env.DB)
  const expiresAt = body.expiresAt ?? null
  await db
    .insert(apiKeys)
    .values({
      id: made.id,
      accountId: account.value.id,
      name: body.name,
      keyHash: made.hash,
      lastFour: made.key.slice(-4),
      createdAt: Date.now(),
      expiresAt,
    })
    .onConflictDoNothing()
  const row = (await db.select().from(apiKeys).where(eq(apiKeys.id, made.id)))[0]
  if (!row || row.name !== body.name || row.expiresAt !== expiresAt)
    return fail('conflict', { param: 'idempotency-key' })
  await accountObject(env, account.value.id).putKey(made.id, made.hash, expiresAt)
  return ok({
    id: made.id,
    account: account.value.name,
    name: row.name,
    key: made.key,
    createdAt: row.createdAt,
    expiresAt,
  })
}

/** D1 first, then the account object: from its answer on no request is admitted with the key. */
export const revokeKey = async (env: Env, id: string) => {
  const db = drizzle(env.DB)
  const row = (await db.select().from(apiKeys).where(eq(apiKeys.id, id)))[0]
  if (!row) return fail('not_found', { message: `There is no key "${id}".` })
  const revokedAt = row.revokedAt ?? Date.now()
  await db.update(apiKeys).set({ revokedAt }).where(eq(apiKeys.id, id))
  await accountObject(env, row.accountId).revokeKey(id)
  return ok({ id, revokedAt })
}

export const topUp = async (env: Env, key: string, body: z.infer<typeof topUpBody>) => {
  const account = await findAccount(env.DB, body.account)
  if (!account.ok) return account
  const balance = await accountObject(env, account.value.id).topUp(`topup:${key}`, body.amountNano)
  if (balance === 'conflict') return fail('conflict', { message: 'The same call was made with another amount.' })
  return ok({ account: account.value.name, ...balance })
}

export const setPrice = async (env: Env, body: z.infer<typeof priceBody>) => {
  const { model, hitNano, missNano, outputNano } = body
  const db = drizzle(env.DB)
  const rows = await db.select().from(prices).where(eq(prices.model, model))
  const same = rows.find((r) => r.hitNano === hitNano && r.missNano === missNano && r.outputNano === outputNano)
  const newest = rows.reduce((best, row) => Math.max(best, row.effectiveFrom), 0)
  if (same && body.effectiveFrom === undefined && same.effectiveFrom === newest) return ok(same)
  const row = { model, hitNano, missNano, outputNano, effectiveFrom: body.effectiveFrom ?? Date.now() }
  await db.insert(prices).values(row).onConflictDoNothing()
  return ok(row)
}
