// A node's journal against the books: what it says was acknowledged must have been booked with the same counts, or the account's
// object must say why it was not; what was booked from its journal must stand there.

import { eq, inArray } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/d1'
import { z } from 'zod'
import { usage } from '../../schema/db.ts'
import { ok, type Result } from '../../schema/errors.ts'
import { CLOSED_KEPT_MS, RECEIPT_WINDOW_MS } from '../../schema/limits.ts'
import { accountObject, type Env } from '../env.ts'
import { usageKeptMs } from '../retention.ts'
import type { Finding } from './audit.ts'

const count = z.int().nonnegative()

/** One CLOSE of a journal; `acknowledged` when the journal holds its ACK too. */
const entrySchema = z.object({
  requestId: z.string(),
  attempt: count,
  accountId: z.string(),
  epoch: z.string(),
  seq: count,
  hitTokens: count,
  missTokens: count,
  outputTokens: count,
  closedAt: count,
  acknowledged: z.boolean(),
})
export const journalBody = z.object({ nodeId: z.string(), entries: z.array(entrySchema).max(90) })

type Entry = z.infer<typeof entrySchema>
type UsageRow = typeof usage.$inferSelect

const countsOf = (row: { hitTokens: number; missTokens: number; outputTokens: number }): string =>
  `hit ${row.hitTokens}, miss ${row.missTokens}, output ${row.outputTokens}`

const finding = (entry: Entry, kind: string, expected: string | null, found: string | null): Finding[] => [
  { kind, account: entry.accountId, row: `${entry.requestId}/${entry.attempt}`, expected, found },
]

const differs = (nodeId: string, entry: Entry, row: UsageRow): Finding[] => {
  if (row.attempt !== entry.attempt) return []
  const place = `${nodeId} ${entry.epoch} ${entry.seq}`
  const booked = `${row.nodeId} ${row.epoch} ${row.seq}`
  if (place !== booked) return finding(entry, 'booked from another receipt', place, booked)
  if (countsOf(entry) === countsOf(row)) return []
  return finding(entry, 'booked counts differ from the receipt', countsOf(entry), countsOf(row))
}

/** Acknowledged but not in D1: still on its way, or rightly not charged; anything else is lost. */
const unbooked = async (env: Env, nodeId: string, entry: Entry): Promise<Finding[]> => {
  if (!entry.acknowledged) {
    const isLate = entry.closedAt < Date.now() - RECEIPT_WINDOW_MS
    return isLate ? finding(entry, 'receipt waits for longer than its hold', 'acknowledged', 'waiting') : []
  }
  // So long ago that its usage row is gone; the roll-ups and the ledger still hold it.
  if (entry.closedAt < Date.now() - usageKeptMs(env)) return []
  if (entry.hitTokens + entry.missTokens + entry.outputTokens === 0) return []
  const object = accountObject(env, entry.accountId)
  const hold = await object.holdOf(entry.requestId)
  if (hold && (hold.state === 'void' || hold.attempt > entry.attempt)) return []
  // The object forgets what closed so long ago.
  if (!hold && entry.closedAt < Date.now() - CLOSED_KEPT_MS) return []
  if (await object.isWaiting(entry.requestId)) return []
  // It may have arrived meanwhile.
  const now = (await drizzle(env.DB).select().from(usage).where(eq(usage.requestId, entry.requestId)))[0]
  if (now) return differs(nodeId, entry, now)
  return finding(entry, 'acknowledged receipt is not booked', countsOf(entry), null)
}

export const auditReceipts = async (
  env: Env,
  { nodeId, entries }: z.infer<typeof journalBody>,
): Promise<Result<{ findings: Finding[] }>> => {
  const ids = entries.map(({ requestId }) => requestId)
  const rows = ids.length > 0 ? await drizzle(env.DB).select().from(usage).where(inArray(usage.requestId, ids)) : []
  const booked = new Map(rows.map((row) => [row.requestId, row]))
  const findings = await Promise.all(
    entries.map(async (entry) => {
      const row = booked.get(entry.requestId)
      return row ? differs(nodeId, entry, row) : unbooked(env, nodeId, entry)
    }),
  )
  return ok({ findings: findings.flat() })
}

/** What was booked from one epoch of a node's journal: the other direction of the comparison. */
export const bookedFrom = async (env: Env, nodeId: string, epoch: string) =>
  (
    await env.DB.prepare(
      'SELECT request_id AS requestId, account_id AS accountId, seq FROM usage WHERE node_id = ? AND epoch = ?',
    )
      .bind(nodeId, epoch)
      .all<{ requestId: string; accountId: string; seq: number }>()
  ).results
