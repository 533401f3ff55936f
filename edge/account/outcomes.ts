// Idempotency keys and the outcomes behind them. A key is claimed together with the hold, so that of any number of equal requests
// one runs; its answer is kept, compressed, for a day. Bounded: oldest bodies go first, their claims stay and refuse to run again.
import { IDEMPOTENCY_KEPT_MS, IDEMPOTENCY_KEYS_MAX, OUTCOMES_BYTES_MAX } from '../../schema/limits.ts'
import { first } from './tables.ts'

/** A SQLite value may have 2 MB. */
const PART_BYTES = 1024 * 1024
/** The answer is kept as fast as its client reads it, and may come so long behind the receipt; later it was lost with its Worker. */
const STORE_GRACE_MS = 15 * 60_000

export interface StoredOutcome {
  readonly requestId: string
  readonly contentType: string
  /** gzip. */
  readonly body: Uint8Array<ArrayBuffer>
}

/** What an idempotency key is called: by the secret of today, and by the one that it replaced. */
export interface ClaimName {
  readonly idempotencyKey: string
  readonly formerIdempotencyKey?: string | undefined
}

export interface Claim {
  readonly requestId: string
  readonly fingerprint: string
  /** `lost`: run and charged, but its answer is not kept. */
  readonly state: 'running' | 'done' | 'lost'
}

type ClaimRow = {
  request_id: string
  fingerprint: string
  state: string
  hold: string | null
  closed_at: number | null
}

const CLAIM = `SELECT o.request_id, o.fingerprint, o.state, h.state AS hold, h.closed_at FROM outcomes AS o
  LEFT JOIN holds AS h ON h.request_id = o.request_id WHERE o.created_at > ?4 AND o.rowid IN (
    SELECT rowid FROM outcomes WHERE family = ?1 AND key IN (?2, ?3)
    UNION ALL SELECT rowid FROM outcomes WHERE family = ?1 AND former_key = ?2)`

const bodyOf = (sql: SqlStorage, requestId: string): Uint8Array<ArrayBuffer> => {
  const rows = sql.exec<{ part: ArrayBuffer }>(
    'SELECT part FROM outcome_parts WHERE request_id = ? ORDER BY n',
    requestId,
  )
  const parts = rows.toArray().map(({ part }) => new Uint8Array(part))
  const body = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    body.set(part, at)
    at += part.length
  }
  return body
}

const drop = (sql: SqlStorage, requestId: string): void => {
  sql.exec('DELETE FROM outcome_parts WHERE request_id = ?', requestId)
  sql.exec("UPDATE outcomes SET state = 'lost', bytes = 0 WHERE request_id = ?", requestId)
}

/** Drops the oldest bodies until `more` bytes have room. */
const makeRoom = (sql: SqlStorage, more: number): void => {
  let used = first<{ n: number }>(sql, 'SELECT coalesce(sum(bytes), 0) AS n FROM outcomes')?.n ?? 0
  while (used + more > OUTCOMES_BYTES_MAX) {
    const oldest = first<{ id: string; bytes: number }>(
      sql,
      'SELECT request_id AS id, bytes FROM outcomes WHERE bytes > 0 ORDER BY created_at LIMIT 1',
    )
    if (!oldest) return
    drop(sql, oldest.id)
    used -= oldest.bytes
  }
}

export const outcomeStore = (sql: SqlStorage) => ({
  /** Under either name; what this isolate takes for the name of today may be the former one to whoever made the claim. */
  claim: (family: string, name: ClaimName, now: number): Claim | undefined => {
    const { idempotencyKey: key, formerIdempotencyKey: former = null } = name
    const row = first<ClaimRow>(sql, CLAIM, family, key, former, now - IDEMPOTENCY_KEPT_MS)
    if (!row) return undefined
    const { request_id: requestId, fingerprint } = row
    if (row.state !== 'running') return { requestId, fingerprint, state: row.state === 'done' ? 'done' : 'lost' }
    const ended = row.hold === 'settled' ? (row.closed_at ?? 0) + STORE_GRACE_MS < now : row.hold !== 'open'
    return { requestId, fingerprint, state: ended ? 'lost' : 'running' }
  },
  claimsFull: (): boolean =>
    (first<{ n: number }>(sql, 'SELECT count(*) AS n FROM outcomes')?.n ?? 0) >= IDEMPOTENCY_KEYS_MAX,
  addClaim: (family: string, name: ClaimName, fingerprint: string, requestId: string, now: number): void => {
    const { idempotencyKey: key, formerIdempotencyKey: former = null } = name
    // An expired claim that the alarm has not swept yet makes way.
    sql.exec(
      'DELETE FROM outcome_parts WHERE request_id = (SELECT request_id FROM outcomes WHERE family = ? AND key = ?)',
      ...[family, key],
    )
    sql.exec(
      "INSERT OR REPLACE INTO outcomes (family, key, former_key, fingerprint, request_id, state, bytes, created_at) VALUES (?, ?, ?, ?, ?, 'running', 0, ?)",
      ...[family, key, former, fingerprint, requestId, now],
    )
  },
  /** Nothing was run, or nothing that counts: the key may be used again. */
  freeClaim: (requestId: string): void => {
    sql.exec('DELETE FROM outcome_parts WHERE request_id = ?', requestId)
    sql.exec('DELETE FROM outcomes WHERE request_id = ?', requestId)
  },
  /** Keeps the answer of a claimed request; `undefined`, one that is too large, leaves a claim that cannot be replayed. */
  keepOutcome: (requestId: string, contentType: string, body: Uint8Array | undefined): void => {
    if (!first(sql, "SELECT 1 AS one FROM outcomes WHERE request_id = ? AND state = 'running'", requestId)) return
    if (!body) {
      drop(sql, requestId)
      return
    }
    makeRoom(sql, body.length)
    for (let at = 0, n = 0; at < body.length; at += PART_BYTES, n++) {
      sql.exec(
        'INSERT INTO outcome_parts (request_id, n, part) VALUES (?, ?, ?)',
        ...[requestId, n, body.slice(at, at + PART_BYTES).buffer as ArrayBuffer],
      )
    }
    sql.exec(
      "UPDATE outcomes SET state = 'done', content_type = ?, bytes = ? WHERE request_id = ?",
      ...[contentType, body.length, requestId],
    )
  },
  outcome: (requestId: string): StoredOutcome | undefined => {
    const row = first<{ type: string | null }>(
      sql,
      "SELECT content_type AS type FROM outcomes WHERE request_id = ? AND state = 'done'",
      requestId,
    )
    return row && { requestId, contentType: row.type ?? 'application/json', body: bodyOf(sql, requestId) }
  },
  forgetOutcomes: (before: number): void => {
    sql.exec(
      'DELETE FROM outcome_parts WHERE request_id IN (SELECT request_id FROM outcomes WHERE created_at <= ?)',
      before,
    )
    sql.exec('DELETE FROM outcomes WHERE created_at <= ?', before)
  },
  oldestOutcome: (): number | undefined =>
    first<{ at: number | null }>(sql, 'SELECT min(created_at) AS at FROM outcomes')?.at ?? undefined,
})
