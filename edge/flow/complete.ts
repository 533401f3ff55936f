// The main path: parse, admit and look up together, route, dispatch, relay. Settlement is not here: it follows the receipt.
import type { Dialect } from '../../schema/dialects/dialect.ts'
import { apiError, isRetryable } from '../../schema/errors.ts'
import { prefixKeys } from '../../schema/prefix.ts'
import { isScored, promptsOf, worstCase } from '../../schema/prompts.ts'
import type { Run } from '../../schema/wire.ts'
import type { Admission, AdmissionAnswer } from '../account/admit.ts'
import type { FailedAttempt } from '../account/holds.ts'
import type { AccountObject } from '../account.ts'
import { authenticate, authorizationOf, derivedOnce, type Secrets } from '../auth.ts'
import { accountObject, clientIp, type Env, pulseMs, secretsOf } from '../env.ts'
import { routeNow } from '../fleet.ts'
import { withHint } from '../hint.ts'
import { candidatesFor, forgetNodes } from '../live_nodes.ts'
import { log, reasonOf } from '../log.ts'
import { abandonAt } from '../node_client.ts'
import { type Candidate, overlapElsewhere, promptTokensOf } from '../router.ts'
import { type Timing, timing } from '../timing.ts'
import { trailOf } from '../trail.ts'
import { giveWay } from '../turns.ts'
import { errorResponse } from './answer.ts'
import { addRateHeaders } from './rate_headers.ts'
import { readRun } from './read.ts'
import { relayStream, relayWhole } from './relay.ts'
import { keeper, repeatOf, replay } from './repeat.ts'
import { dispatch, type NotDispatched } from './retry.ts'

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
  /** Whose cached prompts these are: the account, or one user of it. */
  readonly tenant: string
  readonly run: Run
  /** The answer is kept for a repetition, so the run goes on when the client leaves. */
  readonly isKept: boolean
  /** Estimated. */
  readonly promptTokens: number
  /** Lets a hold go that nothing will be charged to; the client need not wait for that. */
  readonly letGo: () => void
}

export const complete = async (call: Call): Promise<Response> => {
  const stages = timing()
  const answered = answer(call, stages)
  // A client that leaves ends whatever is not waited for: neither a kept answer nor an open hold may end with it.
  call.context.waitUntil(answered.catch(() => {}))
  const response = await answered
  response.headers.set('server-timing', stages.header())
  return response
}

const answer = async (call: Call, stages: Timing): Promise<Response> => {
  const { env, request, dialect, requestId } = call
  const secrets = secretsOf(env, 'SPARROW_SECRET')
  const [secret] = secrets
  const caller = authenticate(secrets, authorizationOf(request.headers))
  if (!caller.ok) return errorResponse(dialect, caller.error)
  const { accountId, keyHash } = caller.value
  const parsed = await stages.run('parse', () => readRun(call))
  if (!parsed.ok) return errorResponse(dialect, parsed.error)
  const { run, bodyText } = parsed.value
  await giveWay()
  const repeat = await repeatOf(secrets, accountId, request.headers, dialect.name, bodyText)
  if (!repeat.ok) return errorResponse(dialect, repeat.error)

  const account = accountObject(env, accountId)
  const tenant = run.userId === undefined ? accountId : `${accountId}/${run.userId}`
  const keys = prefixKeys(secret, { accountId: tenant, model: run.model, chatFormat: run.chatFormat }, run.prompt)
  const most = worstCase(run)
  const who = { requestId, keyHash, ip: clientIp(request) }
  const admission = {
    ...{ ...who, ...repeat.value, model: run.model, ...most },
    ...(run.shownModel === undefined ? {} : { alias: run.shownModel }),
    trail: trailOf(secret, tenant, run),
  }
  const letGo = releaser(call, accountId)
  const [admitted, found] = await Promise.all([
    stages.run('admit', () => admit(account, admission, letGo)),
    stages.run('lookup', () => candidatesFor(env.DB, call.context, run, keys).catch(lookupFailed)),
  ])
  await giveWay()
  const candidates = isScored(run, run) ? found.map((node) => ({ ...node, hitTokens: 0 })) : found
  const promptTokens = promptTokensOf(most.promptBytes, candidates)
  const nodes = withHint(candidates, tenant, run.routingHint)
  const isKept = repeat.value.idempotencyKey !== null
  const ready = { ...call, account, accountId, tenant, run, promptTokens, isKept, letGo }
  const response =
    admitted.kind === 'refused'
      ? errorResponse(dialect, admitted.error)
      : admitted.kind === 'replay'
        ? replay(admitted.outcome)
        : await serve(ready, admitted.keyId, keys, nodes, stages).catch((error: unknown) => {
            letGo()
            throw error
          })
  addRateHeaders(response.headers, admitted.rates)
  return response
}

const releaser = ({ env, context, requestId }: Call, accountId: string) => {
  const release = async (): Promise<void> => accountObject(env, accountId).release(requestId)
  return (): void =>
    context.waitUntil(
      release()
        // An object that moved, or was updated, breaks its connections once.
        .catch(release)
        .catch((error: unknown) => log('error', 'release_failed', { requestId, error: reasonOf(error) })),
    )
}

/** An account that cannot be asked is as a node that cannot: the caller gets a 503, and holds nothing. */
const admit = async (
  account: DurableObjectStub<AccountObject>,
  admission: Admission,
  letGo: () => void,
): Promise<AdmissionAnswer> => {
  try {
    return await account.admit(admission)
  } catch (error) {
    log('error', 'admit_failed', { requestId: admission.requestId, error: reasonOf(error) })
    letGo()
    return { kind: 'refused', error: apiError('no_node'), rates: [] }
  }
}

/** The admitted run, from the first node asked to the last byte. */
const serve = async (
  { env, context, request, dialect, requestId, account, accountId, tenant, run, isKept, promptTokens, letGo }: Ready,
  keyId: string,
  keys: readonly string[],
  candidates: readonly Candidate[],
  stages: Timing,
): Promise<Response> => {
  const secrets = secretsOf(env, 'SPARROW_SECRET')
  const signal = isKept ? new AbortController().signal : request.signal
  if (signal.aborted) {
    letGo()
    return errorResponse(dialect, apiError('client_closed'))
  }
  const nodes = routeNow(candidates, { promptTokens, affinity: keys[0] ?? requestId })
  const overlap = (node: Candidate): number => (env.AFFINITY_CREDIT === 'off' ? 0 : overlapElsewhere(candidates, node))
  // Told to the account before the node is asked: its receipt cannot come first.
  const onAttempt = async (node: Candidate, failed: FailedAttempt | undefined): Promise<void> => {
    if (failed) return account.setAttempt(requestId, node.id, failed, overlap(node))
    if (overlap(node) > 0) await account.setOverlap(requestId, overlap(node))
  }
  const cacheSalt = derivedOnce(env.SPARROW_SECRET, 'cache', tenant).toString('base64url')
  const answered = await stages.run('dispatch', () =>
    dispatch({
      secrets,
      nodes,
      request: {
        run,
        accountId,
        keyId,
        cacheSalt,
        prefixKeys: [...keys],
        countsFirstPrompt: promptsOf(run).length > 1,
      },
      ...{ signal, pulseMs: pulseMs(env) },
      promptTokens,
      onAttempt,
    }),
  )
  if (!answered.ok) {
    if (isRetryable(answered.error.code)) forgetNodes()
    // The client ended it itself: what was computed until then its receipt says.
    if (answered.error.code === 'deadline_exceeded') context.waitUntil(freeClaim(account, requestId))
    else if (!answered.left || (await neverBegins(secrets, requestId, answered.left))) letGo()
    return errorResponse(dialect, answered.error)
  }
  const keep = isKept ? keeper(account, requestId) : undefined
  if (run.stream) return relayStream(answered.response, { dialect, context, keep, ended: answered.ended, signal })
  const whole = await relayWhole(answered.response, context, keep, answered.ended)
  if (whole.ok) return whole.value
  // Nothing of the answer was seen, so nothing is charged; a client that left itself pays for what was computed.
  if (!signal.aborted) letGo()
  return errorResponse(dialect, whole.error)
}

/** Nothing of an answer is there to be repeated: the same key runs again. */
const freeClaim = (account: DurableObjectStub<AccountObject>, requestId: string): Promise<void> =>
  account.freeClaim(requestId).catch((error: unknown) => {
    log('error', 'claim_not_freed', { requestId, error: reasonOf(error) })
  })

/** After a client left: true where the node had not begun, and now never will. If in doubt its receipt may come. */
const neverBegins = async (
  secrets: Secrets,
  requestId: string,
  { node, attempt }: NonNullable<NotDispatched['left']>,
): Promise<boolean> => {
  const asked = await abandonAt(secrets, node, { requestId, attempt })
  if (!asked.ok) log('warn', 'abandon_unanswered', { requestId, node: node.id, error: asked.error.internal })
  return asked.ok && !asked.value.willBill
}

/** Without D1 no node is known: the caller gets a 503 to try again, and its hold is released at once. */
const lookupFailed = (error: unknown): Candidate[] => {
  log('error', 'lookup_failed', { error: reasonOf(error) })
  return []
}
