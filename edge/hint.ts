// `prompt_cache_key`: runs with one hint prefer one node while nothing better is known, by rendezvous hashing over the live nodes:
// no state, and when a node goes only its own hints move.
import { createHash } from 'node:crypto'
import type { Candidate } from './router.ts'

const weight = (tenant: string, hint: string, nodeId: string): string =>
  createHash('sha256')
    .update(JSON.stringify([tenant, hint, nodeId]))
    .digest('hex')

/** Marks the node that the hint falls on. */
export const withHint = (
  candidates: readonly Candidate[],
  tenant: string,
  hint: string | undefined,
): readonly Candidate[] => {
  if (hint === undefined || candidates.length < 2) return candidates
  const weights = candidates.map(({ id }) => weight(tenant, hint, id))
  const best = weights.indexOf(weights.reduce((a, b) => (a > b ? a : b)))
  return candidates.map((node, i) => (i === best ? { ...node, isHinted: true } : node))
}
