// Admission: one synchronous decision over the account's tables. It holds the worst case, claims the idempotency key and draws the
// rates, or says why not; nothing between the first read and the last write can interleave.
import { type ApiError, apiError } from '../../schema/errors.ts'
import { ipInRanges } from '../../schema/ip.ts'
import { BYTES_PER_TOKEN } from '../../schema/limits.ts'
import { holdOf } from '../../schema/money.ts'
import type { PriceList } from '../prices.ts'
import type { Trail } from '../trail.ts'
import type { PriceInForce } from './holds.ts'
import type { ActiveKey } from './keys.ts'
import { nextMonth } from './money.ts'
import type { ClaimName, StoredOutcome } from './outcomes.ts'
import type { Demand, RateState, Rates, Scopes } from './rates.ts'
import type { AccountStore } from './store.ts'

/** Runs of one account that may be held at once, where its limits say nothing smaller. */
const CONCURRENT_RUNS_MAX = 256
/** An SDK gives up its retries well within this time. */
const RETRY_MEMORY_MS = 10 * 60_000
/** More than SDKs make of one request; whoever sends the header with all of its requests pays for them by so many. */
const RETRIES_MAX = 10

export interface Admission {
  readonly requestId: string
  readonly keyHash: string
  readonly model: string
  /** The name that the client gave, where it stands for the model. */
  readonly alias?: string
  readonly promptBytes: number
  readonly maxTokens: number
  /** The client's address, as far as it is known. */
  readonly ip: string | null
  /** Hash of endpoint and body; known where the client may repeat the request. */
  readonly fingerprint: string | null
  /** Hash of the client's `Idempotency-Key`. */
  readonly idempotencyKey: string | null
  /** The same hashed with the secret that was replaced. */
  readonly formerIdempotencyKey?: string
  /** What a later prompt is compared with (edge/trail.ts). */
  readonly trail: Trail | null
  /** True when the client's library says that it sends this again. */
  readonly isRetry: boolean
}

export type Caller = Pick<Admission, 'keyHash' | 'ip' | 'model' | 'alias'>

export type AdmissionAnswer =
  | { readonly kind: 'admitted'; readonly keyId: string; readonly rates: readonly RateState[] }
  | { readonly kind: 'replay'; readonly outcome: StoredOutcome; readonly rates: readonly RateState[] }
  | { readonly kind: 'refused'; readonly error: ApiError; readonly rates: readonly RateState[] }

/** `wait`: refused only because of runs that are about to end. */
export type Decision = AdmissionAnswer & { readonly wait?: true }

/** What a run is expected to draw; settled against what it really used (settle.ts). */
export const expectedDemand = (run: { promptBytes: number; maxTokens: number }): Demand => ({
  requests: 1,
  tokens: Math.ceil(run.promptBytes / BYTES_PER_TOKEN) + run.maxTokens,
  'cached-tokens': 0,
})

export const scopesOf = (store: AccountStore, key: Pick<ActiveKey, 'family' | 'limits'>): Scopes => [
  [key.family, key.limits],
  ['', store.accountLimits()],
]

const seconds = (ms: number): number => Math.max(1, Math.ceil(ms / 1000))

const refused = (error: ApiError, rates: readonly RateState[] = []): Decision => ({ kind: 'refused', error, rates })

/** Whether the key may be used from `ip`; the address that is refused is not told. */
export const addressRefused = (limits: readonly KeyRanges[], ip: string | null): ApiError | undefined =>
  limits.some(({ ipRanges }) => ipRanges && !ipInRanges(ip ?? '', ipRanges))
    ? apiError('permission_denied', { message: 'This key may not be used from this address.' })
    : undefined
type KeyRanges = { readonly ipRanges?: readonly string[] | undefined }

/** Key, address and model: what does not depend on anything that runs. */
export const whoAndWhat = (
  store: AccountStore,
  prices: PriceList,
  a: Caller,
  now: number,
): { key: ActiveKey; price: PriceInForce } | ApiError => {
  const key = store.activeKey(a.keyHash, now)
  if (!key) return apiError('invalid_api_key', { message: 'This API key is revoked or expired.' })
  const limits = [key.limits, store.accountLimits()]
  const address = addressRefused(limits, a.ip)
  if (address) return address
  const price = prices.current(a.model, now)
  if (!price) return apiError('model_not_found', { message: `There is no model "${a.model}".`, param: 'model' })
  const names = [a.model, ...(a.alias === undefined ? [] : [a.alias])]
  if (limits.some(({ models }) => models && !names.some((name) => models.includes(name)))) {
    return apiError('permission_denied', { message: `This key may not use the model "${a.model}".`, param: 'model' })
  }
  return { key, price }
}

/** Concurrency, budget and balance, for the key's family and for the account. Open holds count as if spent. */
const roomFor = (store: AccountStore, key: ActiveKey, amount: number, now: number): Decision | undefined => {
  const open = store.openHolds()
  const scopes = [
    { limits: key.limits, family: key.family, held: store.openHolds(key.family) },
    { limits: store.accountLimits(), family: undefined, held: open },
  ]
  for (const { limits, family, held } of scopes) {
    const { count, heldNano } = held
    const most = limits.concurrency ?? CONCURRENT_RUNS_MAX
    if (count >= most) {
      const message = `At most ${most} requests may run at once under this ${family === undefined ? 'account' : 'key'}.`
      return { ...refused(apiError('rate_limit_exceeded', { message, retryAfterSeconds: 1 })), wait: true }
    }
    if (limits.monthlyBudgetNano === undefined) continue
    const spent = store.spent(now, family)
    if (spent + heldNano + amount <= limits.monthlyBudgetNano) continue
    const retryAfterSeconds = seconds(nextMonth(now) - now)
    const no = refused(apiError('insufficient_quota', { retryAfterSeconds }))
    return spent + amount <= limits.monthlyBudgetNano ? { ...no, wait: true } : no
  }
  const balance = store.balance()
  if (balance - open.heldNano >= amount) return undefined
  const no = refused(apiError('insufficient_balance'))
  return balance >= amount ? { ...no, wait: true } : no
}

const claimName = ({ idempotencyKey, formerIdempotencyKey }: Admission): ClaimName | undefined =>
  idempotencyKey === null ? undefined : { idempotencyKey, formerIdempotencyKey }

/** What the key's earlier use means for this one; `undefined` when it is new. */
const earlier = (store: AccountStore, family: string, a: Admission, now: number): Decision | undefined => {
  const name = claimName(a)
  if (!name) return undefined
  const claim = store.claim(family, name, now)
  if (!claim) return store.claimsFull() ? refused(apiError('rate_limit_exceeded', CLAIMS_FULL)) : undefined
  if (claim.fingerprint !== a.fingerprint) return refused(apiError('idempotency_mismatch'))
  if (claim.state === 'running') return refused(apiError('idempotency_in_progress', { retryAfterSeconds: 1 }))
  const outcome = claim.state === 'done' ? store.outcome(claim.requestId) : undefined
  if (!outcome) {
    const message = `The outcome of request ${claim.requestId} is not kept. It is not run, nor charged, again; send a new key to do so.`
    return refused(apiError('idempotency_lost', { message }))
  }
  return { kind: 'replay', outcome, rates: [] }
}
const CLAIMS_FULL = { message: 'Too many idempotency keys of this account are remembered.', retryAfterSeconds: 3600 }

export const decide = (store: AccountStore, rates: Rates, prices: PriceList, a: Admission, now: number): Decision => {
  const who = whoAndWhat(store, prices, a, now)
  if ('code' in who) return refused(who)
  const { key, price } = who
  const scopes = scopesOf(store, key)
  const before = earlier(store, key.family, a, now)
  if (before) return { ...before, rates: rates.states(scopes, now) }
  const demand = expectedDemand(a)
  const wait = rates.waitFor(scopes, { ...demand, 'cached-tokens': 1 }, now)
  if (wait > 0) {
    const message = 'This key or account has reached its limit for a minute.'
    return refused(
      apiError('rate_limit_exceeded', { message, retryAfterSeconds: seconds(wait) }),
      rates.states(scopes, now),
    )
  }
  const amountNano = holdOf(a.promptBytes, a.maxTokens, price)
  const room = roomFor(store, key, amountNano, now)
  if (room) return { ...room, rates: rates.states(scopes, now) }
  rates.take(scopes, demand, now)
  const { requestId, model, promptBytes, maxTokens, fingerprint } = a
  const first =
    a.isRetry && fingerprint !== null ? store.firstWithBody(key.family, fingerprint, now - RETRY_MEMORY_MS) : undefined
  const retryOf = first !== undefined && store.retriesOf(first) < RETRIES_MAX ? first : null
  store.addHold({
    ...{ requestId, keyId: key.id, family: key.family, model, amountNano, promptBytes, maxTokens, price },
    ...{ createdAt: now, fingerprint, retryOf },
  })
  if (a.trail) store.addTrail(requestId, key.family, a.trail, now)
  const name = claimName(a)
  if (name) store.addClaim(key.family, name, fingerprint ?? '', requestId, now)
  return { kind: 'admitted', keyId: key.id, rates: rates.states(scopes, now) }
}
