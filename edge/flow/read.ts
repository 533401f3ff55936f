// A client's body to a run: bounds, UTF-8, JSON, the model it names, its dialect. Everything that is wrong with it is a 4xx.
import type { ParseContext } from '../../schema/dialects/dialect.ts'
import { fail, ok, type Result } from '../../schema/errors.ts'
import { BODY_DEPTH_MAX } from '../../schema/limits.ts'
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

const isDeep = (value: unknown, left: number): boolean => {
  if (typeof value !== 'object' || value === null) return false
  if (left === 0) return true
  for (const inner of Object.values(value)) if (isDeep(inner, left - 1)) return true
  return false
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
  if (!isDeep(body, BODY_DEPTH_MAX)) return ok({ bodyText, body })
  return fail('malformed_request', { message: `The request body is nested over ${BODY_DEPTH_MAX} levels deep.` })
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
