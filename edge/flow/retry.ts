// Tries nodes in order until one answers with a head. Before the first token a failure moves on, with the same request id and
// the next attempt number; the account is told, so that a receipt of the abandoned attempt counts for nothing.
import { type ApiError, apiError } from '../../schema/errors.ts'
import type { RunRequest } from '../../schema/wire.ts'
import type { FailedAttempt } from '../account/holds.ts'
import { log } from '../log.ts'
import { callNode, type NodeAnswer } from '../node_client.ts'
import type { Breaker, Candidate } from '../router.ts'

export interface Dispatch {
  readonly secret: string
  readonly nodes: readonly Candidate[]
  readonly request: Omit<RunRequest, 'attempt'>
  readonly signal: AbortSignal
  readonly breaker: Breaker
  /** Before `node` is asked: the attempt before it failed. */
  readonly onRetry: (node: Candidate, failed: FailedAttempt) => Promise<void>
}

const ATTEMPTS_MAX = 3

export const dispatch = async (
  d: Dispatch,
): Promise<Extract<NodeAnswer, { ok: true }> | { ok: false; error: ApiError }> => {
  let error = apiError('no_node')
  let failed: FailedAttempt | undefined
  for (const [index, node] of d.nodes.slice(0, ATTEMPTS_MAX).entries()) {
    const attempt = index + 1
    if (failed) await d.onRetry(node, failed)
    const answer = await callNode(d.secret, node, { ...d.request, attempt }, d.signal)
    if (answer.ok) {
      d.breaker.succeeded(node.id)
      return answer
    }
    if (answer.unreachable) d.breaker.failed(node.id, Date.now())
    error = answer.error
    failed = { attempt, nodeId: node.id, code: error.code }
    if (!answer.retryable) break
    log('warn', 'attempt_failed', { node: node.id, attempt, code: error.code, error: error.internal })
  }
  // "No node could be reached" is what the client needs to know, whichever way the last one failed.
  return { ok: false, error: error.code === 'node_failed' ? apiError('no_node') : error }
}
