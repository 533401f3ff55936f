// Where a run may go. A prompt with prefix blocks asks D1; a shorter one has nothing to find there but live nodes, and takes those
// that this isolate read at most a second ago. What a node became since then it says itself: one that drains refuses, and the
// run moves on; one that joined is seen a second later.
import type { Run } from '../schema/wire.ts'
import { log, reasonOf } from './log.ts'
import { lookup } from './prefix.ts'
import type { Candidate } from './router.ts'

/** Asked for again, beside the request that finds them so old; never used when they are older than `KEPT_MS`. */
const FRESH_MS = 500
const KEPT_MS = 1_000

type Kind = Pick<Run, 'model' | 'chatFormat'>

interface Known {
  readonly nodes: readonly Candidate[]
  readonly readAt: number
  /** A request is asking anew since then. */
  askedAt: number
}

/** Values only: workerd lets no request wait for another's promise. */
const known = new Map<string, Known>()

const nameOf = ({ model, chatFormat }: Kind): string => JSON.stringify([model, chatFormat])

/** None are not remembered, so a model that no node serves leaves nothing here. */
const read = async (database: D1Database, kind: Kind): Promise<readonly Candidate[]> => {
  const askedAt = Date.now()
  const nodes = await lookup(database, kind, [])
  if (nodes.length > 0) known.set(nameOf(kind), { nodes, readAt: askedAt, askedAt })
  else known.delete(nameOf(kind))
  return nodes
}

export const candidatesFor = async (
  database: D1Database,
  context: Pick<ExecutionContext, 'waitUntil'>,
  kind: Kind,
  keys: readonly string[],
): Promise<readonly Candidate[]> => {
  if (keys.length > 0) return lookup(database, kind, keys)
  const now = Date.now()
  const found = known.get(nameOf(kind))
  if (!found || now - found.readAt >= KEPT_MS) return read(database, kind)
  if (now - found.askedAt >= FRESH_MS) {
    found.askedAt = now
    context.waitUntil(read(database, kind).catch((error) => log('error', 'nodes_not_read', { error: reasonOf(error) })))
  }
  return found.nodes
}

/** A run found none of them good: the next one asks. */
export const forgetNodes = (): void => known.clear()
