// Nodes as an operator sees them: state, load, how much of their prompts was cached, and how well the prefix index knew it; and how
// one is removed.
import { and, eq, isNull } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/d1'
import { z } from 'zod'
import { nodes } from '../../schema/db.ts'
import { fail, ok, type Result } from '../../schema/errors.ts'
import { ADMIN_ROWS_MAX, NODE_STALE_MS } from '../../schema/limits.ts'
import type { Env } from '../env.ts'
import { breaker, inFlight } from '../fleet.ts'
import { forgetNodes } from '../live_nodes.ts'

const share = (part: number, whole: number): number | null =>
  whole === 0 ? null : Math.round((part / whole) * 1000) / 1000

export const listNodes = async (database: D1Database) => {
  const now = Date.now()
  const rows = await drizzle(database).select().from(nodes).where(isNull(nodes.removedAt)).limit(ADMIN_ROWS_MAX)
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

/** `force`: also while it has runs under way. */
export const removeNodeBody = z.object({ force: z.boolean().default(false) })

interface Removed {
  readonly id: string
  readonly removedAt: number
}

/** For good: no request goes there, and its key registers and beats no more. Runs it has go on to their end, and its receipts are taken. */
export const removeNode = async (
  { DB }: Env,
  id: string,
  { force }: z.infer<typeof removeNodeBody>,
): Promise<Result<Removed>> => {
  const now = Date.now()
  const [row] = await drizzle(DB).select().from(nodes).where(eq(nodes.id, id))
  if (!row) return fail('not_found', { message: `There is no node "${id}".` })
  if (row.removedAt !== null) return ok({ id, removedAt: row.removedAt })
  // What a silent one last said of its load is not so any more.
  const isSilent = now - row.heartbeatAt >= NODE_STALE_MS
  const runs = Math.max(isSilent ? 0 : row.running + row.waiting, inFlight.count(id))
  if (runs > 0 && !force) {
    const message = `The node "${id}" has ${runs} ${runs === 1 ? 'run' : 'runs'} under way. SIGTERM lets a node end them; force removes it all the same.`
    return fail('conflict', { message, param: 'force' })
  }
  const gone = and(eq(nodes.id, id), isNull(nodes.removedAt))
  await drizzle(DB).update(nodes).set({ removedAt: now, draining: true }).where(gone)
  forgetNodes()
  const [after] = await drizzle(DB).select().from(nodes).where(eq(nodes.id, id))
  return ok({ id, removedAt: after?.removedAt ?? now })
}
