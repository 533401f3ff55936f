// The small public endpoints: models, balance, health.
import { drizzle } from 'drizzle-orm/d1'
import type { z } from 'zod'
import { nodes, prices } from '../schema/db.ts'
import { ok, type Result } from '../schema/errors.ts'
import { MAX_TOKENS_MAX, NODE_STALE_MS } from '../schema/limits.ts'
import { formatUsd } from '../schema/money.ts'
import type { modelSchema } from '../schema/public_answers.ts'
import { authenticate, authorizationOf } from './auth.ts'
import { accountObject, clientIp, type Env } from './env.ts'

export type ModelEntry = z.infer<typeof modelSchema>

type PriceRow = typeof prices.$inferSelect

/** What a live node takes at least, or the last one known did: a request may meet any of them. */
const contextOf = (rows: readonly NodeRow[], model: string): number | null => {
  const known = rows.filter((node) => node.model === model)
  const live = known.filter((node) => node.heartbeatAt > Date.now() - NODE_STALE_MS && !node.draining)
  const lengths = (live.length > 0 ? live : known).map((node) => node.contextTokens)
  return lengths.length > 0 ? Math.min(...lengths) : null
}
type NodeRow = typeof nodes.$inferSelect

const entryOf = (model: string, rows: readonly PriceRow[], contextLength: number | null): ModelEntry => {
  const byAge = [...rows].sort((a, b) => a.effectiveFrom - b.effectiveFrom)
  const now = byAge.at(-1)
  return {
    ...{ id: model, object: 'model', owned_by: 'sparrow' },
    created: Math.floor((byAge[0]?.effectiveFrom ?? 0) / 1000),
    context_length: contextLength,
    max_output_tokens: Math.min(MAX_TOKENS_MAX, contextLength ?? MAX_TOKENS_MAX),
    pricing: {
      prompt: formatUsd(now?.missNano ?? 0),
      input_cache_read: formatUsd(now?.hitNano ?? 0),
      completion: formatUsd(now?.outputNano ?? 0),
    },
  }
}

/** Models with a price in effect, of those that a key may use. */
export const listModels = async (env: Env, allowed: readonly string[] | null): Promise<ModelEntry[]> => {
  const database = drizzle(env.DB)
  const [priced, live] = await database.batch([database.select().from(prices), database.select().from(nodes)])
  const served = priced.filter((row) => row.effectiveFrom <= Date.now() && (allowed?.includes(row.model) ?? true))
  const models = [...new Set(served.map((row) => row.model))].sort()
  return models.map((model) => {
    const rows = served.filter((row) => row.model === model)
    return entryOf(model, rows, contextOf(live, model))
  })
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
