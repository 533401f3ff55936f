// Balance, credits, charges, months, and what still has to reach D1. Every change of the balance is one ledger row.
import type { Receipt } from '../../schema/wire.ts'
import type { FailedAttempt, Hold, PriceInForce } from './holds.ts'
import { first } from './tables.ts'

/** Tokens that were used and are not charged, and why. */
export interface Credit {
  readonly reason: 'retry' | 'late_receipt' | 'affinity'
  readonly nano: number
  /** Of an affinity credit: the tokens billed as if cached. */
  readonly tokens?: number
}

export interface Charge {
  readonly receipt: Receipt
  readonly signature: string
  readonly price: PriceInForce
  readonly holdNano: number
  readonly admittedAt: number
  readonly attempts: readonly FailedAttempt[]
  readonly credits: readonly Credit[]
  readonly retryOf: string | null
  readonly chargedNano: number
  readonly now: number
}

export interface LedgerRow {
  readonly accountId: string
  readonly id: string
  readonly kind: 'top_up' | 'charge' | 'refund'
  readonly amountNano: number
  readonly seq: number
  readonly balanceAfterNano: number
  readonly createdAt: number
}

/** Id of the ledger row that gives a request's charge back. */
export const refundOf = (requestId: string): string => `refund:${requestId}`

/** A ledger row on its way to D1, with the usage row it pays for. */
export interface OutboxItem {
  readonly ledger: LedgerRow
  readonly charge?: Charge
}

/** `2026-11`, UTC. */
export const monthOf = (time: number): string => new Date(time).toISOString().slice(0, 7)

/** First moment of the month after `time`, UTC. */
export const nextMonth = (time: number): number => {
  const date = new Date(time)
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1)
}

/** Moves the balance and queues the ledger row; the table's CHECK makes an overdraft impossible. */
const post = (
  sql: SqlStorage,
  entry: Pick<LedgerRow, 'id' | 'kind' | 'amountNano' | 'createdAt'>,
  charge?: Charge,
): void => {
  const row = first<{ id: string; balance: number; seq: number }>(
    sql,
    'UPDATE account SET balance = balance + ?, seq = seq + 1 RETURNING id, balance, seq',
    entry.amountNano,
  )
  if (!row) throw new Error('the account was never opened')
  const ledger: LedgerRow = { ...entry, accountId: row.id, seq: row.seq, balanceAfterNano: row.balance }
  const item: OutboxItem = charge ? { ledger, charge } : { ledger }
  sql.exec('INSERT INTO outbox (seq, item) VALUES (?, ?)', row.seq, JSON.stringify(item))
}

export const moneyStore = (sql: SqlStorage) => ({
  balance: (): number => first<{ balance: number }>(sql, 'SELECT balance FROM account')?.balance ?? 0,
  lastSeq: (): number => first<{ seq: number }>(sql, 'SELECT seq FROM account')?.seq ?? 0,
  addCharge: (charge: Charge, family: string): void => {
    const { receipt, chargedNano, now } = charge
    post(sql, { id: receipt.requestId, kind: 'charge', amountNano: -chargedNano, createdAt: now }, charge)
    sql.exec(
      'INSERT INTO spend (family, month, nano) VALUES (?, ?, ?) ON CONFLICT (family, month) DO UPDATE SET nano = nano + excluded.nano',
      ...[family, monthOf(now), chargedNano],
    )
  },
  /** Once a request: what was charged for an answer that nobody got. */
  refund: (hold: Pick<Hold, 'requestId' | 'family' | 'chargedNano' | 'closedAt'>, now: number): void => {
    const { family, chargedNano, closedAt } = hold
    const id = refundOf(hold.requestId)
    if (chargedNano === 0 || first(sql, 'SELECT 1 AS one FROM topups WHERE id = ?', id)) return
    sql.exec('INSERT INTO topups (id, amount) VALUES (?, ?)', id, chargedNano)
    post(sql, { id, kind: 'refund', amountNano: chargedNano, createdAt: now })
    sql.exec(
      'UPDATE spend SET nano = nano - ? WHERE family = ? AND month = ?',
      ...[chargedNano, family, monthOf(closedAt ?? now)],
    )
  },
  /** Charged in this month to a family of keys, or to all. */
  spent: (now: number, family?: string): number =>
    first<{ nano: number }>(
      sql,
      `SELECT coalesce(sum(nano), 0) AS nano FROM spend WHERE month = ?${family === undefined ? '' : ' AND family = ?'}`,
      ...[monthOf(now), ...(family === undefined ? [] : [family])],
    )?.nano ?? 0,
  topUpAmount: (id: string): number | undefined =>
    first<{ amount: number }>(sql, 'SELECT amount FROM topups WHERE id = ?', id)?.amount,
  addTopUp: (id: string, amountNano: number, now: number): void => {
    sql.exec('INSERT INTO topups (id, amount) VALUES (?, ?)', id, amountNano)
    post(sql, { id, kind: 'top_up', amountNano, createdAt: now })
  },
  outbox: (limit: number): OutboxItem[] =>
    sql
      .exec<{ item: string }>('SELECT item FROM outbox ORDER BY seq LIMIT ?', limit)
      .toArray()
      .map((row) => JSON.parse(row.item) as OutboxItem),
  /** True while the row of this id has not reached D1. */
  isWaiting: (id: string): boolean =>
    first(sql, "SELECT 1 AS one FROM outbox WHERE item ->> '$.ledger.id' = ?", id) !== undefined,
  clearOutbox: (throughSeq: number): void => {
    sql.exec('DELETE FROM outbox WHERE seq <= ?', throughSeq)
  },
})
