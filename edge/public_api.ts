// The small public endpoints: models, balance, health.
import { drizzle } from 'drizzle-orm/d1'
import { prices } from '../schema/db.ts'
import { ok, type Result } from '../schema/errors.ts'
import { formatUsd } from '../schema/money.ts'
import { authenticate, authorizationOf } from './auth.ts'
import { accountObject, clientIp, type Env } from './env.ts'

export interface ModelEntry {
  readonly id: string
  readonly object: 'model'
  readonly created: number
  readonly owned_by: 'sparrow'
}

/** Models with a price in effect, of those that a key may use. */
export const listModels = async (env: Env, allowed: readonly string[] | null): Promise<ModelEntry[]> => {
  const rows = await drizzle(env.DB).select().from(prices)
  const since = new Map<string, number>()
  for (const row of rows) {
    if (row.effectiveFrom <= Date.now() && (allowed?.includes(row.model) ?? true))
      since.set(row.model, Math.min(since.get(row.model) ?? Infinity, row.effectiveFrom))
  }
  return [...since]
    .sort()
    .map(([id, at]) => ({ id, object: 'model', created: Math.floor(at / 1000), owned_by: 'sparrow' }))
}

export interface KnownCaller {
  readonly accountId: string
  /** The key's family: itself and what it was rotated from or into. */
  readonly family: string
  /** Models it may use; `null`: all. */
  readonly models: readonly string[] | null
}

/** Whose key the call carries; a forged key costs no look-up. Errors: invalid_api_key, permission_denied. */
export const knownCaller = async (env: Env, headers: Headers): Promise<Result<KnownCaller>> => {
  const caller = authenticate(env.SPARROW_SECRET, authorizationOf(headers))
  if (!caller.ok) return caller
  const { accountId, keyHash } = caller.value
  const active = await accountObject(env, accountId).activeKey(keyHash, clientIp(headers))
  return active.ok ? ok({ accountId, family: active.value.family, models: active.value.models }) : active
}

/** DeepSeek's shape; amounts are exact decimal strings. Held money is not available, but still there. */
export const userBalance = async (env: Env, headers: Headers): Promise<Result<object>> => {
  const caller = await knownCaller(env, headers)
  if (!caller.ok) return caller
  const { balanceNano, heldNano } = await accountObject(env, caller.value.accountId).balance()
  const total = formatUsd(balanceNano)
  return ok({
    is_available: balanceNano - heldNano > 0,
    balance_infos: [{ currency: 'USD', total_balance: total, granted_balance: formatUsd(0), topped_up_balance: total }],
  })
}
