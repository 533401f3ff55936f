// A client's body to a run: bounds, UTF-8, JSON, the model it names, its dialect. Everything that is wrong with it is a 4xx.
import type { ParseContext } from '../../schema/dialects/dialect.ts'
import { type ApiError, apiError, fail, ok, type Result } from '../../schema/errors.ts'
import { BODY_DEPTH_MAX, BODY_MEMBERS_MAX } from '../../schema/limits.ts'
import type { Run } from '../../schema/wire.ts'
import { readBody } from '../body.ts'
import type { Env } from '../env.ts'
import { reasonOf } from '../log.ts'
import { servedModel } from '../models.ts'

interface Asked<T> {
  readonly env: Env
  readonly context: Pick<ExecutionContext, 'waitUntil'>
  readonly request: Request
  readonly dialect: { parse(body: unknown, context: ParseContext): Result<T> }
  readonly requestId: string
}

/** Why a body is not read further: each level and each member costs the one thread time. */
const boundsFault = (body: unknown): ApiError | undefined => {
  let members = 0
  const walk = (value: unknown, left: number): ApiError | undefined => {
    if (typeof value !== 'object' || value === null) return undefined
    if (left === 0)
      return apiError('malformed_request', {
        message: `The request body is nested over ${BODY_DEPTH_MAX} levels deep.`,
      })
    const inner = Object.values(value)
    if (!Array.isArray(value)) members += inner.length
    if (members > BODY_MEMBERS_MAX)
      return apiError('request_too_large', {
        message: `The request body's objects have over ${BODY_MEMBERS_MAX} members.`,
      })
    for (const one of inner) {
      const fault = walk(one, left - 1)
      if (fault) return fault
    }
    return undefined
  }
  return walk(body, BODY_DEPTH_MAX)
}

/** Errors: client_closed, request_too_large, malformed_request. */
export const readJson = async (request: Request): Promise<Result<{ bodyText: string; body: unknown }>> => {
  const bytes = await readBody(request)
  if (!bytes.ok) return bytes
  const encoding = request.headers.get('content-encoding') ?? 'identity'
  if (encoding !== 'identity') {
    return fail('malformed_request', { message: `The request body must not be compressed (${encoding.slice(0, 40)}).` })
  }
  let bodyText: string
  try {
    bodyText = new TextDecoder('utf-8', { fatal: true, ignoreBOM: false }).decode(bytes.value)
  } catch {
    return fail('malformed_request', { message: 'The request body is not valid UTF-8.' })
  }
  let body: unknown
  try {
    body = JSON.parse(bodyText)
  } catch (error) {
    return fail('malformed_request', { internal: reasonOf(error) })
  }
  const error = boundsFault(body)
  return error ? { ok: false, error } : ok({ bodyText, body })
}

const nameIn = (body: unknown): string | undefined => {
  const model = typeof body === 'object' && body !== null && 'model' in body ? body.model : undefined
  return typeof model === 'string' ? model : undefined
}

/** Body to run, or whatever names a model, with the model behind an alias. Errors: those of readJson, no_node, and the dialect's own. */
export const readRun = async <T extends Pick<Run, 'model' | 'shownModel'>>(
  asked: Asked<T>,
): Promise<Result<{ run: T; bodyText: string }>> => {
  const { env, context, request, dialect, requestId } = asked
  const read = await readJson(request)
  if (!read.ok) return read
  const { body, bodyText } = read.value
  const served = await servedModel(env, context, nameIn(body))
  if (!served.ok) return served
  const { model, format, thinks } = served.value
  const seed = crypto.getRandomValues(new BigUint64Array(1))[0] ?? 0n
  const created = Math.floor(Date.now() / 1000)
  const parsed = dialect.parse(body, { requestId, created, seed: seed.toString(), bodyText, format, thinks })
  if (!parsed.ok) return parsed
  const { model: name } = parsed.value
  const run = model === undefined || model === name ? parsed.value : { ...parsed.value, model, shownModel: name }
  return ok({ run, bodyText })
}
