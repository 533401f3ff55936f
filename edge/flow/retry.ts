// Tries nodes in order until one answers with a head. Before the first token a failure moves on, with the same request id and
// the next attempt number; the account is told, so that a receipt of the abandoned attempt counts for nothing.
import { type ApiError, apiError } from '../../schema/errors.ts'
import type { RunRequest } from '../../schema/wire.ts'
import type { FailedAttempt } from '../account/holds.ts'
import { breaker, inFlight } from '../fleet.ts'
import type { Flight } from '../in_flight.ts'
import { log } from '../log.ts'
import { callNode, type NodeAnswer } from '../node_client.ts'
import { type Candidate, prefillMs } from '../router.ts'

export interface Dispatch {
  readonly secret: string
  readonly nodes: readonly Candidate[]
  readonly request: Omit<RunRequest, 'attempt' | 'predictedTokens'>
  /** Estimated. */
  readonly promptTokens: number
  readonly signal: AbortSignal
  /** Before `node` is asked: the attempt before it failed. */
  readonly onRetry: (node: Candidate, failed: FailedAttempt) => Promise<void>
}

const ATTEMPTS_MAX = 3

export interface Dispatched {
  readonly ok: true
  readonly response: Response
  /** Call with whether the node kept its side when the answer has ended, in whatever way. */
  readonly ended: (nodeFailed: boolean) => void
}

/** A node that breaks off answers it had begun counts as failing, too. */
const endOf =
  (nodeId: string, flight: Flight, signal: AbortSignal) =>
  (nodeFailed: boolean): void => {
    flight.ended()
    // What a client broke off says nothing about the node.
    if (signal.aborted) return
    if (nodeFailed) breaker.failed(nodeId, Date.now())
    else breaker.succeeded(nodeId)
  }

/** One attempt; its flight ends here unless an answer has begun. */
const attemptAt = async (d: Dispatch, node: Candidate, attempt: number): Promise<[NodeAnswer, Flight]> => {
  const flight = inFlight.begin(node.id, Date.now(), prefillMs(node, d.promptTokens - node.hitTokens))
  d.signal.addEventListener('abort', () => flight.ended(), { once: true })
  breaker.began(node.id, Date.now())
  let answer: NodeAnswer | undefined
  try {
    answer = await callNode(d.secret, node, { ...d.request, attempt, predictedTokens: node.hitTokens }, d.signal)
    return [answer, flight]
  } finally {
    if (answer?.ok) flight.answered()
    else flight.ended()
  }
}

/** `left`: the attempt that was being asked for when the client left. */
export interface NotDispatched {
  readonly ok: false
  readonly error: ApiError
  readonly left?: { readonly node: Candidate; readonly attempt: number }
}

export const dispatch = async (d: Dispatch): Promise<Dispatched | NotDispatched> => {
  let error = apiError('no_node')
  let failed: FailedAttempt | undefined
  for (const [index, node] of d.nodes.slice(0, ATTEMPTS_MAX).entries()) {
    const attempt = index + 1
    if (failed) await d.onRetry(node, failed)
    const [answer, flight] = await attemptAt(d, node, attempt)
    if (answer.ok) {
      breaker.answered(node.id)
      return { ok: true, response: answer.response, ended: endOf(node.id, flight, d.signal) }
    }
    if (answer.unreachable) breaker.failed(node.id, Date.now())
    error = answer.error
    failed = { attempt, nodeId: node.id, code: error.code }
    if (answer.error.code === 'client_closed') return { ok: false, error, left: { node, attempt } }
    if (!answer.retryable) break
    log('warn', 'attempt_failed', { node: node.id, attempt, code: error.code, error: error.internal })
  }
  // "No node could be reached" is what the client needs to know, whichever way the last one failed.
  return { ok: false, error: error.code === 'node_failed' ? apiError('no_node') : error }
}
