// Runs of one isolate by node. A heartbeat counts what the node had at that moment; what this isolate began and ended since then is
// added here, so that a burst between two heartbeats is seen.
import type { OwnLoad } from './router.ts'

interface OwnRun {
  readonly beganAt: number
  readonly prefillMs: number
  answered: boolean
}

interface NodeRuns {
  readonly running: Set<OwnRun>
  /** Ended runs that the last heartbeat seen may still count. */
  ended: { readonly beganAt: number; readonly endedAt: number }[]
  /** That heartbeat, and how many of `ended` it does count; not a number where that must be counted anew. */
  heartbeatAt: number
  counted: number
}

/** One run at one node; `ended` counts once, however many paths lead to it. */
export interface Flight {
  /** The first byte is there: its prefill is done. */
  answered(): void
  ended(now?: number): void
}

/** A run whose end was never told (its Worker was cut off) stops counting: as load with the next heartbeat, as prefill after this. */
const PREFILL_COUNTED_MS = 60_000
const RUN_KEPT_MS = 3_600_000
const ENDED_MAX = 10_000

export class InFlight {
  readonly #nodes = new Map<string, NodeRuns>()

  begin(nodeId: string, now: number, prefillMs: number): Flight {
    const node = this.#nodes.get(nodeId) ?? {
      running: new Set<OwnRun>(),
      ended: [],
      heartbeatAt: Number.NaN,
      counted: 0,
    }
    this.#nodes.set(nodeId, node)
    for (const old of node.running) {
      if (old.beganAt > now - RUN_KEPT_MS) break
      node.running.delete(old)
    }
    const run: OwnRun = { beganAt: now, prefillMs, answered: false }
    node.running.add(run)
    return {
      answered: () => {
        run.answered = true
      },
      ended: (endedAt = Date.now()) => {
        if (!node.running.delete(run)) return
        node.ended.push({ beganAt: run.beganAt, endedAt })
        if (run.beganAt < node.heartbeatAt && endedAt >= node.heartbeatAt) node.counted++
        if (node.ended.length <= ENDED_MAX) return
        node.ended = node.ended.slice(-ENDED_MAX / 2)
        node.heartbeatAt = Number.NaN
      },
    }
  }

  /** What the heartbeat of `heartbeatAt` cannot know. */
  since(nodeId: string, heartbeatAt: number, now: number): OwnLoad {
    const node = this.#nodes.get(nodeId)
    if (!node) return { runs: 0, prefillMs: 0 }
    let runs = 0
    // One prompt after another, from when each came: whole answers do not say when theirs is done.
    let prefilledAt = 0
    for (const run of node.running) {
      if (run.beganAt >= heartbeatAt) runs++
      if (!run.answered && run.beganAt > now - PREFILL_COUNTED_MS)
        prefilledAt = Math.max(prefilledAt, run.beganAt) + run.prefillMs
    }
    if (node.heartbeatAt !== heartbeatAt) {
      node.ended = node.ended.filter((run) => run.endedAt >= heartbeatAt)
      node.counted = node.ended.filter((run) => run.beganAt < heartbeatAt).length
      node.heartbeatAt = heartbeatAt
    }
    return { runs: runs - node.counted, prefillMs: Math.max(0, prefilledAt - now) }
  }

  /** Runs under way now. */
  count(nodeId: string): number {
    return this.#nodes.get(nodeId)?.running.size ?? 0
  }
}
