// Whether a node that owes an answer still lives. A prefill may take minutes, and a node that froze keeps its connections open, so the
// answer's own silence says nothing: beside it the node is asked at /livez, by one run an isolate for all.
import { PATHS } from '../schema/wire.ts'
import { reasonOf } from './log.ts'
import { baseOf, type NodeAddress } from './node_client.ts'

/** Questions without an answer, one after another, that end a run: one that shows nothing yet moves on, one that flows cannot. */
export const SILENCES = { waiting: 2, flowing: 6 } as const

interface Known {
  readonly askedAt: number
  unanswered: number
}

export class Pulse {
  readonly #nodes = new Map<string, Known>()

  /** Asks every `everyMs`. Calls `lost` when the node was silent `allowed()` times in a row, as that is then. Returns what ends the watch. */
  watch(node: NodeAddress, everyMs: number, allowed: () => number, lost: () => void): () => void {
    const timer = setInterval(() => {
      void this.#unanswered(node, everyMs).then((unanswered) => {
        if (unanswered >= allowed()) lost()
      })
    }, everyMs)
    return () => clearInterval(timer)
  }

  async #unanswered(node: NodeAddress, everyMs: number): Promise<number> {
    const now = Date.now()
    const before = this.#nodes.get(node.id)
    // Another run asked a moment ago.
    if (before && now - before.askedAt < 0.9 * everyMs) return before.unanswered
    const inARow = before && now - before.askedAt < 3 * everyMs ? before.unanswered : 0
    const known: Known = { askedAt: now, unanswered: inARow }
    this.#nodes.set(node.id, known)
    known.unanswered = (await this.#answers(node, everyMs)) ? 0 : inARow + 1
    return known.unanswered
  }

  /** Whatever is no 5xx is life: a proxy may show nothing but what the edge posts. 503 is the node's own word that its engine stands still. */
  async #answers(node: NodeAddress, everyMs: number): Promise<boolean> {
    try {
      const signal = AbortSignal.timeout(0.8 * everyMs)
      const response = await fetch(`${baseOf(node)}${PATHS.livez}`, { signal, redirect: 'manual' })
      await response.body?.cancel()
      return response.status < 500
    } catch (error) {
      // A platform that lets this request ask no more says nothing of the node.
      return /subrequest/i.test(reasonOf(error))
    }
  }
}
