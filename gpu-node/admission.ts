// Who may use the engine now: a bounded queue, and a door that closes when the node drains.
import { type ApiError, apiError, ok, type Result } from '../schema/errors.ts'

/** One admitted run's place. */
export interface Place {
  /** The engine took the run from its queue. */
  started(): void
  /** Exactly one call counts. */
  leave(): void
}

export class Admission {
  readonly #queueMax: number
  #waiting = 0
  #running = 0
  #draining = false
  #idle: (() => void)[] = []

  constructor(queueMax: number) {
    this.#queueMax = queueMax
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

  /** A place in the queue. Errors: node_draining; no_node when the queue is full. */
  enter(): Result<Place, ApiError> {
    if (this.#draining) return { ok: false, error: apiError('node_draining', { retryAfterSeconds: 1 }) }
    if (this.#waiting >= this.#queueMax) {
      const message = `The queue is full: ${this.#waiting} requests wait already. Retry after a moment.`
      return { ok: false, error: apiError('no_node', { message, retryAfterSeconds: 2 }) }
    }
    this.#waiting++
    let state: 'waiting' | 'running' | 'gone' = 'waiting'
    return ok({
      started: () => {
        if (state !== 'waiting') return
        state = 'running'
        this.#waiting--
        this.#running++
      },
      leave: () => {
        if (state === 'waiting') this.#waiting--
        if (state === 'running') this.#running--
        state = 'gone'
        if (this.#waiting + this.#running === 0) for (const resolve of this.#idle.splice(0)) resolve()
      },
    })
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
