// The prefix index: which nodes are alive for a model and how much of this prompt each is predicted to hold, in one statement;
// written from receipts, swept in the scheduled handler, bounded for each account.

import { NODE_STALE_MS } from '../schema/limits.ts'
import type { Receipt, Run } from '../schema/wire.ts'
import { derive } from './auth.ts'
import { indexed } from './indexed.ts'
import type { Candidate } from './router.ts'

export const LOOKUP = `
  WITH hits AS (
    SELECT p.node_id AS id, max(p.tokens) AS tokens
    FROM json_each(?1) AS k CROSS JOIN prefix_blocks AS p ON p.key = k.value GROUP BY p.node_id)
  SELECT n.id, n.address, n.running, n.waiting, n.prefill_tokens_per_second AS prefillTokensPerSecond,
    n.kv_pages AS kvPages, n.kv_pages_used AS kvPagesUsed, n.heartbeat_at AS heartbeatAt, n.context_tokens AS contextTokens,
    coalesce(h.tokens, 0) AS hitTokens
  FROM nodes AS n LEFT JOIN hits AS h ON h.id = n.id WHERE n.model = ?2 AND n.chat_format = ?4 AND n.draining = 0 AND n.heartbeat_at > ?3`

/** Live nodes of the run's model and chat format with their longest predicted hit; a replica may answer. */
export const lookup = async (
  database: D1Database,
  { model, chatFormat }: Pick<Run, 'model' | 'chatFormat'>,
  keys: readonly string[],
): Promise<Candidate[]> => {
  const session = database.withSession('first-unconstrained')
  const answer = await session
    .prepare(LOOKUP)
    .bind(JSON.stringify(indexed(keys)), model, Date.now() - NODE_STALE_MS, chatFormat)
    .all<Candidate & Record<string, unknown>>()
  return answer.results
}

/** A row is written anew only when it is older: a conversation's turns cost its new blocks, not all of them. */
const FRESH_MS = 3_600_000
/** Rows not seen for this long are swept: the node has most likely evicted the pages. */
const KEPT_MS = 24 * FRESH_MS
/** Rows of one account that survive a sweep, newest first, give or take one segment of receipts. */
const ACCOUNT_ROWS_MAX = 20_000
/** Rows that one statement deletes, and statements of one sweep. */
const SWEEP_ROWS = 2_000
const SWEEP_STATEMENTS = 400

const RECORD = `
  WITH blocks AS MATERIALIZED (SELECT value FROM json_each(?2))
  INSERT INTO prefix_blocks (key, node_id, tokens, scope, seen_at)
  SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, ?1 FROM blocks WHERE true
  ON CONFLICT (key, node_id) DO UPDATE SET tokens = excluded.tokens, seen_at = excluded.seen_at
  WHERE prefix_blocks.seen_at < excluded.seen_at - ${FRESH_MS} OR prefix_blocks.tokens <> excluded.tokens`

/** Says whose a row is to nobody without the secret. */
const scopeOf = (secret: string, accountId: string): string =>
  derive(secret, 'prefix-scope', accountId).subarray(0, 9).toString('base64url')

/** What remembers which node now holds which blocks, as its receipts say: a statement, or none where they name no block. */
export const recording = (
  database: D1Database,
  secret: string,
  receipts: readonly Receipt[],
  now = Date.now(),
): D1PreparedStatement[] => {
  const rows = receipts.flatMap(({ accountId, nodeId, prefix }) => {
    const scope = prefix.length > 0 ? scopeOf(secret, accountId) : ''
    return indexed(prefix).map(([key, tokens]) => [key, nodeId, tokens, scope])
  })
  return rows.length > 0 ? [database.prepare(RECORD).bind(now, JSON.stringify(rows))] : []
}

/** Walks the scopes by their index; of each, what is too old or beyond the account's share goes. */
export const SWEEP = `
  WITH RECURSIVE scopes (scope) AS (
    SELECT min(scope) FROM prefix_blocks WHERE scope >= ?4
    UNION ALL SELECT (SELECT min(p.scope) FROM prefix_blocks AS p WHERE p.scope > scopes.scope) FROM scopes WHERE scope IS NOT NULL)
  DELETE FROM prefix_blocks WHERE rowid IN (
    SELECT p.rowid FROM scopes AS s CROSS JOIN prefix_blocks AS p ON p.scope = s.scope AND p.seen_at < max(?1, coalesce(
      (SELECT q.seen_at FROM prefix_blocks AS q WHERE q.scope = s.scope ORDER BY q.seen_at DESC LIMIT 1 OFFSET ?2), 0))
    LIMIT ?3) RETURNING scope`

/** Bounded batches, at most so many; what is left waits for the next turn. Returns the rows that went. */
export const sweepPrefixes = async (
  database: D1Database,
  now = Date.now(),
  rowsMax = ACCOUNT_ROWS_MAX,
): Promise<number> => {
  let swept = 0
  // Each statement goes on where the one before it ended: scopes in order, none walked twice.
  let from = ''
  for (let i = 0; i < SWEEP_STATEMENTS; i++) {
    const { results } = await database
      .prepare(SWEEP)
      .bind(now - KEPT_MS, rowsMax, SWEEP_ROWS, from)
      .all<{ scope: string }>()
    swept += results.length
    if (results.length < SWEEP_ROWS) break
    from = results.reduce((last, { scope }) => (scope > last ? scope : last), from)
  }
  return swept
}
