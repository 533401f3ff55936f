// What an operator may change. Every mutation is idempotent by its key: ids and secrets are derived from it, so repeating a
// call finds the first outcome instead of making a second one.
import { and, eq } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/d1'
import { z } from 'zod'
import { accounts, prices } from '../../schema/db.ts'
import { fail, ok, type Result } from '../../schema/errors.ts'
import type { KeyLimits } from '../../schema/key_limits.ts'
import { AMOUNT_MAX_NANO, PRICE_NOTICE_MS } from '../../schema/limits.ts'
import { NANO_PER_USD } from '../../schema/money.ts'
import { newAccountId } from '../auth.ts'
import { accountObject, type Env } from '../env.ts'

export const nameSchema = z.string().trim().min(1).max(100)
const nano = z.int().min(0).max(AMOUNT_MAX_NANO)

const TOO_MUCH = `A balance above ${Math.floor(Number.MAX_SAFE_INTEGER / NANO_PER_USD)} USD is not counted exactly.`

export const createAccountBody = z.object({ name: nameSchema, creditNano: nano.default(0) })
export const topUpBody = z.object({ account: nameSchema, amountNano: nano.min(1) })
const modelSchema = z.string().min(1).max(128)
export const priceBody = z.object({
  model: modelSchema,
  hitNano: z.int().min(0).max(1e9),
  missNano: z.int().min(0).max(1e9),
  outputNano: z.int().min(0).max(1e9),
  effectiveFrom: z.int().positive().optional(),
})
export const withdrawBody = z.object({ model: modelSchema, effectiveFrom: z.int().positive() })

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

export const accountView = ({ limits, ...row }: typeof accounts.$inferSelect) => ({
  ...row,
  limits: JSON.parse(limits) as KeyLimits,
})

/** Named on the way: what made the account may have ended between D1 and the object. */
const openedObject = async (env: Env, id: string) => {
  const object = accountObject(env, id)
  await object.open(id)
  return object
}

export const createAccount = async (env: Env, key: string, body: z.infer<typeof createAccountBody>) => {
  const id = newAccountId(env.SPARROW_SECRET, key)
  const db = drizzle(env.DB)
  await db.insert(accounts).values({ id, name: body.name, createdAt: Date.now() }).onConflictDoNothing()
  const rows = await db.select().from(accounts).where(eq(accounts.id, id))
  if (!rows[0]) return fail('conflict', { message: `There is an account "${body.name}" already.`, param: 'name' })
  if (rows[0].name !== body.name) return fail('conflict', { param: 'idempotency-key' })
  const balance = await (await openedObject(env, id)).topUp(`credit:${id}`, body.creditNano)
  if (balance === 'conflict') return fail('conflict', { message: 'The same call was made with another credit.' })
  if (balance === 'too_much') return fail('invalid_parameter', { message: TOO_MUCH, param: 'creditNano' })
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
  await (await openedObject(env, id)).setLimits(limits, null)
  return ok({ id, limits })
}

/** By the index of top-ups, however many accounts there are. */
export const TOPPED_UP = `
  SELECT a.name FROM ledger AS l JOIN accounts AS a ON a.id = l.account_id
  WHERE l.kind = 'top_up' AND l.id = ?1 AND l.account_id <> ?2 LIMIT 1`

/** Of one invoice typed twice, once for the wrong account, only the first may pay. What is on its way to D1 (a second) is not seen. */
export const topUp = async (env: Env, key: string, body: z.infer<typeof topUpBody>) => {
  const account = await findAccount(env.DB, body.account)
  if (!account.ok) return account
  const other = await env.DB.prepare(TOPPED_UP).bind(`topup:${key}`, account.value.id).first<{ name: string }>()
  if (other) return fail('conflict', { message: `The same call was made for another account, "${other.name}".` })
  const balance = await (await openedObject(env, account.value.id)).topUp(`topup:${key}`, body.amountNano)
  if (balance === 'conflict') return fail('conflict', { message: 'The same call was made with another amount.' })
  if (balance === 'too_much') return fail('invalid_parameter', { message: TOO_MUCH, param: 'amountNano' })
  return ok({ account: account.value.name, ...balance })
}

type PriceRow = typeof prices.$inferSelect

export const setPrice = async (env: Env, body: z.infer<typeof priceBody>) => {
  const { model, hitNano, missNano, outputNano } = body
  const db = drizzle(env.DB)
  const rows = await db.select().from(prices).where(eq(prices.model, model))
  const isSame = (r: PriceRow): boolean =>
    r.hitNano === hitNano && r.missNano === missNano && r.outputNano === outputNano
  // A model that has a price keeps it until every account can know the new one: what is charged is what is in force.
  const soonest = rows.length > 0 ? Date.now() + PRICE_NOTICE_MS : 0
  // One that was announced for later is no reason to keep another until then.
  const inForce = rows
    .filter((r) => r.effectiveFrom <= soonest)
    .reduce<PriceRow | undefined>((best, r) => (best && best.effectiveFrom > r.effectiveFrom ? best : r), undefined)
  if (inForce && body.effectiveFrom === undefined && isSame(inForce)) return ok(inForce)
  const row = {
    model,
    hitNano,
    missNano,
    outputNano,
    effectiveFrom: body.effectiveFrom ?? Math.max(soonest, Date.now()),
  }
  const there = rows.find((r) => r.effectiveFrom === row.effectiveFrom)
  if (there && isSame(there)) return ok(there)
  if (there)
    return fail('conflict', { message: 'This model has another price from that time on.', param: 'effectiveFrom' })
  if (row.effectiveFrom < soonest) {
    const message = `effectiveFrom: at least ${PRICE_NOTICE_MS / 1000} seconds from now, or absent; the model has a price until then.`
    return fail('invalid_parameter', { message, param: 'effectiveFrom' })
  }
  await db.insert(prices).values(row).onConflictDoNothing()
  return ok(row)
}

/** By D1's clock, too: the statement may have waited since this isolate read its own. */
const WITHDRAW = `
  DELETE FROM prices WHERE model = ?1 AND effective_from = ?2
  AND effective_from >= max(?3, CAST(unixepoch('subsec') * 1000 AS INTEGER)) + ${PRICE_NOTICE_MS} RETURNING model`

/** By the log, since nothing else is left of it. */
const WITHDRAWN = `
  SELECT 1 FROM audit_log AS asked JOIN audit_log AS ended ON ended.call_id = asked.call_id AND ended.phase = 'done'
  WHERE asked.phase = 'asked' AND asked.action = 'POST /prices/withdraw' AND CASE WHEN json_valid(asked.detail ->> 'body')
  THEN (asked.detail ->> 'body') ->> 'model' = ?1 AND (asked.detail ->> 'body') ->> 'effectiveFrom' = ?2 END LIMIT 1`

/** Takes back a price that was announced for later, while no account that has read it can begin to bill by it. */
export const withdrawPrice = async (env: Env, { model, effectiveFrom }: z.infer<typeof withdrawBody>) => {
  const gone = await env.DB.prepare(WITHDRAW).bind(model, effectiveFrom, Date.now()).first()
  const withdrawn = { model, effectiveFrom, withdrawn: true }
  if (gone) return ok(withdrawn)
  const mine = and(eq(prices.model, model), eq(prices.effectiveFrom, effectiveFrom))
  const there = await drizzle(env.DB).select().from(prices).where(mine)
  // A second time is no mistake; a time that was mistyped is.
  if (there.length === 0 && (await env.DB.prepare(WITHDRAWN).bind(model, effectiveFrom).first())) return ok(withdrawn)
  if (there.length === 0)
    return fail('not_found', { message: `"${model}" has no price from that time on.`, param: 'effectiveFrom' })
  const message = `It is too late: a price is withdrawn ${PRICE_NOTICE_MS / 1000} seconds before it begins, or earlier. Set another, which follows it.`
  return fail('conflict', { message, param: 'effectiveFrom' })
}
