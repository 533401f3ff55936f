// Tries nodes in order until one answers with a head. Before the first token a failure moves on, with the same request id and
// the next attempt number; the account is told, so that a receipt of the abandoned attempt counts for nothing.
import { type ApiError, apiError } from '../../schema/errors.ts'
import type { RunRequest } from '../../schema/wire.ts'
import type { FailedAttempt } from '../account/holds.ts'
import type { Secrets } from '../auth.ts'
import { breaker, inFlight, pulse } from '../fleet.ts'
import type { Flight } from '../in_flight.ts'
import { log } from '../log.ts'
import { callNode, type NodeAnswer } from '../node_client.ts'
import { SILENCES } from '../pulse.ts'
import { type Candidate, prefillMs } from '../router.ts'

export interface Dispatch {
  readonly secrets: Secrets
  readonly nodes: readonly Candidate[]
  readonly request: Omit<RunRequest, 'attempt' | 'predictedTokens'>
  /** Estimated. */
  readonly promptTokens: number
  readonly signal: AbortSignal
  /** How often a node that owes an answer is asked whether it lives. */
  readonly pulseMs: number
  /** Before `node` is asked; `failed`: the attempt before it. */
  readonly onAttempt: (node: Candidate, failed: FailedAttempt | undefined) => Promise<void>
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
    if (signal.aborted) breaker.undecided(nodeId)
    else if (nodeFailed) breaker.failed(nodeId, Date.now(), true)
    else breaker.succeeded(nodeId)
  }

interface WatchedFlight extends Flight {
  /** Nothing of an answer is wanted any more: the client has left, or the node does not live. */
  readonly over: AbortSignal
}

/** Counted, and watched, until it has ended or the client has left. */
const begin = (d: Dispatch, node: Candidate): WatchedFlight => {
  const flight = inFlight.begin(node.id, Date.now(), prefillMs(node, d.promptTokens - node.hitTokens))
  const over = new AbortController()
  let allowed: number = SILENCES.waiting
  const stop = pulse.watch(
    node,
    d.pulseMs,
    () => allowed,
    () => over.abort(new Error('the node answers nothing any more')),
  )
  const ended = (now?: number): void => {
    stop()
    // What still listens keeps all that it knows of the run until a collection of the whole heap.
    d.signal.removeEventListener('abort', left)
    flight.ended(now)
  }
  const left = (): void => {
    ended()
    over.abort(d.signal.reason)
  }
  // `fetch` itself does not heed a request's own signal while anything is waited for.
  if (d.signal.aborted) left()
  else d.signal.addEventListener('abort', left)
  const answered = (): void => {
    allowed = SILENCES.flowing
    flight.answered()
  }
  return { answered, ended, over: over.signal }
}

/** One attempt, counted before anything is waited for; its flight ends here unless an answer has begun. */
const attemptAt = async (
  d: Dispatch,
  node: Candidate,
  attempt: number,
  failed: FailedAttempt | undefined,
): Promise<[NodeAnswer, WatchedFlight]> => {
  const flight = begin(d, node)
  breaker.began(node.id, Date.now())
  let answer: NodeAnswer | undefined
  try {
    await d.onAttempt(node, failed)
    answer = await callNode(
      d.secrets,
      node,
      { ...d.request, attempt, predictedTokens: node.hitTokens },
      d.signal,
      flight.over,
    )
    return [answer, flight]
  } finally {
    if (answer?.ok) flight.answered()
    else flight.ended()
    // The account could not be told: the node was not asked.
    if (!answer) breaker.undecided(node.id)
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
  let rest = d.nodes
  /** Context of those that were asked. */
  let longest = 0
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
    const node = rest[0]
    if (!node) break
    const [answer, flight] = await attemptAt(d, node, attempt, failed)
    if (answer.ok) {
      breaker.answered(node.id)
      return { ok: true, response: answer.response, ended: endOf(node.id, flight, d.signal) }
    }
    if (answer.unreachable) breaker.failed(node.id, Date.now())
    else breaker.undecided(node.id)
    // Nodes of one model may have memory for contexts of different lengths.
    const isTooLong = answer.error.code === 'context_length_exceeded'
    // One with a longer context was asked, and only cannot now: the client should come again.
    if (!isTooLong || longest <= node.contextTokens) error = answer.error
    longest = Math.max(longest, node.contextTokens)
    failed = { attempt, nodeId: node.id, code: answer.error.code }
    if (answer.error.code === 'client_closed') return { ok: false, error, left: { node, attempt } }
    const mayTake = ({ contextTokens }: Candidate) => isTooLong && contextTokens > node.contextTokens
    rest = rest.slice(1).filter((other) => answer.retryable || mayTake(other))
    if (rest.length === 0 && !answer.retryable) break
    const { code, internal } = answer.error
    log('warn', 'attempt_failed', { node: node.id, attempt, code, error: internal })
  }
  // "No node could be reached" is what the client needs to know, whichever way the last one failed.
  return { ok: false, error: error.code === 'node_failed' ? apiError('no_node') : error }
}
