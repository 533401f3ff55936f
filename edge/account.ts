// The account's Durable Object: keys, balance, holds, settlement. Every money decision is one synchronous piece of code over
// its own SQLite, so nothing can interleave; an outbox carries usage and ledger rows to D1.
import { DurableObject } from 'cloudflare:workers'
import { type ApiError, apiError } from '../schema/errors.ts'
import { RECEIPT_WINDOW_MS } from '../schema/limits.ts'
import { costOf, holdOf } from '../schema/money.ts'
import type { SignedReceipt } from '../schema/wire.ts'
import { type AccountStore, accountStore, type Hold } from './account_store.ts'
import type { Env } from './env.ts'
import { flushOutbox } from './outbox.ts'
import { type PriceList, pricesFor } from './prices.ts'

/** Runs of one account that may be held at once. */
const CONCURRENT_RUNS_MAX = 256
const FLUSH_DELAY_MS = 20
const FLUSH_RETRY_MS = 2_000
/** Closed holds are kept this long to recognise a receipt that comes again. */
const CLOSED_KEPT_MS = 7 * 24 * 3_600_000

export interface Admission {
  readonly requestId: string
  readonly keyHash: string
  readonly model: string
  readonly promptBytes: number
  readonly maxTokens: number
}

export type AdmissionAnswer =
  | { readonly ok: true; readonly keyId: string }
  | { readonly ok: false; readonly error: ApiError }

export type Settlement =
  | { readonly state: 'settled'; readonly chargedNano: number }
  | { readonly state: 'ignored' }
  | { readonly state: 'refused'; readonly reason: string }

export interface Balance {
  readonly balanceNano: number
  readonly heldNano: number
}

export class AccountObject extends DurableObject<Env> {
  readonly #store: AccountStore
  #prices: PriceList | undefined

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env)
    this.#store = accountStore(ctx.storage.sql)
  }

  /** Names the object; the admin API calls it once an account. */
  open(accountId: string): void {
    this.#store.setAccountId(accountId)
  }

  putKey(id: string, hash: string, expiresAt: number | null): void {
    this.#store.putKey(id, hash, expiresAt)
  }

  revokeKey(id: string): void {
    this.#store.revokeKey(id)
  }

  /** The key's id when it is active now. */
  activeKey(hash: string): string | undefined {
    return this.#store.activeKey(hash, Date.now())
  }

  /** Holds the worst case, or says why not. Nothing between reading the balance and writing the hold can interleave. */
  async admit(a: Admission): Promise<AdmissionAnswer> {
    this.#prices = await pricesFor(this.env.DB, this.#prices)
    const keyId = this.#store.activeKey(a.keyHash, Date.now())
    if (!keyId)
      return { ok: false, error: apiError('invalid_api_key', { message: 'This API key is revoked or expired.' }) }
    const price = this.#prices.current(a.model, Date.now())
    if (!price) {
      return {
        ok: false,
        error: apiError('model_not_found', { message: `There is no model "${a.model}".`, param: 'model' }),
      }
    }
    const { count, heldNano } = this.#store.openHolds()
    if (count >= CONCURRENT_RUNS_MAX) {
      return { ok: false, error: apiError('rate_limit_exceeded', { retryAfterSeconds: 1 }) }
    }
    const amount = holdOf(a.promptBytes, a.maxTokens, price)
    if (this.#store.balance() - heldNano < amount) return { ok: false, error: apiError('insufficient_balance') }
    this.#store.addHold({
      requestId: a.requestId,
      keyId,
      model: a.model,
      amountNano: amount,
      price,
      createdAt: Date.now(),
    })
    await this.#wakeAt(Date.now() + RECEIPT_WINDOW_MS)
    return { ok: true, keyId }
  }

  /** A retry went to another node: receipts of earlier attempts count for nothing from now on. */
  setAttempt(requestId: string, attempt: number): void {
    this.#store.setAttempt(requestId, attempt)
  }

  /** The edge answered an error itself: nothing will be charged unless a receipt says otherwise. */
  release(requestId: string): void {
    this.#store.closeHold(requestId, 'released', Date.now())
  }

  /** Applies verified receipts, each at most once. */
  async settle(receipts: readonly SignedReceipt[]): Promise<Settlement[]> {
    const answers = receipts.map((signed) => this.#settleOne(signed))
    if (answers.some((answer) => answer.state === 'settled')) await this.#wakeAt(Date.now() + FLUSH_DELAY_MS)
    return answers
  }

  #settleOne({ receipt, signature }: SignedReceipt): Settlement {
    const hold = this.#store.hold(receipt.requestId)
    if (!hold) return { state: 'refused', reason: 'no such request was admitted' }
    if (hold.keyId !== receipt.keyId || hold.model !== receipt.model) {
      return { state: 'refused', reason: 'key or model differs from the admitted request' }
    }
    if (hold.state === 'settled' || receipt.attempt < hold.attempt) return { state: 'ignored' }
    const tokens = { hit: receipt.hitTokens, miss: receipt.missTokens, output: receipt.outputTokens }
    // A node that failed before any work says so with zeros; the edge may be trying another one right now.
    if (receipt.finish === 'error' && tokens.hit + tokens.miss + tokens.output === 0) return { state: 'ignored' }
    const chargedNano = Math.min(costOf(tokens, hold.price), this.#chargeable(hold))
    const now = Date.now()
    this.ctx.storage.transactionSync(() => {
      this.#store.closeHold(receipt.requestId, 'settled', now)
      this.#store.addCharge({ receipt, signature, price: hold.price, chargedNano, now })
    })
    return { state: 'settled', chargedNano }
  }

  /** An open hold covers its request; a late receipt takes what other holds leave. */
  #chargeable(hold: Hold): number {
    if (hold.state === 'open') return hold.amountNano
    return Math.max(0, this.#store.balance() - this.#store.openHolds().heldNano)
  }

  /** Adds credit once for each id; the same id with another amount is refused. */
  async topUp(id: string, amountNano: number): Promise<Balance | 'conflict'> {
    const before = this.#store.topUpAmount(id)
    if (before !== undefined && before !== amountNano) return 'conflict'
    if (before === undefined) {
      this.ctx.storage.transactionSync(() => this.#store.addTopUp(id, amountNano, Date.now()))
      await this.#wakeAt(Date.now() + FLUSH_DELAY_MS)
    }
    return this.balance()
  }

  balance(): Balance {
    return { balanceNano: this.#store.balance(), heldNano: this.#store.openHolds().heldNano }
  }

  override async alarm(): Promise<void> {
    const now = Date.now()
    this.#store.expireHolds(now - RECEIPT_WINDOW_MS, now)
    this.#store.forgetClosed(now - CLOSED_KEPT_MS)
    const flushed = await flushOutbox(this.env.DB, this.#store)
    const next = flushed ? this.#store.oldestOpenHold() : undefined
    if (!flushed) await this.#wakeAt(Date.now() + FLUSH_RETRY_MS)
    else if (next !== undefined) await this.#wakeAt(next + RECEIPT_WINDOW_MS)
  }

  /** Keeps the earliest wish. */
  async #wakeAt(time: number): Promise<void> {
    const set = await this.ctx.storage.getAlarm()
    if (set === null || set > time) await this.ctx.storage.setAlarm(time)
  }
}
