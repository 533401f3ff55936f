// Endpoints that count: a node, which owns the tokenizer, is asked; nothing is held or charged. An account's calls are limited, since
// they cost a node's time.
import type { Counter } from '../schema/dialects/counters.ts'
import type { Counted } from '../schema/dialects/tokenize.ts'
import { type ApiError, apiError, type Result } from '../schema/errors.ts'
import type { TokenizeAnswer } from '../schema/wire.ts'
import { authenticate, authorizationOf, derivedOnce } from './auth.ts'
import { accountObject, clientIp, type Env, secretsOf } from './env.ts'
import { routeNow } from './fleet.ts'
import { errorResponse } from './flow/answer.ts'
import type { Call } from './flow/complete.ts'
import { readRun } from './flow/read.ts'
import { askTokens } from './node_client.ts'
import { lookup } from './prefix.ts'

const NODES_ASKED_MAX = 3

/** Error: no_node where none of the first few answers. */
const ask = async (
  env: Env,
  accountId: string,
  counted: Counted,
  withIds: boolean,
): Promise<Result<TokenizeAnswer>> => {
  const { model, prompt } = counted
  const nodes = routeNow(await lookup(env.DB, counted, []), { promptTokens: 0, affinity: model })
  const cacheSalt = derivedOnce(env.SPARROW_SECRET, 'cache', accountId).toString('base64url')
  let error: ApiError = apiError('no_node')
  for (const node of nodes.slice(0, NODES_ASKED_MAX)) {
    const answer = await askTokens(secretsOf(env, 'SPARROW_SECRET'), node, { model, text: prompt, withIds, cacheSalt })
    if (answer.ok) return answer
    error = answer.error
  }
  return { ok: false, error: error.code === 'node_failed' ? apiError('no_node') : error }
}

export const countTokens = async (
  { env, context, request, requestId }: Pick<Call, 'env' | 'context' | 'request' | 'requestId'>,
  counter: Counter,
): Promise<Response> => {
  const refuse = (error: ApiError): Response => errorResponse(counter.dialect, error)
  const caller = authenticate(secretsOf(env, 'SPARROW_SECRET'), authorizationOf(request.headers))
  if (!caller.ok) return refuse(caller.error)
  const read = await readRun({ env, context, request, requestId, dialect: counter })
  if (!read.ok) return refuse(read.error)
  const counted = read.value.run
  const { model, shownModel } = counted
  const alias = shownModel === undefined ? {} : { alias: shownModel }
  const who = { keyHash: caller.value.keyHash, ip: clientIp(request), model, ...alias }
  const { accountId } = caller.value
  const allowed = await accountObject(env, accountId).admitCount(who, counted.prompt.length)
  if (!allowed.ok) return refuse(allowed.error)
  const answer = await ask(env, accountId, counted, counter.withIds)
  return answer.ok ? Response.json(counter.answer(answer.value)) : refuse(answer.error)
}
