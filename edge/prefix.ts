// The prefix index: which nodes are alive for a model and how much of this prompt each is predicted to hold, in one statement.
import { NODE_STALE_MS } from '../schema/limits.ts'
import type { Receipt, Run } from '../schema/wire.ts'
import type { Candidate } from './router.ts'

const LOOKUP = `
  SELECT n.id, n.address, n.running, n.waiting, n.prefill_tokens_per_second AS prefillTokensPerSecond,
    n.heartbeat_at AS heartbeatAt, n.context_tokens AS contextTokens,
    coalesce((SELECT max(p.tokens) FROM json_each(?1) AS k JOIN prefix_blocks AS p ON p.key = k.value AND p.node_id = n.id), 0) AS hitTokens
  FROM nodes AS n WHERE n.model = ?2 AND n.chat_format = ?4 AND n.draining = 0 AND n.heartbeat_at > ?3`

/** Live nodes of the run's model and chat format with their longest predicted hit; a replica may answer. */
export const lookup = async (
  database: D1Database,
  { model, chatFormat }: Pick<Run, 'model' | 'chatFormat'>,
  keys: readonly string[],
): Promise<Candidate[]> => {
  const session = database.withSession('first-unconstrained')
  const answer = await session
    .prepare(LOOKUP)
    .bind(JSON.stringify(keys), model, Date.now() - NODE_STALE_MS, chatFormat)
    .all<Candidate & Record<string, unknown>>()
  return answer.results
}

const RECORD = `
  INSERT INTO prefix_blocks (key, node_id, tokens, seen_at)
  SELECT value ->> 0, value ->> 1, value ->> 2, ?1 FROM json_each(?2) WHERE true
  ON CONFLICT (key, node_id) DO UPDATE SET tokens = excluded.tokens, seen_at = excluded.seen_at`

/** Remembers which node now holds which blocks, as its receipts say. */
export const record = async (database: D1Database, receipts: readonly Receipt[]): Promise<void> => {
  const rows = receipts.flatMap((receipt) => receipt.prefix.map(([key, tokens]) => [key, receipt.nodeId, tokens]))
  if (rows.length > 0) await database.prepare(RECORD).bind(Date.now(), JSON.stringify(rows)).run()
}

/** Rows not seen for this long are swept: the node has most likely evicted the pages. */
const KEPT_MS = 24 * 3_600_000

export const sweep = async (database: D1Database): Promise<void> => {
  await database
    .prepare('DELETE FROM prefix_blocks WHERE seen_at < ?')
    .bind(Date.now() - KEPT_MS)
    .run()
}
