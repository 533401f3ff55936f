// The small public endpoints: models, balance, health.
import { isNull } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/d1'
import type { z } from 'zod'
import { nodes, prices } from '../schema/db.ts'
import { ok, type Result } from '../schema/errors.ts'
import { MAX_TOKENS_MAX, NODE_STALE_MS } from '../schema/limits.ts'
import { formatUsd } from '../schema/money.ts'
import type { modelSchema } from '../schema/public_answers.ts'
import { authenticate, authorizationOf } from './auth.ts'
import { accountObject, aliasesOf, clientIp, type Env, secretsOf } from './env.ts'

export type ModelEntry = z.infer<typeof modelSchema>

type PriceRow = typeof prices.$inferSelect

const isLive = (node: NodeRow): boolean => node.heartbeatAt > Date.now() - NODE_STALE_MS && !node.draining

/** What a live node takes at least, or the last one known did: a request may meet any of them. */
const contextOf = (rows: readonly NodeRow[], model: string): number | null => {
  const known = rows.filter((node) => node.model === model)
  const live = known.filter(isLive)
  const lengths = (live.length > 0 ? live : known).map((node) => node.contextTokens)
  return lengths.length > 0 ? Math.min(...lengths) : null
}

/** The model that an alias without one stands for now: what most live nodes serve. */
const commonest = (rows: readonly NodeRow[]): string | undefined => {
  const counts = new Map<string, number>()
  for (const { model } of rows.filter(isLive)) counts.set(model, (counts.get(model) ?? 0) + 1)
  return [...counts].sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1))[0]?.[0]
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

/** Models with a price in effect, and the names that stand for one of them; of those, what a key may use. */
export const listModels = async (env: Env, allowed: readonly string[] | null): Promise<ModelEntry[]> => {
  const database = drizzle(env.DB)
  const [priced, known] = await database.batch([
    database.select().from(prices),
    database.select().from(nodes).where(isNull(nodes.removedAt)),
  ])
  const inForce = priced.filter((row) => row.effectiveFrom <= Date.now())
  const models = [...new Set(inForce.map((row) => row.model))].sort()
  const aliases = Object.entries(aliasesOf(env)).map(([name, { model }]) => [name, model ?? commonest(known)] as const)
  const named = [
    ...models.map((model) => [model, model] as const),
    ...aliases.flatMap(([name, model]) =>
      model !== undefined && models.includes(model) && !models.includes(name) ? [[name, model] as const] : [],
    ),
  ]
  return named
    .filter(([name, model]) => allowed === null || allowed.includes(name) || allowed.includes(model))
    .map(([name, model]) => {
      const rows = inForce.filter((row) => row.model === model)
      return { ...entryOf(model, rows, contextOf(known, model)), id: name }
    })
}

/** Answers of Messages and Responses have ids of their own, `msg_...` and `resp_...`. */
export const REQUEST_ID_IS = 'The id of a request is in the header x-request-id of its answer.'

export interface KnownCaller {
  readonly accountId: string
  /** The key's family: itself and what it was rotated from or into. */
  readonly family: string
  /** Models it may use; `null`: all. */
  readonly models: readonly string[] | null
}

/** Whose key the call carries; a forged key costs no look-up. Errors: invalid_api_key, permission_denied. */
export const knownCaller = async (env: Env, request: Request): Promise<Result<KnownCaller>> => {
  const caller = authenticate(secretsOf(env, 'SPARROW_SECRET'), authorizationOf(request.headers))
  if (!caller.ok) return caller
  const { accountId, keyHash } = caller.value
  const active = await accountObject(env, accountId).activeKey(keyHash, clientIp(request))
  return active.ok ? ok({ accountId, family: active.value.family, models: active.value.models }) : active
}

/** DeepSeek's shape, and what is held beside it; amounts are exact decimal strings. Held money is not available, but still there. */
export const userBalance = async (env: Env, request: Request): Promise<Result<object>> => {
  const caller = await knownCaller(env, request)
  if (!caller.ok) return caller
  const { balanceNano, heldNano } = await accountObject(env, caller.value.accountId).balance()
  const total = formatUsd(balanceNano)
  const deepSeeks = { total_balance: total, granted_balance: formatUsd(0), topped_up_balance: total }
  return ok({
    is_available: balanceNano - heldNano > 0,
    balance_infos: [{ currency: 'USD', ...deepSeeks, held_balance: formatUsd(heldNano) }],
  })
}
