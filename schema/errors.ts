// The one error table: every failure a client, an operator or a peer process can see has a code here.
// Dialects only dress these rows; nothing else invents a status or a public sentence.

/** `type` follows OpenAI's vocabulary, which every client library already maps to exception classes. */
type ErrorRow = {
  readonly status: number
  readonly type: string
  readonly retryable: boolean
  readonly message: string
}

const row = (status: number, type: string, retryable: boolean, message: string): ErrorRow => ({
  status,
  type,
  retryable,
  message,
})

export const ERRORS = {
  malformed_request: row(400, 'invalid_request_error', false, 'The request body is not valid JSON.'),
  invalid_request: row(400, 'invalid_request_error', false, 'The request is malformed.'),
  invalid_api_key: row(401, 'authentication_error', false, 'The API key is missing, wrong, expired or revoked.'),
  invalid_signature: row(401, 'authentication_error', false, 'The signature of this internal call is not valid.'),
  insufficient_balance: row(402, 'insufficient_balance', false, 'The balance does not cover this request. Top up.'),
  permission_denied: row(403, 'permission_error', false, 'This key may not do that.'),
  not_found: row(404, 'not_found_error', false, 'There is no such resource.'),
  model_not_found: row(404, 'not_found_error', false, 'There is no such model. GET /v1/models lists the models.'),
  method_not_allowed: row(405, 'invalid_request_error', false, 'This path does not take that method.'),
  conflict: row(409, 'conflict_error', false, 'The same id was used before for something else.'),
  idempotency_in_progress: row(409, 'idempotency_error', true, 'The request under this Idempotency-Key still runs.'),
  idempotency_lost: row(
    409,
    'idempotency_error',
    false,
    'The outcome under this Idempotency-Key is not kept. It is not run, nor charged, again; send a new key to do so.',
  ),
  node_removed: row(410, 'permission_error', false, 'This node was removed for good.'),
  request_too_large: row(413, 'invalid_request_error', false, 'The request body is too large.'),
  context_length_exceeded: row(
    413,
    'invalid_request_error',
    false,
    "The prompt is too long for the model's maximum context length.",
  ),
  invalid_parameter: row(422, 'invalid_request_error', false, 'A parameter has an unsupported value.'),
  idempotency_mismatch: row(422, 'idempotency_error', false, 'This Idempotency-Key was used with another body.'),
  rate_limit_exceeded: row(429, 'rate_limit_error', true, 'Too many requests at once. Retry after a moment.'),
  insufficient_quota: row(429, 'insufficient_quota', false, 'The monthly budget is used up.'),
  client_closed: row(499, 'client_closed', false, 'The client closed the request.'),
  internal_error: row(500, 'server_error', true, 'Something failed on our side. You were not charged.'),
  deadline_exceeded: row(504, 'timeout_error', false, 'The deadline of this request passed before its first token.'),
  node_failed: row(502, 'server_error', true, 'The node failed before it could answer. You were not charged.'),
  stream_interrupted: row(502, 'server_error', false, 'The node was lost in mid-answer. Only receipted tokens count.'),
  no_node: row(503, 'overloaded_error', true, 'No node can take this request right now. Retry after a moment.'),
  node_draining: row(503, 'overloaded_error', true, 'The node is shutting down. Retry after a moment.'),
} as const satisfies Record<string, ErrorRow>

export type ErrorCode = keyof typeof ERRORS

/** An error as a value. `message` is public; `internal` is for the operator's log only. */
export interface ApiError {
  readonly code: ErrorCode
  readonly message: string
  /** The parameter at fault, in the client's own naming, e.g. `messages.0.role`. */
  readonly param?: string
  /** Seconds after which a retry makes sense; set on 409, 429 and 503. */
  readonly retryAfterSeconds?: number
  readonly internal?: string
}

export type Result<T, E = ApiError> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: E }

export const ok = <T>(value: T): Result<T, never> => ({ ok: true, value })

/** An `ApiError` of `code`; the table's public sentence stands in where no `message` is given. */
export const apiError = (code: ErrorCode, details: Partial<Omit<ApiError, 'code'>> = {}): ApiError => ({
  code,
  message: ERRORS[code].message,
  ...details,
})

export const fail = (
  code: ErrorCode,
  details: Partial<Omit<ApiError, 'code'>> = {},
): { readonly ok: false; readonly error: ApiError } => ({ ok: false, error: apiError(code, details) })

export const statusOf = (code: ErrorCode): number => ERRORS[code].status
export const isRetryable = (code: ErrorCode): boolean => ERRORS[code].retryable
export const isErrorCode = (value: string): value is ErrorCode => Object.hasOwn(ERRORS, value)
