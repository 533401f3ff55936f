// The account object's tables and every statement over them. Synchronous: callers decide and write without interleaving.
import type { Price } from '../schema/money.ts'
import type { Receipt } from '../schema/wire.ts'

export interface Hold {
  readonly requestId: string
  readonly keyId: string
  readonly model: string
  readonly amountNano: number
  readonly attempt: number
  readonly price: Price
  readonly state: 'open' | 'settled' | 'released'
}

export interface NewHold extends Omit<Hold, 'attempt' | 'state'> {
  readonly createdAt: number
}

export interface Charge {
  readonly receipt: Receipt
  readonly signature: string
  readonly price: Price
  readonly chargedNano: number
  readonly now: number
}

export interface LedgerRow {
  readonly accountId: string
  readonly id: string
  readonly kind: 'top_up' | 'charge'
  readonly amountNano: number
  readonly seq: number
  readonly balanceAfterNano: number
  readonly createdAt: number
}

/** A ledger row on its way to D1, with the usage row it pays for. */
export interface OutboxItem {
  readonly ledger: LedgerRow
  readonly charge?: Charge
}

const TABLES = `
  CREATE TABLE IF NOT EXISTS account (id TEXT PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0), seq INTEGER NOT NULL);
  CREATE TABLE IF NOT EXISTS keys (id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, expires_at INTEGER, revoked INTEGER NOT NULL);
  CREATE TABLE IF NOT EXISTS holds (request_id TEXT PRIMARY KEY, key_id TEXT NOT NULL, model TEXT NOT NULL, amount INTEGER NOT NULL,
    attempt INTEGER NOT NULL, price TEXT NOT NULL, state TEXT NOT NULL, created_at INTEGER NOT NULL, closed_at INTEGER);
  CREATE INDEX IF NOT EXISTS holds_state ON holds (state, created_at);
  CREATE TABLE IF NOT EXISTS topups (id TEXT PRIMARY KEY, amount INTEGER NOT NULL);
  CREATE TABLE IF NOT EXISTS outbox (seq INTEGER PRIMARY KEY, item TEXT NOT NULL);
`

type Row = Record<string, SqlStorageValue>

const first = <T extends Row>(sql: SqlStorage, query: string, ...values: SqlStorageValue[]): T | undefined =>
  sql.exec<T>(query, ...values).toArray()[0]

/** Moves the balance and queues the ledger row; the CHECK above makes an overdraft impossible. */
const post = (
  sql: SqlStorage,
  id: string,
  kind: LedgerRow['kind'],
  amountNano: number,
  createdAt: number,
  charge?: Charge,
): void => {
  const row = first<{ id: string; balance: number; seq: number }>(
    sql,
    'UPDATE account SET balance = balance + ?, seq = seq + 1 RETURNING id, balance, seq',
    amountNano,
  )
  if (!row) throw new Error('the account was never opened')
  const ledger = { accountId: row.id, id, kind, amountNano, seq: row.seq, balanceAfterNano: row.balance, createdAt }
  const item: OutboxItem = charge ? { ledger, charge } : { ledger }
  sql.exec('INSERT INTO outbox (seq, item) VALUES (?, ?)', row.seq, JSON.stringify(item))
}

/** The account's name and its keys. */
const keyStore = (sql: SqlStorage) => ({
  setAccountId: (id: string): void => {
    sql.exec('INSERT OR IGNORE INTO account (id, balance, seq) VALUES (?, 0, 0)', id)
  },
  putKey: (id: string, hash: string, expiresAt: number | null): void => {
    sql.exec('INSERT OR IGNORE INTO keys (id, hash, expires_at, revoked) VALUES (?, ?, ?, 0)', id, hash, expiresAt)
  },
  revokeKey: (id: string): void => {
    sql.exec('UPDATE keys SET revoked = 1 WHERE id = ?', id)
  },
  activeKey: (hash: string, now: number): string | undefined =>
    first<{ id: string }>(
      sql,
      'SELECT id FROM keys WHERE hash = ? AND revoked = 0 AND (expires_at IS NULL OR expires_at > ?)',
      hash,
      now,
    )?.id,
})

/** Holds: open, then settled or released. */
const holdStore = (sql: SqlStorage) => ({
  openHolds: (): { count: number; heldNano: number } => {
    const row = first<{ n: number; held: number }>(
      sql,
      "SELECT count(*) AS n, coalesce(sum(amount), 0) AS held FROM holds WHERE state = 'open'",
    )
    return { count: row?.n ?? 0, heldNano: row?.held ?? 0 }
  },
  addHold: (h: NewHold): void => {
    sql.exec(
      "INSERT INTO holds (request_id, key_id, model, amount, attempt, price, state, created_at) VALUES (?, ?, ?, ?, 1, ?, 'open', ?)",
      ...[h.requestId, h.keyId, h.model, h.amountNano, JSON.stringify(h.price), h.createdAt],
    )
  },
  hold: (requestId: string): Hold | undefined => {
    const row = first<{
      key_id: string
      model: string
      amount: number
      attempt: number
      price: string
      state: string
    }>(sql, 'SELECT key_id, model, amount, attempt, price, state FROM holds WHERE request_id = ?', requestId)
    return (
      row && {
        requestId,
        keyId: row.key_id,
        model: row.model,
        amountNano: row.amount,
        attempt: row.attempt,
        price: JSON.parse(row.price) as Price,
        state: row.state as Hold['state'],
      }
    )
  },
  setAttempt: (requestId: string, attempt: number): void => {
    sql.exec('UPDATE holds SET attempt = max(attempt, ?) WHERE request_id = ?', attempt, requestId)
  },
  /** Settled stays settled; a released hold may still settle late. */
  closeHold: (requestId: string, state: 'settled' | 'released', now: number): void => {
    sql.exec(
      "UPDATE holds SET state = ?, closed_at = ? WHERE request_id = ? AND state <> 'settled'",
      state,
      now,
      requestId,
    )
  },
  expireHolds: (before: number, now: number): void => {
    sql.exec("UPDATE holds SET state = 'released', closed_at = ? WHERE state = 'open' AND created_at <= ?", now, before)
  },
  forgetClosed: (before: number): void => {
    sql.exec("DELETE FROM holds WHERE state <> 'open' AND closed_at < ?", before)
  },
  oldestOpenHold: (): number | undefined =>
    first<{ at: number | null }>(sql, "SELECT min(created_at) AS at FROM holds WHERE state = 'open'")?.at ?? undefined,
})

/** Balance, credits, charges, and what still has to reach D1. */
const moneyStore = (sql: SqlStorage) => ({
  balance: (): number => first<{ balance: number }>(sql, 'SELECT balance FROM account')?.balance ?? 0,
  addCharge: (charge: Charge): void => {
    post(sql, charge.receipt.requestId, 'charge', -charge.chargedNano, charge.now, charge)
  },
  topUpAmount: (id: string): number | undefined =>
    first<{ amount: number }>(sql, 'SELECT amount FROM topups WHERE id = ?', id)?.amount,
  addTopUp: (id: string, amountNano: number, now: number): void => {
    sql.exec('INSERT INTO topups (id, amount) VALUES (?, ?)', id, amountNano)
    post(sql, id, 'top_up', amountNano, now)
  },
  outbox: (limit: number): OutboxItem[] =>
    sql
      .exec<{ item: string }>('SELECT item FROM outbox ORDER BY seq LIMIT ?', limit)
      .toArray()
      .map((row) => JSON.parse(row.item) as OutboxItem),
  clearOutbox: (throughSeq: number): void => {
    sql.exec('DELETE FROM outbox WHERE seq <= ?', throughSeq)
  },
})

export const accountStore = (sql: SqlStorage) => {
  sql.exec(TABLES)
  return { ...keyStore(sql), ...holdStore(sql), ...moneyStore(sql) }
}

export type AccountStore = ReturnType<typeof accountStore>
