// Nodes as an operator sees them: state, load, how much of their prompts was cached, and how well the prefix index knew it.
import { drizzle } from 'drizzle-orm/d1'
import { nodes } from '../../schema/db.ts'
import { ADMIN_ROWS_MAX, NODE_STALE_MS } from '../../schema/limits.ts'
import { breaker, inFlight } from '../fleet.ts'

const share = (part: number, whole: number): number | null =>
  whole === 0 ? null : Math.round((part / whole) * 1000) / 1000

export const listNodes = async (database: D1Database) => {
  const now = Date.now()
  const rows = await drizzle(database).select().from(nodes).limit(ADMIN_ROWS_MAX)
  return rows.map((row) => ({
    ...{ id: row.id, address: row.address, model: row.model, chatFormat: row.chatFormat },
    state: now - row.heartbeatAt >= NODE_STALE_MS ? 'stale' : row.draining ? 'draining' : 'live',
    /** Breaker and runs under way of the isolate that answers; others have their own. */
    ...{ breaker: breaker.state(row.id, now), inFlight: inFlight.count(row.id) },
    ...{ running: row.running, waiting: row.waiting, kvPages: row.kvPages, kvPagesUsed: row.kvPagesUsed },
    prefillTokensPerSecond: row.prefillTokensPerSecond,
    ...{ promptTokens: row.promptTokens, cachedTokens: row.cachedTokens, predictedTokens: row.predictedTokens },
    cachedShare: share(row.cachedTokens, row.promptTokens),
    /** Of what was predicted, really cached; of what was cached, predicted. */
    predictionRight: share(row.predictedRightTokens, row.predictedTokens),
    predictionFound: share(row.predictedRightTokens, row.cachedTokens),
    ...{ heartbeatAt: row.heartbeatAt, registeredAt: row.registeredAt, contextTokens: row.contextTokens },
  }))
}
