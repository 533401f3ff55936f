// Circuit breaker of one isolate. A node that fails twice in a row is left alone for a heartbeat; then one run at a time is let through, and
// its outcome closes the breaker or opens it for twice as long.
import { HEARTBEAT_SECONDS } from '../schema/limits.ts'

const FAILURES_TO_OPEN = 2
const OPEN_MS = HEARTBEAT_SECONDS * 1000
const OPEN_MS_MAX = 60_000

interface State {
  readonly failures: number
  /** 0: closed. */
  readonly openMs: number
  readonly until: number
  /** The last failure was of an answer that had begun: to begin another one proves nothing. */
  readonly brokeOff: boolean
  /** A run that was let through has not ended before this. */
  trialUntil: number
}

export type BreakerState = 'closed' | 'open' | 'half-open'

export class Breaker {
  readonly #nodes = new Map<string, State>()

  /** `brokeOff`: behind the beginning of an answer. */
  failed(nodeId: string, now: number, brokeOff = false): void {
    const before = this.#nodes.get(nodeId)
    // Runs that break together are one failure: an open breaker learns nothing from them.
    if (before && before.openMs > 0 && before.until > now) return
    const failures = (before?.failures ?? 0) + 1
    const openMs = failures < FAILURES_TO_OPEN ? 0 : Math.min(OPEN_MS_MAX, before?.openMs ? before.openMs * 2 : OPEN_MS)
    this.#nodes.set(nodeId, { failures, openMs, until: openMs === 0 ? 0 : now + openMs, brokeOff, trialUntil: 0 })
  }

  /** It begins to answer: where that is what it failed to do others may follow, but the next failure opens at once. */
  answered(nodeId: string): void {
    const state = this.#nodes.get(nodeId)
    if (!state || state.brokeOff) return
    this.#nodes.set(nodeId, { ...state, failures: FAILURES_TO_OPEN - 1, openMs: 0, until: 0, trialUntil: 0 })
  }

  succeeded(nodeId: string): void {
    this.#nodes.delete(nodeId)
  }

  /** A run is sent to the node: while its breaker is half-open no second one is, until this one has ended or ran as long as it was open. */
  began(nodeId: string, now: number): void {
    const state = this.#nodes.get(nodeId)
    if (state && state.openMs > 0 && state.until <= now) state.trialUntil = now + state.openMs
  }

  /** A run ended that says nothing of the node: refused, or left by its client. */
  undecided(nodeId: string): void {
    const state = this.#nodes.get(nodeId)
    if (state) state.trialUntil = 0
  }

  isOpen(nodeId: string, now: number): boolean {
    const state = this.#nodes.get(nodeId)
    return state !== undefined && state.openMs > 0 && (state.until > now || state.trialUntil > now)
  }

  state(nodeId: string, now: number): BreakerState {
    const state = this.#nodes.get(nodeId)
    if (!state || state.openMs === 0) return 'closed'
    return state.until > now ? 'open' : 'half-open'
  }
}
