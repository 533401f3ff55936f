// The main path: parse, admit and look up together, route, dispatch, relay. Settlement is not here: it follows the receipt.
import type { Dialect, ParseContext } from '../../schema/dialects/dialect.ts'
import { apiError, fail, type Result } from '../../schema/errors.ts'
import { REQUEST_BODY_BYTES_MAX } from '../../schema/limits.ts'
import { prefixKeys } from '../../schema/prefix.ts'
import type { Run } from '../../schema/wire.ts'
import type { AdmissionAnswer } from '../account/admit.ts'
import type { AccountObject } from '../account.ts'
import { authenticate, authorizationOf, derive } from '../auth.ts'
import { accountObject, clientIp, type Env } from '../env.ts'
import { log, reasonOf } from '../log.ts'
import { lookup } from '../prefix.ts'
import { Breaker, type Candidate, route } from '../router.ts'
import { type Timing, timing } from '../timing.ts'
import { errorResponse } from './answer.ts'
import { addRateHeaders } from './rate_headers.ts'
import { relayStream, relayWhole } from './relay.ts'
import { keeper, repeatOf, replay } from './repeat.ts'
import { dispatch } from './retry.ts'

const breaker = new Breaker()

export interface Call {
  readonly env: Env
  readonly context: Pick<ExecutionContext, 'waitUntil'>
  readonly request: Request
  readonly dialect: Dialect
  readonly requestId: string
}

/** A request that was read, and whose account is asked. */
interface Ready extends Call {
  readonly account: DurableObjectStub<AccountObject>
  readonly accountId: string
  readonly run: Run
  /** The answer is kept for a repetition, so the run goes on when the client leaves. */
  readonly isKept: boolean
}

export const complete = async (call: Call): Promise<Response> => {
  const stages = timing()
  const answered = answer(call, stages)
  // A run whose answer is kept must outlive its client, which ends whatever is not waited for.
  if (call.request.headers.has('idempotency-key')) call.context.waitUntil(answered.catch(() => {}))
  const response = await answered
  response.headers.set('server-timing', stages.header())
  return response
}

const answer = async (call: Call, stages: Timing): Promise<Response> => {
  const { env, request, dialect, requestId } = call
  const secret = env.SPARROW_SECRET
  const caller = authenticate(secret, authorizationOf(request.headers))
  if (!caller.ok) return errorResponse(dialect, caller.error)
  const { accountId, keyHash } = caller.value
  const parsed = await stages.run('parse', () => readRun(request, dialect, requestId))
  if (!parsed.ok) return errorResponse(dialect, parsed.error)
  const { run, bodyText } = parsed.value
  const repeat = await repeatOf(secret, accountId, request.headers, dialect.name, bodyText)
  if (!repeat.ok) return errorResponse(dialect, repeat.error)

  const account = accountObject(env, accountId)
  const keys = prefixKeys(secret, { accountId, model: run.model, chatFormat: run.chatFormat }, run.prompt)
  const promptBytes = new TextEncoder().encode(run.prompt).length
  const who = { requestId, keyHash, ip: clientIp(request.headers) }
  const admission = { ...who, ...repeat.value, model: run.model, promptBytes, maxTokens: run.maxTokens * (run.n ?? 1) }
  const [admitted, candidates] = await Promise.all([
    stages.run('admit', async (): Promise<AdmissionAnswer> => account.admit(admission)),
    stages.run('lookup', () => lookup(env.DB, run.model, keys).catch(lookupFailed)),
  ])
  const ready = { ...call, account, accountId, run, isKept: repeat.value.idempotencyKey !== null }
  const response =
    admitted.kind === 'refused'
      ? errorResponse(dialect, admitted.error)
      : admitted.kind === 'replay'
        ? replay(admitted.outcome)
        : await serve(ready, admitted.keyId, keys, route(candidates, breaker, Date.now()), stages)
  addRateHeaders(response.headers, admitted.rates)
  return response
}

/** The admitted run, from the first node asked to the last byte. */
const serve = async (
  { env, context, request, dialect, requestId, account, accountId, run, isKept }: Ready,
  keyId: string,
  keys: readonly string[],
  nodes: readonly Candidate[],
  stages: Timing,
): Promise<Response> => {
  const secret = env.SPARROW_SECRET
  // A hold that nothing will be charged to is let go at once; the client need not wait for that.
  const release = (): void => context.waitUntil(Promise.resolve(account.release(requestId)))
  const signal = isKept ? new AbortController().signal : request.signal
  if (signal.aborted) {
    release()
    return errorResponse(dialect, apiError('client_closed'))
  }
  const cacheSalt = derive(secret, 'cache', accountId).toString('base64url')
  const answered = await stages.run('dispatch', () =>
    dispatch({
      secret,
      nodes,
      request: { run, accountId, keyId, cacheSalt, prefixKeys: [...keys] },
      signal,
      breaker,
      onRetry: async (node, failed) => account.setAttempt(requestId, node.id, failed),
    }),
  )
  if (!answered.ok) {
    // After an abort the node's receipt may still come; everything else was answered by us and costs nothing.
    if (answered.error.code !== 'client_closed') release()
    return errorResponse(dialect, answered.error)
  }
  const keep = isKept ? keeper(account, requestId) : undefined
  if (run.stream) return relayStream(answered.response, dialect, context, keep)
  const whole = await relayWhole(answered.response, context, keep)
  if (whole.ok) return whole.value
  // Nothing of the answer was seen, so nothing is charged; a client that left itself pays for what was computed.
  if (!signal.aborted) release()
  return errorResponse(dialect, whole.error)
}

/** Without D1 no node is known: the caller gets a 503 to try again, and its hold is released at once. */
const lookupFailed = (error: unknown): Candidate[] => {
  log('error', 'lookup_failed', { error: reasonOf(error) })
  return []
}

/** Body to Run. Errors: request_too_large, malformed_request, and the dialect's own. */
export const readRun = async <T>(
  request: Request,
  dialect: { parse(body: unknown, context: ParseContext): Result<T> },
  requestId: string,
): Promise<Result<{ run: T; bodyText: string }>> => {
  const tooLarge = fail('request_too_large', { message: `The body may have at most ${REQUEST_BODY_BYTES_MAX} bytes.` })
  if (Number(request.headers.get('content-length') ?? 0) > REQUEST_BODY_BYTES_MAX) return tooLarge
  const bytes = await request.arrayBuffer()
  if (bytes.byteLength > REQUEST_BODY_BYTES_MAX) return tooLarge
  let bodyText: string
  let body: unknown
  try {
    bodyText = new TextDecoder('utf-8', { fatal: true, ignoreBOM: false }).decode(bytes)
    body = JSON.parse(bodyText)
  } catch (error) {
    return { ok: false, error: apiError('malformed_request', { internal: reasonOf(error) }) }
  }
  const seed = crypto.getRandomValues(new BigUint64Array(1))[0] ?? 0n
  const created = Math.floor(Date.now() / 1000)
  const run = dialect.parse(body, { requestId, created, seed: seed.toString(), bodyText })
  return run.ok ? { ok: true, value: { run: run.value, bodyText } } : run
}
