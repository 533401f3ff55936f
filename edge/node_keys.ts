// The keys that calls of nodes are checked with, as D1 has them; those of removed nodes too, for their last receipts. An isolate keeps
// a key for a while.

import { eq } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/d1'
import { nodes } from '../schema/db.ts'
import { importPublicKey } from '../schema/signature.ts'

const KEPT_MS = 10_000
const NODES_MAX = 1_000

/** Values only: workerd lets no request wait for another's promise. */
const known = new Map<string, { readonly key: CryptoKey; readonly readAt: number }>()

/** The key as it was read a moment ago, if it was. */
export const keptNodeKey = (nodeId: string): CryptoKey | undefined => {
  const kept = known.get(nodeId)
  return kept && Date.now() - kept.readAt < KEPT_MS ? kept.key : undefined
}

/** `undefined`: no such node is registered. */
export const readNodeKey = async (database: D1Database, nodeId: string): Promise<CryptoKey | undefined> => {
  const readAt = Date.now()
  const rows = await drizzle(database).select({ publicKey: nodes.publicKey }).from(nodes).where(eq(nodes.id, nodeId))
  known.delete(nodeId)
  if (!rows[0]) return undefined
  const key = await importPublicKey(rows[0].publicKey)
  if (known.size >= NODES_MAX) known.clear()
  known.set(nodeId, { key, readAt })
  return key
}
