// Answers with a status: one place that turns an ApiError into a response in the caller's dialect.
import type { Dialect } from '../../schema/dialects/dialect.ts'
import { type ApiError, isRetryable, statusOf } from '../../schema/errors.ts'

const RETRY_AFTER_DEFAULT_SECONDS = 1

export const errorResponse = (dialect: Pick<Dialect, 'errorBody' | 'status'>, error: ApiError): Response => {
  const status = statusOf(error.code)
  const headers = new Headers({ 'content-type': 'application/json', 'x-should-retry': String(isRetryable(error.code)) })
  if (status === 429 || status === 503 || error.retryAfterSeconds !== undefined) {
    const seconds = error.retryAfterSeconds ?? RETRY_AFTER_DEFAULT_SECONDS
    headers.set('retry-after', String(seconds))
    headers.set('retry-after-ms', String(seconds * 1000))
  }
  // 499 is for our log; no client is left to read it.
  return new Response(dialect.errorBody(error), {
    status: status === 499 ? 400 : (dialect.status?.(error.code) ?? status),
    headers,
  })
}
