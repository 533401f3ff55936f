// One signed call to the admin API; the command line, the first start and the tests all use it.
import { randomUUID } from 'node:crypto'
import { signAdminCall } from '../schema/admin_call.ts'
import { utf8 } from '../schema/text.ts'

export interface AdminCall {
  readonly baseUrl: string
  readonly secret: string
  readonly method: string
  readonly path: string
  readonly body?: unknown
  /** Repeating a mutation with the same key and body returns the first outcome. Default: a fresh one. */
  readonly idempotencyKey?: string
}

/** The admin API refused: `message` is its public sentence, `code` its row in schema/errors.ts. */
export class AdminError extends Error {
  readonly status: number
  readonly code: string
  constructor(status: number, code: string, message: string) {
    super(message)
    this.status = status
    this.code = code
  }
}

export const adminCall = async <T>(call: AdminCall): Promise<T> => {
  const body = call.body === undefined ? '' : JSON.stringify(call.body)
  const url = new URL(call.path, call.baseUrl)
  const { method, idempotencyKey = randomUUID() } = call
  const signed = { method, path: url.pathname + url.search, idempotencyKey, body: utf8(body) }
  const response = await fetch(url, {
    method,
    headers: {
      authorization: await signAdminCall(call.secret, signed),
      'idempotency-key': idempotencyKey,
      ...(body ? { 'content-type': 'application/json' } : {}),
    },
    ...(body ? { body } : {}),
  })
  const text = await response.text()
  if (response.ok) return parseAnswer<T>(text)
  const error = parseError(text)
  throw new AdminError(response.status, error.code, error.message)
}

/** What is no JSON was not said by the Worker: something that stands at its address or before it. */
const parseAnswer = <T>(text: string): T => {
  try {
    return JSON.parse(text) as T
  } catch {
    throw new AdminError(502, 'internal_error', 'What answered is not the Worker. Is this its address? (SPARROW_URL)')
  }
}

const parseError = (text: string): { code: string; message: string } => {
  try {
    const { error } = JSON.parse(text) as { error: { code: string; message: string } }
    return { code: error.code, message: error.message }
  } catch {
    return { code: 'internal_error', message: text.slice(0, 200) }
  }
}
