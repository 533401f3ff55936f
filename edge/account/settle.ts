// Settlement of one verified receipt: at most once a request, never more than was held, exactly usage x price less the credits.
import { chargeOf, type Terms } from '../../schema/bill.ts'
import { KV_PAGE_TOKENS } from '../../schema/limits.ts'
import { costOf, type TokenCounts } from '../../schema/money.ts'
import type { Receipt, SignedReceipt } from '../../schema/wire.ts'
import { expectedDemand, scopesOf } from './admit.ts'
import type { Hold } from './holds.ts'
import type { Credit } from './money.ts'
import type { Rates } from './rates.ts'
import type { AccountStore } from './store.ts'

export type Settlement =
  | { readonly state: 'settled'; readonly chargedNano: number; readonly terms: Terms }
  /** With `terms` when it was settled before. */
  | { readonly state: 'ignored'; readonly terms?: Terms }
  | { readonly state: 'refused'; readonly reason: string }

/** Why the receipt cannot be about this hold, or `undefined`: a node that says so is wrong in everything it says. */
const liesAbout = (hold: Hold, r: Receipt): string | undefined => {
  if (hold.keyId !== r.keyId || hold.model !== r.model) return 'key or model differs from the admitted request'
  // A retry of a request that was settled meanwhile is not on record; its receipt counts for nothing.
  const isOver = hold.state === 'settled' || hold.state === 'void'
  if (r.attempt > hold.attempt && !isOver) return 'there was no such attempt'
  if (r.attempt === hold.attempt && hold.nodeId !== null && hold.nodeId !== r.nodeId) return 'another node was asked'
  if (r.hitTokens + r.missTokens > hold.promptBytes) return 'it counts more prompt tokens than the prompt has bytes'
  const cost = costOf({ hit: r.hitTokens, miss: r.missTokens, output: r.outputTokens }, hold.price)
  if (cost > hold.amountNano) return 'it claims more than was held'
  if (r.outputTokens > hold.maxTokens) return 'it counts more output tokens than were asked for'
  return undefined
}

/** An open hold covers its request. Of a late receipt, what balance and budgets no longer have is not charged. */
const lateCredit = (store: AccountStore, hold: Hold, cost: number, now: number): number => {
  if (hold.state === 'open') return 0
  const budget = (limit: number | undefined, family?: string): number =>
    limit === undefined ? Number.MAX_SAFE_INTEGER : limit - store.spent(now, family) - store.openHolds(family).heldNano
  const left = Math.min(
    store.balance() - store.openHolds().heldNano,
    budget(store.accountLimits().monthlyBudgetNano),
    budget(store.familyLimits(hold.family).monthlyBudgetNano, hold.family),
  )
  return Math.max(0, cost - Math.max(0, left))
}

/** A request that an SDK sent again costs, over all its repetitions, what the dearest of them costs. */
const retryCredit = (store: AccountStore, hold: Hold, cost: number): number => {
  const group = hold.retryOf ?? (store.hasRetries(hold.requestId) ? hold.requestId : undefined)
  return group === undefined ? 0 : Math.min(cost, store.chargedOfGroup(group))
}

/**
 * What another node held, in whole pages, is billed as cached: where a run goes is our choice, not the customer's. Of several prompts the
 * edge knows only of the first who holds it, and what the others found cached says nothing about that one.
 */
const affinityCredit = (store: AccountStore, hold: Hold, { hit, miss }: Pick<TokenCounts, 'hit' | 'miss'>): Credit => {
  const wanted = [store.accountLimits(), store.familyLimits(hold.family)].every((l) => l.affinityCredit !== false)
  const whole = Math.max(0, Math.floor(Math.min(hold.overlapTokens, hit + miss - 1) / KV_PAGE_TOKENS) * KV_PAGE_TOKENS)
  const tokens = wanted ? Math.max(0, whole - hit) : 0
  return { reason: 'affinity', nano: tokens * Math.max(0, hold.price.miss - hold.price.hit), tokens }
}

const creditsOf = (store: AccountStore, hold: Hold, receipt: Receipt, cost: number, now: number): Credit[] => {
  const { hitTokens: hit, missTokens: miss, firstPrompt } = receipt
  const affinity = affinityCredit(store, hold, firstPrompt ?? { hit, miss })
  const retry = retryCredit(store, hold, cost - affinity.nano)
  const late = lateCredit(store, hold, cost - affinity.nano - retry, now)
  const credits: Credit[] = [affinity, { reason: 'retry', nano: retry }, { reason: 'late_receipt', nano: late }]
  return credits.filter(({ nano }) => nano > 0)
}

/** The terms of a receipt that comes again; none for one that says something else than the one that was settled. */
const settledTerms = (hold: Hold, receipt: Receipt): { terms?: Terms } => {
  const { requestId, attempt, price, credits, chargedNano, closedAt } = hold
  const terms = { requestId, attempt, price, credits, chargedNano, settledAt: closedAt ?? 0 }
  return receipt.attempt === attempt && chargeOf(receipt, terms) === chargedNano ? { terms } : {}
}

/** Must run in a transaction: the hold closes and the charge is posted together. */
export const settleOne = (
  store: AccountStore,
  rates: Rates,
  { receipt, signature }: SignedReceipt,
  now: number,
): Settlement => {
  const hold = store.hold(receipt.requestId)
  if (!hold) return { state: 'refused', reason: 'no such request was admitted' }
  const lie = liesAbout(hold, receipt)
  if (lie) return { state: 'refused', reason: lie }
  if (hold.state === 'settled') return { state: 'ignored', ...settledTerms(hold, receipt) }
  if (hold.state === 'void' || receipt.attempt < hold.attempt) return { state: 'ignored' }
  const tokens = { hit: receipt.hitTokens, miss: receipt.missTokens, output: receipt.outputTokens }
  // A node that failed before it answered says so with zeros and no first token; the edge may be trying another one right now.
  const isNothing = tokens.hit + tokens.miss + tokens.output === 0
  if (receipt.finish === 'error' && isNothing) {
    if (receipt.firstTokenAt === null) return { state: 'ignored' }
    // What broke off behind its head and costs nothing is not what a repetition wants to see.
    store.freeClaim(hold.requestId)
  }
  // Nor is the error frame of a deadline that passed in prefill.
  if (receipt.finish === 'cancelled' && tokens.output === 0) store.freeClaim(hold.requestId)
  const cost = costOf(tokens, hold.price)
  const credits = creditsOf(store, hold, receipt, cost, now)
  const chargedNano = credits.reduce((left, { nano }) => left - nano, cost)
  store.closeHold(hold, 'settled', now, chargedNano, credits)
  store.addCharge(
    {
      ...{ receipt, signature, credits, chargedNano, now, price: hold.price, holdNano: hold.amountNano },
      ...{ admittedAt: hold.createdAt, attempts: hold.attempts, retryOf: hold.retryOf },
    },
    hold.family,
  )
  // A hold that expired gave back what it had drawn.
  const drawn = hold.state === 'open' ? expectedDemand(hold).tokens : 0
  const used = { requests: 0, tokens: tokens.miss + tokens.output - drawn, 'cached-tokens': tokens.hit }
  rates.take(scopesOf(store, { family: hold.family, limits: store.familyLimits(hold.family) }), used, now)
  const terms = {
    requestId: hold.requestId,
    attempt: hold.attempt,
    price: hold.price,
    credits,
    chargedNano,
    settledAt: now,
  }
  return { state: 'settled', chargedNano, terms }
}
