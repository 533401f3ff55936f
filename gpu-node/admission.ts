// Who may use the engine now: a bounded queue of which an account may hold a part, and a door that closes when the node
// drains.
import { type ApiError, apiError, ok, type Result } from '../schema/errors.ts'

/** One admitted run's place. */
export interface Place {
  /** The engine took the run from its queue. */
  started(): void
  /** Exactly one call counts. */
  leave(): void
}

const RETRY_SECONDS_MAX = 60

/** How long one of the queue's places takes to become free, as the last ones did. */
class Turnover {
  readonly #now: () => number
  #seconds = 1
  #lastAt = 0
  #waited = false

  constructor(now: () => number) {
    this.#now = now
  }

  /** `wait`: others go on waiting. Only then the time until the next one says how fast a queue moves. */
  freed(wait: boolean): void {
    const now = this.#now()
    if (this.#waited) this.#seconds += 0.2 * ((now - this.#lastAt) / 1000 - this.#seconds)
    this.#lastAt = now
    this.#waited = wait
  }

  secondsFor(places: number): number {
    return Math.min(RETRY_SECONDS_MAX, Math.max(1, Math.ceil(places * this.#seconds)))
  }
}

export class Admission {
  readonly #queueMax: number
  readonly #accountMax: number
  readonly #byAccount = new Map<string, number>()
  readonly #turnover: Turnover
  #waiting = 0
  #running = 0
  #draining = false
  #closed = false
  #idle: (() => void)[] = []

  /** `share`: the part of the queue that one account may hold, over 0 to 1. `now`: milliseconds. */
  constructor(queueMax: number, share: number, now = () => performance.now()) {
    this.#turnover = new Turnover(now)
    this.#queueMax = queueMax
    this.#accountMax = Math.max(1, Math.floor(queueMax * share))
  }

  get waiting(): number {
    return this.#waiting
  }

  get running(): number {
    return this.#running
  }

  get draining(): boolean {
    return this.#draining
  }

  drain(): void {
    this.#draining = true
  }

  /** The time to drain is over: what has a place and does not run yet must not begin. */
  close(): void {
    this.#closed = true
  }

  get closed(): boolean {
    return this.#closed
  }

  /** A place in the queue. Errors: node_draining; no_node when the queue, or the account's part of it, is full. */
  enter(accountId: string): Result<Place, ApiError> {
    if (this.#draining) return { ok: false, error: apiError('node_draining', { retryAfterSeconds: 1 }) }
    const own = this.#byAccount.get(accountId) ?? 0
    if (this.#waiting >= this.#queueMax) return this.#full(this.#waiting, 'requests wait')
    if (own >= this.#accountMax) return this.#full(own, 'requests of this account wait')
    this.#wait(accountId, 1)
    let state: 'waiting' | 'running' | 'gone' = 'waiting'
    return ok({
      started: () => {
        if (state !== 'waiting') return
        state = 'running'
        this.#wait(accountId, -1)
        this.#turnover.freed(this.#waiting > 0)
        this.#running++
      },
      leave: () => {
        if (state === 'waiting') this.#wait(accountId, -1)
        if (state === 'running') this.#running--
        state = 'gone'
        if (this.#waiting + this.#running === 0) for (const resolve of this.#idle.splice(0)) resolve()
      },
    })
  }

  #full(many: number, who: string): { ok: false; error: ApiError } {
    const message = `The queue is full: ${many} ${who} already. Retry after a moment.`
    // By then those who wait now have been taken.
    const retryAfterSeconds = this.#turnover.secondsFor(many)
    return { ok: false, error: apiError('no_node', { message, retryAfterSeconds }) }
  }

  #wait(accountId: string, change: 1 | -1): void {
    this.#waiting += change
    const own = (this.#byAccount.get(accountId) ?? 0) + change
    if (own > 0) this.#byAccount.set(accountId, own)
    else this.#byAccount.delete(accountId)
  }

  /** Resolves true once nothing runs or waits, false after `deadlineMs`. */
  idle(deadlineMs: number): Promise<boolean> {
    if (this.#waiting + this.#running === 0) return Promise.resolve(true)
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), deadlineMs)
      this.#idle.push(() => {
        clearTimeout(timer)
        resolve(true)
      })
    })
  }
}
