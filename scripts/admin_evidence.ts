// `npm run admin -- evidence`: derives every bill again from the sealed segments alone, byte for byte, and compares it with the books.
// A segment that is missing, altered or out of its chain, a forged receipt, a line that differs: each is a finding.

import { createHash } from 'node:crypto'
import { billLine, chargeOf, type Refund, refundLine, type Terms, type Unbilled } from '../schema/bill.ts'
import { RECEIPT_WINDOW_MS } from '../schema/limits.ts'
import { verifyReceipt } from '../schema/receipt.ts'
import { importPublicKey } from '../schema/signature.ts'
import { parseJson } from '../schema/text.ts'
import { type Receipt, type Segment, type SignedReceipt, segmentSchema } from '../schema/wire.ts'
import type { Call, Finding } from './admin_audit.ts'

export interface EvidenceReport {
  readonly ok: boolean
  readonly segments: number
  readonly bills: number
  /** Receipts that count tokens and cost nothing, or were refused. */
  readonly unbilled: number
  readonly findings: readonly Finding[]
  /** Bill lines of the account asked for and what of them was given back, in order of time. */
  readonly lines: readonly string[]
  /** SHA-256 of those lines, joined by line feeds. */
  readonly sha256: string
}

interface Chain {
  readonly nodeId: string
  readonly chain: string
  readonly segments: number
  readonly head: string
  readonly publicKey: string
}
type Kept = {
  readonly segment: string
  readonly terms: readonly Terms[]
  /** Absent in what older versions kept: what has no terms there is taken on trust. */
  readonly unbilled?: readonly Unbilled[]
  readonly sealed: boolean
} | null

interface Line {
  readonly accountId: string
  readonly settledAt: number
  readonly chargedNano: number
  readonly text: string
}

/** Segments of a call; within the edge's own bound. */
const STRETCH = 20
const BATCH = 90

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')

const keyOf = ({ requestId, attempt }: { requestId: string; attempt: number }): string => `${requestId}/${attempt}`

class Derivation {
  readonly findings: Finding[] = []
  readonly lines = new Map<string, Line>()
  segments = 0
  /** By request and attempt: what the edge said is not billed, and what it said nothing of where it stands. */
  readonly unbilled = new Set<string>()
  readonly #unsaid = new Map<string, Receipt>()

  found(kind: string, row: string, expected: string | null, found: string | null, account = ''): void {
    this.findings.push({ kind, account, row, expected, found })
  }

  async chain(call: Call, chain: Chain): Promise<void> {
    const place = encodeURIComponent(chain.nodeId)
    const key = chain.publicKey === '' ? undefined : await importPublicKey(chain.publicKey)
    let previous = ''
    for (let from = 0; from < chain.segments; from += STRETCH) {
      const path = `/evidence/segments?node=${place}&chain=${encodeURIComponent(chain.chain)}&from=${from}&to=${Math.min(from + STRETCH, chain.segments)}`
      const { data } = await call<{ data: Kept[] }>('GET', path)
      for (const [i, kept] of data.entries()) {
        const name = `${chain.nodeId} ${chain.chain} ${from + i}`
        if (!kept) {
          this.found('segment is missing', name, 'a segment', null)
          previous = '?'
          continue
        }
        await this.#segment(name, kept, previous, key)
        previous = sha256(kept.segment)
      }
    }
    if (previous !== chain.head) this.found("last segment is not the chain's head", chain.chain, chain.head, previous)
  }

  async #segment(name: string, kept: NonNullable<Kept>, previous: string, key: CryptoKey | undefined): Promise<void> {
    this.segments++
    if (!kept.sealed) this.found("terms do not bear the edge's seal", name, 'sealed', 'altered')
    const parsed = segmentSchema.safeParse(parseJson(kept.segment))
    if (!parsed.success) return this.found('segment cannot be read', name, 'a segment', 'altered')
    const segment: Segment = parsed.data
    // After a missing segment its successor's link is taken on trust; the gap is a finding already.
    if (previous !== '?' && segment.link.previous !== previous)
      this.found('segment does not continue its chain', name, previous, segment.link.previous)
    const terms = new Map(kept.terms.map((t) => [keyOf(t), t]))
    const unbilled = new Set(kept.unbilled?.map(keyOf))
    for (const signed of segment.receipts) {
      const { receipt } = signed
      const { requestId, accountId, hitTokens, missTokens, outputTokens } = receipt
      if (!key || !(await verifyReceipt(key, signed)))
        this.found('receipt is not signed by its node', requestId, 'signed', 'forged', accountId)
      const term = terms.get(keyOf(receipt))
      if (term) this.#bill(signed, term)
      else if (hitTokens + missTokens + outputTokens === 0) continue
      else if (unbilled.has(keyOf(receipt))) this.unbilled.add(keyOf(receipt))
      else if (kept.unbilled) this.#unsaid.set(keyOf(receipt), receipt)
    }
  }

  #bill({ receipt }: SignedReceipt, terms: Terms): void {
    const { requestId, accountId } = receipt
    const { settledAt, chargedNano } = terms
    const charge = chargeOf(receipt, terms)
    if (charge !== chargedNano)
      this.found('terms do not give the charge', requestId, String(charge), String(chargedNano), accountId)
    const text = billLine(receipt, terms)
    const before = this.lines.get(requestId)
    if (before && before.text !== text) this.found('two bills for one request', requestId, before.text, text, accountId)
    this.lines.set(requestId, { accountId, settledAt, chargedNano, text })
  }

  /** What an account could not be asked about comes again, in a later segment: by then it is billed, or said not to be. */
  lost(until: number): void {
    for (const [key, { requestId, accountId, closedAt }] of this.#unsaid)
      if (!this.lines.has(requestId) && !this.unbilled.has(key) && closedAt <= until - RECEIPT_WINDOW_MS)
        this.found('receipt is neither billed nor said to be free', key, 'a bill', null, accountId)
  }

  /** Every derived line against the usage row of its request, while that is kept; every account's sum against the ledger. */
  async compare(call: Call, until: number): Promise<void> {
    const derived = [...this.lines].filter(([, { settledAt }]) => settledAt <= until)
    for (let at = 0; at < derived.length; at += BATCH) {
      const some = derived.slice(at, at + BATCH)
      const { lines } = await call<{ lines: Record<string, string> }>('POST', '/evidence/booked', {
        requestIds: some.map(([id]) => id),
      })
      for (const [id, { text, accountId }] of some)
        if (lines[id] !== undefined && lines[id] !== text)
          this.found('bill differs from the books', id, text, lines[id], accountId)
    }
    const sums = new Map<string, { charges: number; nano: number }>()
    for (const [, { accountId, chargedNano }] of derived) {
      const { charges, nano } = sums.get(accountId) ?? { charges: 0, nano: 0 }
      sums.set(accountId, { charges: charges + 1, nano: nano + chargedNano })
    }
    const { data } = await call<{ data: { accountId: string; charges: number; chargedNano: number }[] }>(
      ...(['GET', `/evidence/charged?until=${until}`] as const),
    )
    const ledger = new Map(data.map((row) => [row.accountId, `${row.charges} charges, ${row.chargedNano}`]))
    for (const account of new Set([...sums.keys(), ...ledger.keys()])) {
      const { charges, nano } = sums.get(account) ?? { charges: 0, nano: 0 }
      const [want, have] = [`${charges} charges, ${nano}`, ledger.get(account) ?? '0 charges, 0']
      if (want !== have) this.found('evidence and ledger differ', account, want, have, account)
    }
  }

  /** Each gives one derived line back, and all of it. */
  async refunds(call: Call, until: number): Promise<Refund[]> {
    const { data } = await call<{ data: Refund[] }>('GET', `/evidence/refunds?until=${until}`)
    for (const { requestId, accountId, refundedNano } of data) {
      const line = this.lines.get(requestId)
      const charged = line?.accountId === accountId ? String(line.chargedNano) : null
      if (charged !== String(refundedNano))
        this.found('refund is not its charge', requestId, charged, String(refundedNano), accountId)
    }
    return data
  }
}

/** Charges settled after `until` (Unix milliseconds) may be on their way and are not compared. */
export const deriveBills = async (call: Call, until: number, accountId?: string): Promise<EvidenceReport> => {
  const derivation = new Derivation()
  const { data: chains } = await call<{ data: Chain[] }>('GET', '/evidence')
  for (const chain of chains) await derivation.chain(call, chain)
  derivation.lost(until)
  await derivation.compare(call, until)
  const refunds = await derivation.refunds(call, until)
  const lines = [
    ...[...derivation.lines.values()]
      .filter((line) => line.accountId === accountId && line.settledAt <= until)
      .map(({ text }) => text),
    ...refunds.filter((refund) => refund.accountId === accountId).map(refundLine),
  ].sort()
  const { findings, segments } = derivation
  return {
    ...{
      ok: findings.length === 0,
      segments,
      bills: derivation.lines.size,
      unbilled: derivation.unbilled.size,
      findings,
    },
    ...{ lines, sha256: sha256(lines.join('\n')) },
  }
}

export interface ResealReport {
  readonly ok: boolean
  readonly segments: number
  readonly resealed: number
  /** Missing, or bearing neither the seal of today nor the one before. */
  readonly refused: number
}

/** Has every segment sealed with the secret of today, so that the one before is needed no more. */
export const resealAll = async (call: Call): Promise<ResealReport> => {
  const { data: chains } = await call<{ data: Chain[] }>('GET', '/evidence')
  const total = { segments: 0, resealed: 0, refused: 0 }
  for (const { nodeId, chain, segments } of chains) {
    for (let from = 0; from < segments; from += STRETCH) {
      const stretch = { node: nodeId, chain, from, to: Math.min(from + STRETCH, segments) }
      const { resealed, refused } = await call<Omit<ResealReport, 'ok'>>('POST', '/evidence/reseal', stretch)
      total.resealed += resealed
      total.refused += refused
    }
    total.segments += segments
  }
  return { ok: total.refused === 0, ...total }
}
