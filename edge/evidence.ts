// Evidence: every segment of receipts as its node sealed it, with the terms it was settled under, in R2 for good. Segments of a node
// form a chain by hash, and D1 knows each chain's last one, so that a missing or altered segment is seen (admin/evidence.ts).
import { createHash } from 'node:crypto'
import { and, eq } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/d1'
import type { Terms, Unbilled } from '../schema/bill.ts'
import { evidenceChains } from '../schema/db.ts'
import { fail, ok, type Result } from '../schema/errors.ts'
import type { Segment } from '../schema/wire.ts'
import { derive } from './auth.ts'
import { type Env, secretsOf } from './env.ts'
import { log, reasonOf } from './log.ts'
import { giveWay } from './turns.ts'

/** What one object in R2 holds, as JSON. */
export interface KeptSegment {
  /** The node's bytes, as signed. */
  readonly segment: string
  readonly terms: readonly Terms[]
  /** HMAC over both: the terms are the edge's word, not the node's. */
  readonly seal: string
  /** What of the segment is not billed, and an HMAC over it; absent in what older versions kept. */
  readonly unbilled?: readonly Unbilled[]
  readonly unbilledSeal?: string
}

/** What the edge says of a segment's receipts. */
export interface Word {
  readonly terms: readonly Terms[]
  readonly unbilled: readonly Unbilled[]
}

export const sha256 = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex')

export const evidenceKey = (nodeId: string, chain: string, index: number): string =>
  `receipts/${nodeId}/${chain}/${String(index).padStart(10, '0')}.json`

export const sealOf = (secret: string, key: string, segment: string, terms: readonly Terms[]): string =>
  derive(secret, 'evidence', key, sha256(segment), JSON.stringify(terms)).toString('base64url')

const unbilledSealOf = (secret: string, key: string, segment: string, unbilled: readonly Unbilled[]): string =>
  derive(secret, 'evidence unbilled', key, sha256(segment), JSON.stringify(unbilled)).toString('base64url')

/** With the seals that `secret` gives to what the edge says of it. */
export const withSeals = (secret: string, key: string, { segment, terms, unbilled }: KeptSegment): KeptSegment => ({
  ...{ segment, terms, seal: sealOf(secret, key, segment, terms) },
  ...(unbilled ? { unbilled, unbilledSeal: unbilledSealOf(secret, key, segment, unbilled) } : {}),
})

/** Of the secrets that count the one that all the edge says of it is sealed with. */
export const sealerOf = (env: Env, key: string, kept: KeptSegment): string | undefined =>
  secretsOf(env, 'SPARROW_SECRET').find((secret) => {
    const { seal, unbilledSeal } = withSeals(secret, key, kept)
    return kept.seal === seal && kept.unbilledSeal === unbilledSeal
  })

const HEADS_MAX = 1_000
/** The last segment of each chain, as far as this isolate kept it. Another isolate may be further on. What continues this head then stands
 * in R2 already: `keepSegment` takes the same bytes again and refuses others. */
const heads = new Map<string, { readonly segments: number; readonly head: string }>()

/** Ids are the nodes' own words: joined as they are, two could make one name. */
const chainName = ({ nodeId, link }: Segment): string => JSON.stringify([nodeId, link.chain])

/** That the segment is the next of its chain, or the last one again. Error: conflict, after which the node starts another chain. */
export const checkLink = async (env: Env, sealed: Segment, segment: string): Promise<Result<true>> => {
  const { nodeId, link } = sealed
  const last = heads.get(chainName(sealed))
  if (last && link.index === last.segments && link.previous === last.head) return ok(true)
  const mine = and(eq(evidenceChains.nodeId, nodeId), eq(evidenceChains.chain, link.chain))
  const row = (await drizzle(env.DB).select().from(evidenceChains).where(mine))[0]
  const { segments, head } = row ?? { segments: 0, head: '' }
  const isNext = link.index === segments && link.previous === head
  const isAgain = link.index === segments - 1 && sha256(segment) === head
  return isNext || isAgain ? ok(true) : fail('conflict', { message: 'The segment does not continue its chain.' })
}

const ADVANCE = `
  INSERT INTO evidence_chains (node_id, chain, segments, head, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)
  ON CONFLICT (node_id, chain) DO UPDATE SET segments = excluded.segments, head = excluded.head, updated_at = excluded.updated_at
  WHERE excluded.segments > evidence_chains.segments`

/** What was said first, and what is said of other requests. */
const union = <T extends { readonly requestId: string }>(before: readonly T[], now: readonly T[]): T[] => {
  const known = new Set(before.map(({ requestId }) => requestId))
  return [...before, ...now.filter(({ requestId }) => !known.has(requestId))]
}

/**
 * Keeps a segment once, and has D1 do what goes with it, in the same call that moves the chain on. When the segment comes again, because
 * an account could not be settled the first time, only the word on that account is added. Error: conflict, when another segment
 * stands in its place, or words that the edge did not seal.
 */
export const keepSegment = async (
  env: Env,
  sealed: Segment,
  segment: string,
  word: Word,
  beside: readonly D1PreparedStatement[],
): Promise<Result<true>> => {
  const { nodeId, link } = sealed
  const key = evidenceKey(nodeId, link.chain, link.index)
  const put = (word: Word, onlyIf: R2Conditional): Promise<R2Object | null> => {
    const kept = withSeals(env.SPARROW_SECRET, key, { segment, ...word, seal: '' })
    return env.EVIDENCE.put(key, JSON.stringify(kept), { onlyIf })
  }
  if ((await put(word, { etagDoesNotMatch: '*' })) === null) {
    const object = await env.EVIDENCE.get(key)
    const before = await object?.json<KeptSegment>()
    // Nor is anything added to terms that were altered: all of them would bear the seal.
    if (!object || before?.segment !== segment || sealerOf(env, key, before) === undefined)
      return fail('conflict', { message: 'Another segment stands in this place.' })
    const terms = union(before.terms, word.terms)
    const unbilled = union(before.unbilled ?? [], word.unbilled)
    const isMore = terms.length > before.terms.length || unbilled.length > (before.unbilled?.length ?? 0)
    if (isMore && (await put({ terms, unbilled }, { etagMatches: object.etag })) === null)
      return fail('conflict', { message: 'The segment is being kept by another call.' })
  }
  const head = sha256(segment)
  await giveWay()
  const advance = env.DB.prepare(ADVANCE).bind(nodeId, link.chain, link.index + 1, head, Date.now())
  await env.DB.batch([advance, ...beside]).catch(async (error: unknown) => {
    if (beside.length === 0) throw error
    // What goes beside is a prediction: receipts must not wait for it for ever.
    log('error', 'prefix_record_failed', { error: reasonOf(error) })
    await advance.run()
  })
  if (heads.size >= HEADS_MAX) heads.clear()
  heads.set(chainName(sealed), { segments: link.index + 1, head })
  return ok(true)
}
