// The small public endpoints: models, balance, health.
import { drizzle } from 'drizzle-orm/d1'
import { prices } from '../schema/db.ts'
import { apiError, fail, ok, type Result } from '../schema/errors.ts'
import { formatUsd } from '../schema/money.ts'
import { authenticate } from './auth.ts'
import { accountObject, type Env } from './env.ts'

export interface ModelEntry {
  readonly id: string
  readonly object: 'model'
  readonly created: number
  readonly owned_by: 'sparrow'
}

/** Models with a price in effect. */
export const listModels = async (env: Env): Promise<ModelEntry[]> => {
  const rows = await drizzle(env.DB).select().from(prices)
  const since = new Map<string, number>()
  for (const row of rows) {
    if (row.effectiveFrom <= Date.now())
      since.set(row.model, Math.min(since.get(row.model) ?? Infinity, row.effectiveFrom))
  }
  return [...since]
    .sort()
    .map(([id, at]) => ({ id, object: 'model', created: Math.floor(at / 1000), owned_by: 'sparrow' }))
}

/** DeepSeek's shape; amounts are exact decimal strings. Held money is not available, but still there. */
export const userBalance = async (env: Env, authorization: string | undefined): Promise<Result<object>> => {
  const caller = authenticate(env.SPARROW_SECRET, authorization)
  if (!caller.ok) return caller
  const account = accountObject(env, caller.value.accountId)
  if (!(await account.activeKey(caller.value.keyHash))) return fail('invalid_api_key')
  const { balanceNano, heldNano } = await account.balance()
  const total = formatUsd(balanceNano)
  return ok({
    is_available: balanceNano - heldNano > 0,
    balance_infos: [{ currency: 'USD', total_balance: total, granted_balance: formatUsd(0), topped_up_balance: total }],
  })
}

export const requireKey = async (env: Env, authorization: string | undefined): Promise<Result<true>> => {
  const caller = authenticate(env.SPARROW_SECRET, authorization)
  if (!caller.ok) return caller
  const active = await accountObject(env, caller.value.accountId).activeKey(caller.value.keyHash)
  return active ? ok(true) : { ok: false, error: apiError('invalid_api_key') }
}
