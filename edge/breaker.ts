// Circuit breaker of one isolate. A node that fails twice in a row is left alone for a heartbeat; then one run is let through, and
// its outcome closes the breaker or opens it for twice as long.
import { HEARTBEAT_SECONDS } from '../schema/limits.ts'

const FAILURES_TO_OPEN = 2
const OPEN_MS = HEARTBEAT_SECONDS * 1000
const OPEN_MS_MAX = 60_000

interface State {
  failures: number
  /** 0: closed. */
  openMs: number
  until: number
  /** A run that was let through has not ended before this. */
  trialUntil: number
}

export type BreakerState = 'closed' | 'open' | 'half-open'

export class Breaker {
  readonly #nodes = new Map<string, State>()

  failed(nodeId: string, now: number): void {
    const before = this.#nodes.get(nodeId)
    // Runs that break together are one failure: an open breaker learns nothing from them.
    if (before && before.openMs > 0 && before.until > now) return
    const failures = (before?.failures ?? 0) + 1
    const openMs = failures < FAILURES_TO_OPEN ? 0 : Math.min(OPEN_MS_MAX, before?.openMs ? before.openMs * 2 : OPEN_MS)
    this.#nodes.set(nodeId, { failures, openMs, until: openMs === 0 ? 0 : now + openMs, trialUntil: 0 })
  }

  /** It begins to answer: others may follow, but the next failure opens at once. */
  answered(nodeId: string): void {
    const state = this.#nodes.get(nodeId)
    if (state) this.#nodes.set(nodeId, { failures: FAILURES_TO_OPEN - 1, openMs: 0, until: 0, trialUntil: 0 })
  }

  succeeded(nodeId: string): void {
    this.#nodes.delete(nodeId)
  }

  /** A run is sent to the node: while its breaker is half-open, no second one is. */
  began(nodeId: string, now: number): void {
    const state = this.#nodes.get(nodeId)
    if (state && state.openMs > 0 && state.until <= now) state.trialUntil = now + OPEN_MS
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
