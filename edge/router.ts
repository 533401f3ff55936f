// Routing: filter, score, order. Pure over a snapshot of live nodes; a wrong guess costs time, never money.
import { HEARTBEAT_SECONDS, NODE_STALE_MS } from '../schema/limits.ts'

export interface Candidate {
  readonly id: string
  readonly address: string
  readonly running: number
  readonly waiting: number
  readonly prefillTokensPerSecond: number
  readonly heartbeatAt: number
  readonly contextTokens: number
  /** Prompt tokens the node is predicted to have cached. */
  readonly hitTokens: number
  /** The client's routing hint falls on this node (hint.ts). */
  readonly isHinted?: boolean
}

/** What a run ahead of ours costs us, milliseconds: one that waits must first prefill, one that runs shares each step. */
const WAITING_MS = 250
const RUNNING_MS = 25
const PREFILL_GUESS = 1000
/** What a hint is worth: less than a run that waits, more than a few that run. */
const HINT_MS = 200

/** Milliseconds won by sending the run here: prefill saved minus load. */
export const score = (node: Candidate): number =>
  (node.hitTokens / (node.prefillTokensPerSecond || PREFILL_GUESS)) * 1000 -
  node.waiting * WAITING_MS -
  node.running * RUNNING_MS +
  (node.isHinted ? HINT_MS : 0)

const FAILURES_TO_OPEN = 2
const OPEN_MS = HEARTBEAT_SECONDS * 1000

/** Circuit breaker of one isolate: a node that failed twice in a row is left alone for a heartbeat. */
export class Breaker {
  readonly #failures = new Map<string, { count: number; until: number }>()

  failed(nodeId: string, now: number): void {
    const count = (this.#failures.get(nodeId)?.count ?? 0) + 1
    this.#failures.set(nodeId, { count, until: count >= FAILURES_TO_OPEN ? now + OPEN_MS : 0 })
  }

  succeeded(nodeId: string): void {
    this.#failures.delete(nodeId)
  }

  isOpen(nodeId: string, now: number): boolean {
    return (this.#failures.get(nodeId)?.until ?? 0) > now
  }
}

/** Live nodes, best first; those behind an open breaker last, since a last resort beats a refusal. */
export const route = (candidates: readonly Candidate[], breaker: Breaker, now: number): Candidate[] =>
  candidates
    .filter((node) => now - node.heartbeatAt < NODE_STALE_MS)
    .map((node) => ({ node, open: breaker.isOpen(node.id, now) ? 1 : 0, score: score(node) }))
    .sort((a, b) => a.open - b.open || b.score - a.score || (a.node.id < b.node.id ? -1 : 1))
    .map(({ node }) => node)
