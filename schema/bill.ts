// One line of a bill, derived from a node's receipt and the terms under which it was settled: the same bytes whoever derives it, the
// edge from its usage rows or anybody from the sealed segments (scripts/admin_evidence.ts).
import { costOf, type Price } from './money.ts'
import type { Receipt } from './wire.ts'

/** What the account's object decided about a receipt it took. */
export interface Terms {
  readonly requestId: string
  readonly attempt: number
  readonly price: Price & { readonly from: number }
  readonly credits: readonly { readonly reason: string; readonly nano: number; readonly tokens?: number | undefined }[]
  readonly chargedNano: number
  /** Unix milliseconds. */
  readonly settledAt: number
}

/** A receipt that was taken and costs nothing: its attempt was given up, or its request answered with an error; or one that was refused. */
export interface Unbilled {
  readonly requestId: string
  readonly attempt: number
  /** Of a refusal. */
  readonly reason?: string
}

export type BilledTokens = Pick<
  Receipt,
  'accountId' | 'keyId' | 'nodeId' | 'epoch' | 'seq' | 'model' | 'hitTokens' | 'missTokens' | 'outputTokens'
>

export const billLine = (r: BilledTokens, t: Terms): string =>
  JSON.stringify([
    ...[t.settledAt, t.requestId, t.attempt, r.accountId, r.keyId, r.model, r.nodeId, r.epoch, r.seq],
    ...[r.hitTokens, r.missTokens, r.outputTokens, t.price.from, t.price.hit, t.price.miss, t.price.output],
    t.credits.map(({ reason, nano, tokens }) => (tokens === undefined ? [reason, nano] : [reason, nano, tokens])),
    t.chargedNano,
  ])

/** What gives a line's charge back: an answer that broke behind its receipt. Like a line it begins with its time and ends with its sum. */
export interface Refund {
  readonly accountId: string
  readonly requestId: string
  readonly refundedNano: number
  /** Unix milliseconds. */
  readonly at: number
}

export const refundLine = ({ accountId, requestId, refundedNano, at }: Refund): string =>
  JSON.stringify([at, requestId, 'refund', accountId, -refundedNano])

/** Usage x price - credits: what the line must charge. */
export const chargeOf = (r: BilledTokens, t: Terms): number =>
  t.credits.reduce(
    (left, { nano }) => left - nano,
    costOf({ hit: r.hitTokens, miss: r.missTokens, output: r.outputTokens }, t.price),
  )
