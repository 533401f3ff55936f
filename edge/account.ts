// The account's Durable Object: keys, balance, holds, settlement, idempotency. Every decision about money is one synchronous piece
// of code over its own SQLite (edge/account/), so nothing can interleave; an outbox carries usage and ledger rows to D1.
import { DurableObject } from 'cloudflare:workers'
import { apiError, fail, ok, type Result } from '../schema/errors.ts'
import type { KeyLimits } from '../schema/key_limits.ts'
import {
  CLOSED_KEPT_MS,
  IDEMPOTENCY_KEPT_MS,
  RECEIPT_WINDOW_MS,
  TOKEN_COUNT_CHARS,
  TOKEN_COUNTS_PER_MINUTE,
} from '../schema/limits.ts'
import type { SignedReceipt } from '../schema/wire.ts'
import {
  type Admission,
  type AdmissionAnswer,
  addressRefused,
  type Caller,
  type Decision,
  decide,
  expectedDemand,
  scopesOf,
  whoAndWhat,
} from './account/admit.ts'
import type { FailedAttempt, Hold } from './account/holds.ts'
import type { KeyRecord } from './account/keys.ts'
import { Bucket, Rates } from './account/rates.ts'
import { type Settlement, settleOne } from './account/settle.ts'
import { type AccountStore, accountStore } from './account/store.ts'
import type { Comparison } from './account/trails.ts'
import type { Env } from './env.ts'
import { flushOutbox } from './outbox.ts'
import { type PriceList, pricesFor } from './prices.ts'
import { inTurns } from './turns.ts'

/** Rows that settle together share a batch; the object itself knows them at once. */
const FLUSH_DELAY_MS = 200
/** Under load a batch a second. */
const FLUSH_SPACING_MS = 1_000
const FLUSH_RETRY_MS = 2_000
/** A prompt's trail is kept so long at most; the next alarm after that removes it. */
const TRAIL_KEPT_MS = 24 * 3_600_000
/** What is to be forgotten goes together, not row by row. */
const FORGET_SPACING_MS = 3_600_000
/** A receipt trails its answer by a node's spacing of segments (250 ms) and a call: so long a request waits for the room that it is about to leave. */
const ROOM_WAIT_MS = 600

export interface Balance {
  readonly balanceNano: number
  readonly heldNano: number
}

/** The object's own view of its money, for the audit. */
export interface Books extends Balance {
  readonly lastSeq: number
  /** Ledger rows that have not reached D1, and their sum. */
  readonly waiting: number
  readonly waitingNano: number
  readonly activeKeys: readonly string[]
}

export class AccountObject extends DurableObject<Env> {
  readonly #store: AccountStore
  readonly #rates = new Rates()
  readonly #counts = new Bucket(TOKEN_COUNTS_PER_MINUTE, Date.now())
  /** Requests that wait for a hold to close. */
  readonly #waiting = new Set<() => void>()
  #prices: PriceList | undefined
  /** When the outbox was last carried to D1; an object that was evicted has no load. */
  #flushedAt = Number.NEGATIVE_INFINITY

  /** What the alarm is set to, `null` for not; unknown until the first wish. */
  #alarmAt: number | null | undefined

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env)
    this.#store = accountStore(ctx.storage)
  }

  /** Names the object; the admin API calls it once an account. */
  open(accountId: string): void {
    this.#store.setAccountId(accountId)
  }

  putKey(key: KeyRecord): void {
    this.#store.putKey(key)
  }

  expireKey(id: string, at: number): void {
    this.#store.expireKey(id, at)
  }

  revokeKey(id: string, hash: string): void {
    this.#store.revokeKey(id, hash)
  }

  /** Limits of a family of keys, or of the whole account. */
  setLimits(limits: KeyLimits, family: string | null): void {
    if (family === null) this.#store.setAccountLimits(limits)
    else this.#store.setFamilyLimits(family, limits)
  }

  /** The key's family when it is active now and may be used from `ip`. */
  activeKey(hash: string, ip: string | null): Result<{ family: string; models: readonly string[] | null }> {
    const key = this.#store.activeKey(hash, Date.now())
    if (!key) return { ok: false, error: apiError('invalid_api_key') }
    const error = addressRefused([key.limits, this.#store.accountLimits()], ip)
    return error ? { ok: false, error } : { ok: true, value: { family: key.family, models: key.limits.models ?? null } }
  }

  /** Holds the worst case, or says why not. */
  async admit(a: Admission): Promise<AdmissionAnswer> {
    this.#prices = await pricesFor(this.env.DB, this.#prices, a.model)
    const prices = this.#prices
    const attempt = (): Decision =>
      this.#store.transaction(() => decide(this.#store, this.#rates, prices, a, Date.now()))
    const deadline = Date.now() + ROOM_WAIT_MS
    let { wait, ...answer } = attempt()
    while (wait && Date.now() < deadline) {
      await this.#holdCloses(deadline - Date.now())
      ;({ wait, ...answer } = attempt())
    }
    if (answer.kind === 'admitted') await this.#wakeAt(Date.now() + RECEIPT_WINDOW_MS)
    return answer
  }

  /** Whether this caller may have tokens counted now: free, so an account's calls are limited by their size, whatever its own limits. */
  async admitCount(caller: Caller, chars = 0): Promise<Result<null>> {
    this.#prices = await pricesFor(this.env.DB, this.#prices, caller.model)
    const now = Date.now()
    const known = whoAndWhat(this.#store, this.#prices, caller, now)
    if ('code' in known) return { ok: false, error: known }
    const drawn = Math.max(1, Math.ceil(chars / TOKEN_COUNT_CHARS))
    const wait = this.#counts.waitFor(drawn, now)
    if (wait > 0) return fail('rate_limit_exceeded', { retryAfterSeconds: Math.ceil(wait / 1000) })
    this.#counts.take(drawn, now)
    return ok(null)
  }

  /** A retry goes to another node: receipts of earlier attempts count for nothing from now on. */
  setAttempt(requestId: string, nodeId: string, failed: FailedAttempt, overlapTokens: number): void {
    this.#store.setAttempt(requestId, failed.attempt + 1, nodeId, failed)
    this.#store.setOverlap(requestId, overlapTokens)
  }

  /** So many prompt tokens are known to lie on another node than the one that is asked. */
  setOverlap(requestId: string, tokens: number): void {
    this.#store.setOverlap(requestId, tokens)
  }

  /** The edge answered an error itself, before any token: nothing is charged, whatever a receipt may say. */
  async release(requestId: string): Promise<void> {
    const hold = this.#store.hold(requestId)
    this.#store.transaction(() => {
      // The receipt was faster than the break: what it charged goes back.
      if (hold?.state === 'settled') this.#store.refund(hold, Date.now())
      else if (hold) this.#store.closeHold(hold, 'void', Date.now())
      this.#store.freeClaim(requestId)
    })
    if (hold?.state === 'settled') return this.#flushSoon()
    if (hold?.state === 'open') this.#giveBack([hold])
  }

  /** The idempotency key of a request may be used again, whatever becomes of its hold. */
  freeClaim(requestId: string): void {
    this.#store.transaction(() => this.#store.freeClaim(requestId))
  }

  /** Of the limits of a minute, what runs drew that no longer hold anything; and room for others. */
  #giveBack(holds: readonly Hold[]): void {
    for (const hold of holds) {
      const { tokens } = expectedDemand(hold)
      const scopes = scopesOf(this.#store, { family: hold.family, limits: this.#store.familyLimits(hold.family) })
      this.#rates.take(scopes, { requests: 0, tokens: -tokens, 'cached-tokens': 0 }, Date.now())
    }
    if (holds.length > 0) this.#wakeWaiting()
  }

  /** Keeps the answer of a request with an idempotency key; without a body it can never be replayed. */
  keepOutcome(requestId: string, contentType: string, body?: Uint8Array): void {
    this.#store.transaction(() => this.#store.keepOutcome(requestId, contentType, body))
  }

  /** Applies verified receipts, each at most once. */
  async settle(receipts: readonly SignedReceipt[]): Promise<Settlement[]> {
    const now = Date.now()
    const answers = await inTurns(receipts, (signed) =>
      this.#store.transaction(() => settleOne(this.#store, this.#rates, signed, now)),
    )
    if (answers.some((answer) => answer.state === 'settled')) {
      this.#wakeWaiting()
      await this.#flushSoon()
    }
    return answers
  }

  /** Adds credit once for each id; the same id with another amount is refused, and so is a balance that no number holds exactly. */
  async topUp(id: string, amountNano: number): Promise<Balance | 'conflict' | 'too_much'> {
    const before = this.#store.topUpAmount(id)
    if (before !== undefined && before !== amountNano) return 'conflict'
    if (before === undefined) {
      if (!Number.isSafeInteger(this.#store.balance() + amountNano)) return 'too_much'
      this.#store.transaction(() => this.#store.addTopUp(id, amountNano, Date.now()))
      await this.#flushSoon()
    }
    return this.balance()
  }

  balance(): Balance {
    return { balanceNano: this.#store.balance(), heldNano: this.#store.openHolds().heldNano }
  }

  /** A request of late, whatever became of it. */
  holdOf(requestId: string): Hold | undefined {
    return this.#store.hold(requestId)
  }

  /** Where the prompt of a request of these keys left the path of the most similar one before it. */
  compareTrail(requestId: string, family: string): Comparison | undefined {
    return this.#store.hold(requestId)?.family === family ? this.#store.compareTrail(requestId) : undefined
  }

  /** True while the charge of this request is on its way to D1. */
  isWaiting(requestId: string): boolean {
    return this.#store.isWaiting(requestId)
  }

  books(): Books {
    // As the rows say.
    this.#store.recountHolds()
    const waiting = this.#store.outbox(Number.MAX_SAFE_INTEGER).map(({ ledger }) => ledger.amountNano)
    return {
      ...this.balance(),
      lastSeq: this.#store.lastSeq(),
      waiting: waiting.length,
      waitingNano: waiting.reduce((sum, nano) => sum + nano, 0),
      activeKeys: this.#store.activeKeyIds(Date.now()),
    }
  }

  override async alarm(): Promise<void> {
    const now = Date.now()
    this.#alarmAt = null
    this.#giveBack(this.#store.expireHolds(now))
    this.#store.forgetClosed(now - CLOSED_KEPT_MS)
    this.#store.forgetTrails(now - TRAIL_KEPT_MS)
    this.#store.forgetOutcomes(now - IDEMPOTENCY_KEPT_MS)
    this.#flushedAt = now
    if (!(await flushOutbox(this.env.DB, this.#store))) return this.#wakeAt(Date.now() + FLUSH_RETRY_MS)
    await this.#wakeForRest()
  }

  /** The next time that something is let go or forgotten, also by an account that nobody uses any more. */
  async #wakeForRest(): Promise<void> {
    const store = this.#store
    const after = (time: number | undefined, ms: number): number =>
      time === undefined ? Number.POSITIVE_INFINITY : time + ms
    const forgets = Math.min(
      after(store.oldestOutcome(), IDEMPOTENCY_KEPT_MS),
      after(store.oldestTrail(), TRAIL_KEPT_MS),
      after(store.oldestClosed(), CLOSED_KEPT_MS),
    )
    const next = Math.min(after(store.nextExpiry(), 0), Math.max(forgets, Date.now() + FORGET_SPACING_MS))
    if (next < Number.POSITIVE_INFINITY) await this.#wakeAt(next)
  }

  /** Resolves when a hold closes, or after `ms`. */
  #holdCloses(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer)
        this.#waiting.delete(done)
        resolve()
      }
      const timer = setTimeout(done, ms)
      this.#waiting.add(done)
    })
  }

  #wakeWaiting(): void {
    for (const wake of [...this.#waiting]) wake()
  }

  #flushSoon(): Promise<void> {
    return this.#wakeAt(Math.max(Date.now() + FLUSH_DELAY_MS, this.#flushedAt + FLUSH_SPACING_MS))
  }

  /** Keeps the earliest wish. */
  async #wakeAt(time: number): Promise<void> {
    if (this.#alarmAt === undefined) {
      const set = await this.ctx.storage.getAlarm()
      if (this.#alarmAt === undefined) this.#alarmAt = set
    }
    if (this.#alarmAt !== null && this.#alarmAt <= time) return
    this.#alarmAt = time
    await this.ctx.storage.setAlarm(time)
  }
}
