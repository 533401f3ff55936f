// Sealed segments handed out for whoever derives the bills again (scripts/admin_evidence.ts), and what the books say beside them.
import { inArray } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/d1'
import { z } from 'zod'
import { billLine, type Refund, type Terms } from '../../schema/bill.ts'
import { evidenceChains, nodes, usage } from '../../schema/db.ts'
import { ok, type Result } from '../../schema/errors.ts'
import type { Env } from '../env.ts'
import { evidenceKey, type KeptSegment, sealerOf, withSeals } from '../evidence.ts'

const SEGMENTS_MAX = 20

const named = { requestId: z.string(), attempt: z.number() }
const amounts = z.object({ hit: z.number(), miss: z.number(), output: z.number() })
const credits = z.array(z.object({ reason: z.string(), nano: z.number() }))
/** What a bill can be derived from, right or wrong; as far as whoever derives it relies on it. */
const keptShape = z.object({
  segment: z.string(),
  terms: z.array(z.object({ ...named, price: amounts, credits, chargedNano: z.number(), settledAt: z.number() })),
  unbilled: z.array(z.object(named)).optional(),
})

/** What stands in a place, as it stands there: seals are of its very order. `undefined`: nothing, or no segment. */
const keptAt = async (env: Env, key: string): Promise<{ etag: string; kept: KeptSegment } | undefined> => {
  const object = await env.EVIDENCE.get(key)
  const kept = await object?.json<KeptSegment>().catch(() => undefined)
  return object && kept && keptShape.safeParse(kept).success ? { etag: object.etag, kept } : undefined
}

/** Every chain with its length, its head and the key of its node. */
export const listChains = async (env: Env) => {
  const chains = await drizzle(env.DB).select().from(evidenceChains)
  const keys = await drizzle(env.DB).select({ id: nodes.id, publicKey: nodes.publicKey }).from(nodes)
  const keyOf = new Map(keys.map(({ id, publicKey }) => [id, publicKey]))
  return chains.map((chain) => ({ ...chain, publicKey: keyOf.get(chain.nodeId) ?? '' }))
}

const placesOf = (nodeId: string, chain: string, from: number, to: number): readonly string[] =>
  Array.from({ length: Math.max(0, Math.min(SEGMENTS_MAX, to - from)) }, (_, i) => evidenceKey(nodeId, chain, from + i))

/** A stretch of a chain; `null` where there is none, `sealed` whether edge's seal is right. */
export const readSegments = (env: Env, nodeId: string, chain: string, from: number, to: number) =>
  Promise.all(
    placesOf(nodeId, chain, from, to).map(async (key) => {
      const found = await keptAt(env, key)
      if (!found) return null
      const { segment, terms, unbilled } = found.kept
      return { segment, terms, unbilled, sealed: sealerOf(env, key, found.kept) !== undefined }
    }),
  )

export const resealBody = z.object({
  ...{ node: z.string(), chain: z.string(), from: z.int().min(0), to: z.int().min(0) },
})

type Resealed = 'sealed' | 'resealed' | 'refused'

const resealOne = async (env: Env, key: string): Promise<Resealed> => {
  const found = await keptAt(env, key)
  const sealer = found && sealerOf(env, key, found.kept)
  // What bears no seal gets none: it would pass for what the edge said.
  if (!found || sealer === undefined) return 'refused'
  if (sealer === env.SPARROW_SECRET) return 'sealed'
  const text = JSON.stringify(withSeals(env.SPARROW_SECRET, key, found.kept))
  const put = await env.EVIDENCE.put(key, text, { onlyIf: { etagMatches: found.etag } })
  // It was changed meanwhile, by what seals with the secret of today.
  return put ? 'resealed' : 'sealed'
}

/** A stretch of a chain, of which what was sealed with the secret before is sealed with the one of today. How many ended how. */
export const resealSegments = async (env: Env, { node, chain, from, to }: z.infer<typeof resealBody>) => {
  const ends = await Promise.all(placesOf(node, chain, from, to).map((key) => resealOne(env, key)))
  const countOf = (end: Resealed): number => ends.filter((one) => one === end).length
  return ok({ sealed: countOf('sealed'), resealed: countOf('resealed'), refused: countOf('refused') })
}

export const bookedBody = z.object({ requestIds: z.array(z.string()).max(90) })

type UsageRow = typeof usage.$inferSelect

export const termsOfRow = (row: UsageRow): Terms => ({
  ...{ requestId: row.requestId, attempt: row.attempt, chargedNano: row.chargedNano, settledAt: row.settledAt },
  price: { hit: row.hitNano, miss: row.missNano, output: row.outputNano, from: row.priceFrom },
  credits: JSON.parse(row.credits) as Terms['credits'],
})

/** Bill lines as the books have them, by request; those whose rows were swept are left out. */
export const bookedLines = async (
  env: Env,
  { requestIds }: z.infer<typeof bookedBody>,
): Promise<Result<{ lines: Record<string, string> }>> => {
  const rows =
    requestIds.length > 0 ? await drizzle(env.DB).select().from(usage).where(inArray(usage.requestId, requestIds)) : []
  return ok({ lines: Object.fromEntries(rows.map((row) => [row.requestId, billLine(row, termsOfRow(row))])) })
}

/** What each account was charged up to `until`, by the ledger, which nothing is ever swept from. */
export const chargedUntil = async (env: Env, until: number) =>
  (
    await env.DB.prepare(
      "SELECT account_id AS accountId, count(*) AS charges, -sum(amount_nano) AS chargedNano FROM ledger WHERE kind = 'charge' AND created_at <= ? GROUP BY account_id",
    )
      .bind(until)
      .all<{ accountId: string; charges: number; chargedNano: number }>()
  ).results

/** What was given back up to `until`: decided behind the receipts, so the ledger alone knows it. */
export const refundedUntil = async (env: Env, until: number) =>
  (
    await env.DB.prepare(
      "SELECT account_id AS accountId, substr(id, 8) AS requestId, amount_nano AS refundedNano, created_at AS at FROM ledger WHERE kind = 'refund' AND created_at <= ?",
    )
      .bind(until)
      .all<Refund & Record<string, unknown>>()
  ).results
