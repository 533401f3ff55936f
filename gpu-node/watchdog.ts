// Watches that the engine's steps go on while it has work: a process that answers is no proof that its engine computes.
import type { Engine } from './engine/engine.ts'
import { log } from './log.ts'

const SAMPLE_MS = 1000

export class Watchdog {
  readonly #engine: Pick<Engine, 'stats'>
  readonly #stuckMs: number
  readonly #timer: NodeJS.Timeout
  #steps = -1
  /** When the engine last made a step or had nothing to do; `performance.now()`. */
  #movedAt = performance.now()
  #saidSo = false

  constructor(engine: Pick<Engine, 'stats'>, stuckMs: number) {
    this.#engine = engine
    this.#stuckMs = stuckMs
    this.#timer = setInterval(() => this.#sample(), Math.min(SAMPLE_MS, stuckMs / 4)).unref()
    this.#sample()
  }

  /** Milliseconds since the engine last moved; 0 while it has nothing to do. */
  get stillMs(): number {
    this.#sample()
    return performance.now() - this.#movedAt
  }

  get stuck(): boolean {
    return this.stillMs >= this.#stuckMs
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  #sample(): void {
    const { busy, steps } = this.#engine.stats()
    const now = performance.now()
    const still = now - this.#movedAt
    if (busy === 0 || steps !== this.#steps) {
      if (this.#saidSo) log('warn', 'engine_moves_again', { afterMs: Math.round(still) })
      this.#saidSo = false
      this.#movedAt = now
    } else if (still >= this.#stuckMs && !this.#saidSo) {
      this.#saidSo = true
      log('error', 'engine_stuck', { steps, stillMs: Math.round(still) })
    }
    this.#steps = steps
  }
}
