// Calls to the public API with the user's key. What goes wrong is a value, in the API's own words where it has any.
import type { Result as ResultOf } from '../../../schema/errors.ts'

export interface Failure {
  /** `refused`: this key or request will not do; `wait`: later it will; `failed`: a fault of the service; `offline`: no answer. */
  readonly kind: 'refused' | 'wait' | 'failed' | 'offline'
  readonly message: string
  readonly status?: number
  readonly retryAfterSeconds?: number
  readonly requestId?: string
}

export type Result<T> = ResultOf<T, Failure>

const WAIT_SECONDS_MAX = 3600

/** Seconds of a `Retry-After`, which may also be a date. */
const secondsOf = (header: string | null, now: number): number | undefined => {
  if (header === null) return undefined
  const seconds = /^\d+$/.test(header) ? Number(header) : Math.ceil((Date.parse(header) - now) / 1000)
  return Number.isFinite(seconds) ? Math.min(WAIT_SECONDS_MAX, Math.max(1, seconds)) : undefined
}

/** Any form of error, or none at all when something in between answered. */
const messageOf = (body: unknown, status: number): string => {
  const message = (body as { error?: { message?: unknown } } | undefined)?.error?.message
  return typeof message === 'string' ? message : `The service answered ${status} without a reason.`
}

const failureOf = async (response: Response): Promise<Failure> => {
  const { status, headers } = response
  const retryAfterSeconds = secondsOf(headers.get('retry-after'), Date.now())
  const requestId = headers.get('x-request-id')
  return {
    kind: retryAfterSeconds !== undefined || status === 429 ? 'wait' : status >= 500 ? 'failed' : 'refused',
    message: messageOf(await response.json().catch(() => undefined), status),
    status,
    ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
    ...(requestId === null ? {} : { requestId }),
  }
}

/** A key with a line break or the like is no header; the API would say that it is wrong. */
const isHeader = (key: string): boolean => /^[\x21-\x7e]+$/.test(key)

const OFFLINE: Failure = { kind: 'offline', message: 'The service could not be reached.' }

export const get = async <T>(key: string, path: string, signal?: AbortSignal): Promise<Result<T>> => {
  try {
    const response = await fetch(path, {
      headers: { authorization: `Bearer ${isHeader(key) ? key : 'invalid'}` },
      ...{ cache: 'no-store', credentials: 'omit', referrerPolicy: 'no-referrer', redirect: 'error' },
      ...(signal ? { signal } : {}),
    })
    if (!response.ok) return { ok: false, error: await failureOf(response) }
    return { ok: true, value: (await response.json()) as T }
  } catch {
    return { ok: false, error: OFFLINE }
  }
}
