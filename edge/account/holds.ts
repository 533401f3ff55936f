// Holds: money set aside for a run. `open` until the receipt settles it; `void` when the edge answered an error itself, after
// which no receipt counts; `released` when no receipt came in time, after which a late one still settles.
import { RECEIPT_WINDOW_MS } from '../../schema/limits.ts'
import type { Price } from '../../schema/money.ts'
import type { Credit } from './money.ts'
import { first } from './tables.ts'

export type HoldState = 'open' | 'settled' | 'void' | 'released'

/** An attempt that failed before the first token. */
export interface FailedAttempt {
  readonly attempt: number
  readonly nodeId: string
  readonly code: string
}

export interface PriceInForce extends Price {
  readonly from: number
}

export interface NewHold {
  readonly requestId: string
  readonly keyId: string
  readonly family: string
  readonly model: string
  readonly amountNano: number
  readonly promptBytes: number
  readonly maxTokens: number
  readonly price: PriceInForce
  readonly createdAt: number
  readonly fingerprint: string | null
  /** First request of the same body that an SDK sent before this one. */
  readonly retryOf: string | null
}

export interface Hold extends NewHold {
  readonly attempt: number
  readonly attempts: readonly FailedAttempt[]
  /** The node of the current attempt, known from the second on. */
  readonly nodeId: string | null
  /** Prompt tokens known to lie on another node than the one asked. */
  readonly overlapTokens: number
  readonly state: HoldState
  readonly closedAt: number | null
  readonly chargedNano: number
  readonly credits: readonly Credit[]
}

type HoldRow = {
  request_id: string
  key_id: string
  family: string
  model: string
  amount: number
  prompt_bytes: number
  max_tokens: number
  price: string
  created_at: number
  fingerprint: string | null
  retry_of: string | null
  attempt: number
  attempts: string
  node_id: string | null
  overlap_tokens: number
  state: string
  closed_at: number | null
  charged: number
  credits: string
}

const holdOfRow = (row: HoldRow): Hold => ({
  requestId: row.request_id,
  keyId: row.key_id,
  family: row.family,
  model: row.model,
  amountNano: row.amount,
  promptBytes: row.prompt_bytes,
  maxTokens: row.max_tokens,
  price: JSON.parse(row.price) as PriceInForce,
  createdAt: row.created_at,
  fingerprint: row.fingerprint,
  retryOf: row.retry_of,
  attempt: row.attempt,
  attempts: JSON.parse(row.attempts) as FailedAttempt[],
  nodeId: row.node_id,
  overlapTokens: row.overlap_tokens,
  state: row.state as HoldState,
  closedAt: row.closed_at,
  chargedNano: row.charged,
  credits: JSON.parse(row.credits) as Credit[],
})

const ADD = `INSERT INTO holds (request_id, key_id, family, model, amount, prompt_bytes, max_tokens, price, created_at, fingerprint,
  retry_of, attempt, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, 'open')`

export interface HeldTotals {
  readonly count: number
  readonly heldNano: number
}

/** The slowest decoding that is waited for, and the longest run. */
const TOKEN_MS = 60
const RUN_MS_MAX = 2 * 3_600_000
/** When a hold is let go without a receipt: a long run takes longer than the window. */
const UNTIL = `created_at + min(${RUN_MS_MAX}, max(${RECEIPT_WINDOW_MS}, max_tokens * ${TOKEN_MS}))`

const NOTHING: HeldTotals = { count: 0, heldNano: 0 }
const ALL = ''

/** Sums of the open holds: counted once, then kept up by every change, so that an admission costs the same however many are open. */
const openTotals = (sql: SqlStorage) => {
  let totals: Map<string, HeldTotals> | undefined
  const add = (known: Map<string, HeldTotals>, family: string, count: number, nano: number): void => {
    for (const name of [ALL, family]) {
      const before = known.get(name) ?? NOTHING
      known.set(name, { count: before.count + count, heldNano: before.heldNano + nano })
    }
  }
  const count = (): Map<string, HeldTotals> => {
    const counted = new Map<string, HeldTotals>()
    const query = "SELECT family, count(*) AS n, sum(amount) AS held FROM holds WHERE state = 'open' GROUP BY family"
    for (const row of sql.exec<{ family: string; n: number; held: number }>(query))
      add(counted, row.family, row.n, row.held)
    return counted
  }
  return {
    of: (family: string): HeldTotals => {
      totals ??= count()
      return totals.get(family) ?? NOTHING
    },
    changed: (family: string, by: 1 | -1, nano: number): void => {
      if (totals) add(totals, family, by, by * nano)
    },
    /** They are counted anew: many changed at once, or what was to change them was rolled back. */
    forget: (): void => {
      totals = undefined
    },
  }
}

export const holdStore = (sql: SqlStorage) => {
  const open = openTotals(sql)
  return {
    /** Of the account, or of one family of keys. */
    openHolds: (family: string = ALL): HeldTotals => open.of(family),
    recountHolds: open.forget,
    addHold: (h: NewHold): void => {
      sql.exec(
        ADD,
        ...[h.requestId, h.keyId, h.family, h.model, h.amountNano, h.promptBytes, h.maxTokens, JSON.stringify(h.price)],
        ...[h.createdAt, h.fingerprint, h.retryOf],
      )
      open.changed(h.family, 1, h.amountNano)
    },
    hold: (requestId: string): Hold | undefined => {
      const row = first<HoldRow>(sql, 'SELECT * FROM holds WHERE request_id = ?', requestId)
      return row && holdOfRow(row)
    },
    setAttempt: (requestId: string, attempt: number, nodeId: string, failed: FailedAttempt): void => {
      sql.exec(
        "UPDATE holds SET attempt = ?, node_id = ?, attempts = json_insert(attempts, '$[#]', json(?)) WHERE request_id = ? AND attempt < ? AND state IN ('open', 'released')",
        ...[attempt, nodeId, JSON.stringify(failed), requestId, attempt],
      )
    },
    setOverlap: (requestId: string, tokens: number): void => {
      sql.exec('UPDATE holds SET overlap_tokens = ? WHERE request_id = ?', tokens, requestId)
    },
    /** Settled and void are final; a released hold may still settle. */
    closeHold: (
      hold: Pick<Hold, 'requestId' | 'family' | 'amountNano' | 'state'>,
      state: Exclude<HoldState, 'open'>,
      now: number,
      chargedNano = 0,
      credits: readonly Credit[] = [],
    ): void => {
      sql.exec(
        "UPDATE holds SET state = ?, closed_at = ?, charged = ?, credits = ? WHERE request_id = ? AND state IN ('open', 'released')",
        ...[state, now, chargedNano, JSON.stringify(credits), hold.requestId],
      )
      if (hold.state === 'open') open.changed(hold.family, -1, hold.amountNano)
    },
    /** Returns what it let go. */
    expireHolds: (now: number): Hold[] => {
      const expired = `UPDATE holds SET state = 'released', closed_at = ?1 WHERE state = 'open' AND ${UNTIL} <= ?1 RETURNING *`
      const rows = sql.exec<HoldRow>(expired, now).toArray()
      open.forget()
      return rows.map(holdOfRow)
    },
    forgetClosed: (before: number): void => {
      sql.exec('DELETE FROM holds WHERE closed_at < ?', before)
    },
    oldestClosed: (): number | undefined =>
      first<{ at: number | null }>(sql, 'SELECT min(closed_at) AS at FROM holds WHERE closed_at IS NOT NULL')?.at ??
      undefined,
    nextExpiry: (): number | undefined =>
      first<{ at: number | null }>(sql, `SELECT min(${UNTIL}) AS at FROM holds WHERE state = 'open'`)?.at ?? undefined,
  }
}

/** Requests that an SDK sent again. */
export const retryStore = (sql: SqlStorage) => ({
  /** The first request with this body since `since`, by the same keys: what an SDK's retry repeats. */
  firstWithBody: (family: string, fingerprint: string, since: number): string | undefined => {
    const row = first<{ id: string }>(
      sql,
      `SELECT r.request_id AS id FROM holds AS h JOIN holds AS r ON r.request_id = coalesce(h.retry_of, h.request_id)
         WHERE r.created_at > ?1 AND h.created_at > ?1 AND h.state IN ('open', 'settled', 'released')
         AND h.family = ?2 AND h.fingerprint = ?3 ORDER BY h.created_at DESC LIMIT 1`,
      ...[since, family, fingerprint],
    )
    return row?.id
  },
  /** What a request and its repetitions were charged so far. */
  chargedOfGroup: (requestId: string): number =>
    first<{ nano: number }>(
      sql,
      `SELECT coalesce(sum(charged), 0) AS nano FROM holds WHERE (request_id = ?1 OR retry_of = ?1)
         AND NOT EXISTS (SELECT 1 FROM topups WHERE id = 'refund:' || request_id)`,
      requestId,
    )?.nano ?? 0,
  retriesOf: (requestId: string): number =>
    first<{ n: number }>(sql, 'SELECT count(*) AS n FROM holds WHERE retry_of = ?', requestId)?.n ?? 0,
  hasRetries: (requestId: string): boolean =>
    first(sql, 'SELECT 1 AS one FROM holds WHERE retry_of = ? LIMIT 1', requestId) !== undefined,
})
