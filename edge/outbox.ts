// From the account object to D1: batches of ledger and usage rows, each row at most once however often a batch is sent.
import { eq } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/d1'
import { accounts, ledger, usage } from '../schema/db.ts'
import type { AccountStore, Charge, OutboxItem } from './account_store.ts'

const BATCH_ITEMS = 25

const usageRow = ({ receipt: r, signature, price, chargedNano, now }: Charge): typeof usage.$inferInsert => ({
  requestId: r.requestId,
  accountId: r.accountId,
  keyId: r.keyId,
  nodeId: r.nodeId,
  epoch: r.epoch,
  seq: r.seq,
  attempt: r.attempt,
  model: r.model,
  hitTokens: r.hitTokens,
  missTokens: r.missTokens,
  outputTokens: r.outputTokens,
  reasoningTokens: r.reasoningTokens,
  hitNano: price.hit,
  missNano: price.miss,
  outputNano: price.output,
  chargedNano,
  finish: r.finish,
  openedAt: r.openedAt,
  firstTokenAt: r.firstTokenAt,
  closedAt: r.closedAt,
  settledAt: now,
  signature,
})

const writeBatch = async (database: D1Database, items: readonly OutboxItem[], newest: OutboxItem): Promise<void> => {
  const db = drizzle(database)
  const { accountId, balanceAfterNano } = newest.ledger
  const rows = items.flatMap((item) => [
    db.insert(ledger).values(item.ledger).onConflictDoNothing(),
    ...(item.charge ? [db.insert(usage).values(usageRow(item.charge)).onConflictDoNothing()] : []),
  ])
  await db.batch([
    db.update(accounts).set({ balanceNano: balanceAfterNano }).where(eq(accounts.id, accountId)),
    ...rows,
  ])
}

/** True when nothing is left; false when D1 failed and the rest must be tried again. */
export const flushOutbox = async (database: D1Database, store: AccountStore): Promise<boolean> => {
  for (;;) {
    const items = store.outbox(BATCH_ITEMS)
    const newest = items.at(-1)
    if (!newest) return true
    try {
      await writeBatch(database, items, newest)
    } catch (error) {
      console.error(JSON.stringify({ event: 'outbox_failed', account: newest.ledger.accountId, error: String(error) }))
      return false
    }
    store.clearOutbox(newest.ledger.seq)
  }
}
