// What an operator may change. Every mutation is idempotent by its key: ids and secrets are derived from it, so repeating a
// call finds the first outcome instead of making a second one.
import { eq } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/d1'
import { z } from 'zod'
import { accounts, prices } from '../../schema/db.ts'
import { fail, ok, type Result } from '../../schema/errors.ts'
import type { KeyLimits } from '../../schema/key_limits.ts'
import { newAccountId } from '../auth.ts'
import { accountObject, type Env } from '../env.ts'

export const nameSchema = z.string().trim().min(1).max(100)
const nano = z.int().min(0).max(1e15)

export const createAccountBody = z.object({ name: nameSchema, creditNano: nano.default(0) })
export const topUpBody = z.object({ account: nameSchema, amountNano: nano.min(1) })
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

/** Limits of an account, over all its keys together. */
export const setAccountLimits = async (env: Env, idOrName: string, limits: KeyLimits) => {
  const account = await findAccount(env.DB, idOrName)
  if (!account.ok) return account
  const { id } = account.value
  await drizzle(env.DB)
    .update(accounts)
    .set({ limits: JSON.stringify(limits) })
    .where(eq(accounts.id, id))
  await accountObject(env, id).setLimits(limits, null)
  return ok({ id, limits })
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
