// Requests and tokens a minute, as buckets that refill steadily. They live in memory: an object that was evicted starts with full
// ones, which costs a burst of one minute and no money. Money, budgets and concurrency are counted from the tables.
import type { KeyLimits } from '../../schema/key_limits.ts'
import { RATE_KINDS } from '../../schema/openapi/headers.ts'

const MINUTE_MS = 60_000

export type RateKind = (typeof RATE_KINDS)[number]

const LIMIT_OF: Readonly<Record<RateKind, keyof KeyLimits & `${string}PerMinute`>> = {
  requests: 'requestsPerMinute',
  tokens: 'uncachedTokensPerMinute',
  'cached-tokens': 'cachedTokensPerMinute',
}

/** Fills at `limit` a minute up to `limit`; may be drawn below zero, since what a run used is known only afterwards. */
export class Bucket {
  readonly limit: number
  #level: number
  #at: number

  constructor(limit: number, now: number) {
    this.limit = limit
    this.#level = limit
    this.#at = now
  }

  level(now: number): number {
    const passed = Math.max(0, now - this.#at)
    this.#level = Math.min(this.limit, this.#level + (passed * this.limit) / MINUTE_MS)
    this.#at = Math.max(now, this.#at)
    return this.#level
  }

  /** Milliseconds until `amount` is there; a demand above the limit waits for a full bucket. */
  waitFor(amount: number, now: number): number {
    const missing = Math.min(amount, this.limit) - this.level(now)
    return missing <= 0 ? 0 : Math.ceil((missing * MINUTE_MS) / this.limit)
  }

  take(amount: number, now: number): void {
    this.#level = this.level(now) - amount
  }
}

export interface RateState {
  readonly kind: RateKind
  readonly limit: number
  readonly remaining: number
  /** Milliseconds until the bucket is full again. */
  readonly resetMs: number
}

export type Demand = Readonly<Record<RateKind, number>>

/** The buckets of an account: one of each kind for a family of keys (by its name) and for the account (`''`). */
export class Rates {
  readonly #buckets = new Map<string, Bucket>()

  #bucket(scope: string, kind: RateKind, limits: KeyLimits, now: number): Bucket | undefined {
    const limit = limits[LIMIT_OF[kind]]
    if (limit === undefined) return undefined
    const name = `${kind} ${scope}`
    const known = this.#buckets.get(name)
    if (known?.limit === limit) return known
    const fresh = new Bucket(limit, now)
    this.#buckets.set(name, fresh)
    return fresh
  }

  /** Milliseconds until everything in `demand` is there, 0 when it is now. */
  waitFor(scopes: Scopes, demand: Demand, now: number): number {
    const waits = this.#each(scopes, now, (bucket, kind) => bucket.waitFor(demand[kind], now))
    return Math.max(0, ...waits)
  }

  /** Draws `demand`; negative amounts give back. */
  take(scopes: Scopes, demand: Demand, now: number): void {
    this.#each(scopes, now, (bucket, kind) => bucket.take(demand[kind], now))
  }

  /** For the headers: of each kind that is limited, the bucket with the least left. */
  states(scopes: Scopes, now: number): RateState[] {
    return RATE_KINDS.flatMap((kind) => {
      const found = scopes
        .map(([scope, limits]) => this.#bucket(scope, kind, limits, now))
        .filter((bucket) => bucket !== undefined)
        .sort((a, b) => a.level(now) - b.level(now))[0]
      if (!found) return []
      const remaining = Math.max(0, Math.floor(found.level(now)))
      return [{ kind, limit: found.limit, remaining, resetMs: found.waitFor(found.limit, now) }]
    })
  }

  #each<T>(scopes: Scopes, now: number, work: (bucket: Bucket, kind: RateKind) => T): T[] {
    return scopes.flatMap(([scope, limits]) =>
      RATE_KINDS.flatMap((kind) => {
        const bucket = this.#bucket(scope, kind, limits, now)
        return bucket ? [work(bucket, kind)] : []
      }),
    )
  }
}

export type Scopes = readonly (readonly [scope: string, limits: KeyLimits])[]
