// The main path: parse, admit and look up together, route, dispatch, relay. Settlement is not here: it follows the receipt.
import type { Dialect } from '../../schema/dialects/dialect.ts'
import { apiError, fail, type Result } from '../../schema/errors.ts'
import { REQUEST_BODY_BYTES_MAX } from '../../schema/limits.ts'
import { prefixKeys } from '../../schema/prefix.ts'
import type { Run } from '../../schema/wire.ts'
import type { AdmissionAnswer } from '../account.ts'
import { authenticate, derive } from '../auth.ts'
import { accountObject, type Env } from '../env.ts'
import { lookup } from '../prefix.ts'
import { Breaker, type Candidate, route } from '../router.ts'
import { type Timing, timing } from '../timing.ts'
import { errorResponse } from './answer.ts'
import { relayStream, relayWhole } from './relay.ts'
import { dispatch } from './retry.ts'

const breaker = new Breaker()

export interface Call {
  readonly env: Env
  readonly context: Pick<ExecutionContext, 'waitUntil'>
  readonly request: Request
  readonly dialect: Dialect
  readonly requestId: string
}

export const complete = async (call: Call): Promise<Response> => {
  const stages = timing()
  const response = await answer(call, stages)
  response.headers.set('server-timing', stages.header())
  return response
}

const answer = async ({ env, context, request, dialect, requestId }: Call, stages: Timing): Promise<Response> => {
  const secret = env.SPARROW_SECRET
  const caller = authenticate(secret, request.headers.get('authorization') ?? undefined)
  if (!caller.ok) return errorResponse(dialect, caller.error)
  const { accountId } = caller.value
  const parsed = await stages.run('parse', () => readRun(request, dialect, requestId))
  if (!parsed.ok) return errorResponse(dialect, parsed.error)
  const run = parsed.value

  const account = accountObject(env, accountId)
  const keys = prefixKeys(secret, { accountId, model: run.model, chatFormat: run.chatFormat }, run.prompt)
  const promptBytes = new TextEncoder().encode(run.prompt).length
  const { keyHash } = caller.value
  const admission = { requestId, keyHash, model: run.model, promptBytes, maxTokens: run.maxTokens * (run.n ?? 1) }
  const [admitted, candidates] = await Promise.all([
    stages.run('admit', async (): Promise<AdmissionAnswer> => account.admit(admission)),
    stages.run('lookup', () => lookup(env.DB, run.model, keys).catch(lookupFailed)),
  ])
  if (!admitted.ok) return errorResponse(dialect, admitted.error)

  const answered = await stages.run('dispatch', () =>
    dispatch({
      secret,
      nodes: route(candidates, breaker, Date.now()),
      request: {
        run,
        accountId,
        keyId: admitted.keyId,
        cacheSalt: derive(secret, 'cache', accountId).toString('base64url'),
        prefixKeys: keys,
      },
      signal: request.signal,
      breaker,
      onRetry: async (attempt) => account.setAttempt(requestId, attempt),
    }),
  )
  if (!answered.ok) {
    // After an abort the node's receipt may still come; everything else was answered by us and costs nothing.
    if (answered.error.code !== 'client_closed') context.waitUntil(Promise.resolve(account.release(requestId)))
    return errorResponse(dialect, answered.error)
  }
  return run.stream ? relayStream(answered.response, dialect, context) : relayWhole(answered.response, dialect)
}

/** Without D1 no node is known: the caller gets a 503 to try again, and its hold is released at once. */
const lookupFailed = (error: unknown): Candidate[] => {
  console.error(JSON.stringify({ event: 'lookup_failed', error: String(error) }))
  return []
}

/** Body to Run. Errors: request_too_large, malformed_request, and the dialect's own. */
const readRun = async (request: Request, dialect: Dialect, requestId: string): Promise<Result<Run>> => {
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
    return { ok: false, error: apiError('malformed_request', { internal: String(error) }) }
  }
  const seed = crypto.getRandomValues(new BigUint64Array(1))[0] ?? 0n
  return dialect.parse(body, { requestId, created: Math.floor(Date.now() / 1000), seed: seed.toString(), bodyText })
}
