// From the account object to D1: batches of ledger and usage rows in three statements, each row at most once however often a
// batch is sent.
import { getTableColumns } from 'drizzle-orm'
import { getTableConfig, type SQLiteTable } from 'drizzle-orm/sqlite-core'
import { ledger, usage } from '../schema/db.ts'
import type { Charge, OutboxItem } from './account/money.ts'
import type { AccountStore } from './account/store.ts'
import { log, reasonOf } from './log.ts'
import { giveWay } from './turns.ts'

/** All rows of a table travel as one bound JSON text, far below D1's 2 MB. */
const BATCH_ITEMS = 200

/** A charge of the first version, whose rows may still wait when the Worker is updated, has these not. */
const FIRST_VERSION = { credits: [], attempts: [], holdNano: 0, admittedAt: 0, retryOf: null }

const usageRow = (charge: Charge): typeof usage.$inferInsert => {
  const { receipt: r, price, credits, now, ...rest } = { ...FIRST_VERSION, ...charge }
  return {
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
    priceFrom: price.from ?? 0,
    holdNano: rest.holdNano,
    admittedAt: rest.admittedAt,
    attempts: JSON.stringify(rest.attempts),
    credits: JSON.stringify(credits),
    creditNano: credits.reduce((sum, { nano }) => sum + nano, 0),
    retryOf: rest.retryOf,
    chargedNano: rest.chargedNano,
    finish: r.finish,
    openedAt: r.openedAt,
    firstTokenAt: r.firstTokenAt,
    closedAt: r.closedAt,
    settledAt: now,
    signature: rest.signature,
  }
}

/** Inserts any number of rows with one bound parameter; a row whose primary key is known is left alone. */
const insertion = (table: SQLiteTable) => {
  const columns = Object.entries(getTableColumns(table))
  const names = columns.map(([, column]) => column.name).join(', ')
  const values = columns.map((_, i) => `value ->> ${i}`).join(', ')
  // Materialized: json_each writes a row's text anew for each column that asks for it.
  const text = `WITH items AS MATERIALIZED (SELECT value FROM json_each(?))
    INSERT INTO ${getTableConfig(table).name} (${names}) SELECT ${values} FROM items WHERE true ON CONFLICT DO NOTHING`
  return (database: D1Database, rows: readonly object[]): D1PreparedStatement => {
    const data = rows.map((row) => columns.map(([name]) => (row as Record<string, unknown>)[name] ?? null))
    return database.prepare(text).bind(JSON.stringify(data))
  }
}
const insertLedger = insertion(ledger)
const insertUsage = insertion(usage)

/** Of the newest row there is, not of this batch: one that D1 applies late must not take the balance back. */
const BALANCE = `UPDATE accounts SET balance_nano =
  (SELECT balance_after_nano FROM ledger WHERE account_id = ?1 ORDER BY seq DESC LIMIT 1) WHERE id = ?1`

const writeBatch = async (database: D1Database, items: readonly OutboxItem[], newest: OutboxItem): Promise<void> => {
  const { accountId } = newest.ledger
  const charges = items.flatMap(({ charge }) => (charge ? [usageRow(charge)] : []))
  await database.batch([
    insertLedger(
      database,
      items.map((item) => item.ledger),
    ),
    ...(charges.length > 0 ? [insertUsage(database, charges)] : []),
    database.prepare(BALANCE).bind(accountId),
  ])
}

/** True when nothing is left; false when D1 failed and the rest must be tried again. */
export const flushOutbox = async (database: D1Database, store: AccountStore): Promise<boolean> => {
  for (;;) {
    const items = store.outbox(BATCH_ITEMS)
    const newest = items.at(-1)
    if (!newest) return true
    await giveWay()
    try {
      await writeBatch(database, items, newest)
    } catch (error) {
      log('error', 'outbox_failed', { account: newest.ledger.accountId, error: reasonOf(error) })
      return false
    }
    store.clearOutbox(newest.ledger.seq)
  }
}
