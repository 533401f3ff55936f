// One signed call to one node. The client's abort travels on, so a node stops within a step of the client leaving.
import { type ApiError, apiError, fail, isErrorCode, isRetryable, type Result } from '../schema/errors.ts'
import { signCall } from '../schema/signature.ts'
import { utf8 } from '../schema/text.ts'
import {
  type AbandonRequest,
  abandonAnswerSchema,
  HEAD_HEADERS,
  nodeErrorSchema,
  PATHS,
  type ResponseHead,
  type RunRequest,
  responseHeadSchema,
  type TokenizeAnswer,
  type TokenizeRequest,
  tokenizeAnswerSchema,
} from '../schema/wire.ts'
import { derivedOnce, type Secrets } from './auth.ts'
import { reasonOf } from './log.ts'

export type NodeAnswer =
  | { readonly ok: true; readonly head: ResponseHead; readonly response: Response }
  | { readonly ok: false; readonly error: ApiError; readonly retryable: boolean; readonly unreachable: boolean }

/** The secret with which the edge signs its calls to a node; told to the node when it registers and when it beats, stored nowhere. */
export const dispatchSecret = (secret: string, nodeId: string): string =>
  derivedOnce(secret, 'dispatch', nodeId).toString('base64url')

const DISPATCH_KEYS_MAX = 1000
/** Imported once a node. */
const dispatchKeys = new Map<string, CryptoKey>()

const dispatchKey = async (secret: string, nodeId: string): Promise<CryptoKey> => {
  const text = dispatchSecret(secret, nodeId)
  const known = dispatchKeys.get(text)
  if (known) return known
  const key = await crypto.subtle.importKey('raw', utf8(text), { name: 'HMAC', hash: 'SHA-256' }, false, ['sign'])
  if (dispatchKeys.size >= DISPATCH_KEYS_MAX) dispatchKeys.clear()
  dispatchKeys.set(text, key)
  return key
}

type Refused = Extract<NodeAnswer, { ok: false }>

/** What stands before a node (a proxy, a tunnel) answers for it. */
const notANode = ({ status }: Response): Refused => {
  const internal = `not a node: it answered ${status}`
  // A body too large for a proxy says nothing of the node's health; another one may have none.
  if (status === 413)
    return { ok: false, error: apiError('request_too_large', { internal }), retryable: true, unreachable: false }
  return { ok: false, error: apiError('node_failed', { internal }), retryable: true, unreachable: true }
}

const refused = async (response: Response): Promise<Refused> => {
  const parsed = nodeErrorSchema.safeParse(await response.json().catch(() => undefined))
  if (!parsed.success) return notANode(response)
  const { code, message, param, retryAfterSeconds } = parsed.data.error
  const known = isErrorCode(code) && code !== 'invalid_signature' ? code : 'node_failed'
  const error = apiError(known, {
    ...(message && known === code ? { message } : {}),
    ...(param ? { param } : {}),
    ...(retryAfterSeconds ? { retryAfterSeconds } : {}),
  })
  // What answers only that it is broken is as good as down.
  const unreachable = known === 'node_failed' || known === 'internal_error'
  return { ok: false, error, retryable: isRetryable(known), unreachable }
}

export interface NodeAddress {
  readonly id: string
  readonly address: string
}

/** Paths are joined to it as texts: the address of one of several nodes behind a proxy has a path of its own. */
export const baseOf = ({ address }: NodeAddress): string => address.replace(/\/+$/, '')

/** Throws where the node cannot be reached. */
const post = async (
  [secret, ...former]: Secrets,
  node: NodeAddress,
  path: string,
  request: object,
  signal: AbortSignal,
): Promise<Response> => {
  const body = utf8(JSON.stringify(request))
  let response = await postSigned(secret, node, path, body, signal)
  // Until its next heartbeat a node knows the secret that was replaced.
  for (const before of former) {
    if (response.status !== 401) break
    await response.body?.cancel()
    response = await postSigned(before, node, path, body, signal)
  }
  return response
}

const postSigned = async (
  secret: string,
  node: NodeAddress,
  path: string,
  body: Uint8Array<ArrayBuffer>,
  signal: AbortSignal,
): Promise<Response> => {
  const key = await dispatchKey(secret, node.id)
  return fetch(`${baseOf(node)}${path}`, {
    method: 'POST',
    headers: {
      authorization: await signCall(key, 'HS256', 'edge', node.id, body),
      'content-type': 'application/json',
    },
    body,
    signal,
    // A prompt goes to the address that was registered, and nowhere else.
    redirect: 'manual',
  })
}

const COUNT_TIMEOUT_MS = 30_000

/** What a prompt is in tokens. Errors: node_failed, and the node's own. */
export const askTokens = async (
  secrets: Secrets,
  node: NodeAddress,
  request: TokenizeRequest,
): Promise<Result<TokenizeAnswer>> => {
  try {
    const response = await post(secrets, node, PATHS.tokenize, request, AbortSignal.timeout(COUNT_TIMEOUT_MS))
    if (!response.ok) return await refused(response)
    return { ok: true, value: tokenizeAnswerSchema.parse(await response.json()) }
  } catch (error) {
    return fail('node_failed', { internal: reasonOf(error) })
  }
}

const ABANDON_TIMEOUT_MS = 10_000

/** Whether a receipt of this attempt comes; if not, none ever does. Errors: node_failed, and the node's own. */
export const abandonAt = async (
  secrets: Secrets,
  node: NodeAddress,
  attempt: AbandonRequest,
): Promise<Result<{ willBill: boolean }>> => {
  try {
    const response = await post(secrets, node, PATHS.abandon, attempt, AbortSignal.timeout(ABANDON_TIMEOUT_MS))
    if (!response.ok) return await refused(response)
    return { ok: true, value: abandonAnswerSchema.parse(await response.json()) }
  } catch (error) {
    return fail('node_failed', { internal: reasonOf(error) })
  }
}

/** `signal`: the client left; `over`: nothing of an answer is wanted any more, for that or another reason, also where one has begun. */
export const callNode = async (
  secrets: Secrets,
  node: NodeAddress,
  request: RunRequest,
  signal: AbortSignal,
  over: AbortSignal,
): Promise<NodeAnswer> => {
  let response: Response
  try {
    response = await post(secrets, node, PATHS.run, request, over)
  } catch (error) {
    if (signal.aborted) return { ok: false, error: apiError('client_closed'), retryable: false, unreachable: false }
    return {
      ok: false,
      error: apiError('node_failed', { internal: reasonOf(error) }),
      retryable: true,
      unreachable: true,
    }
  }
  if (!response.ok) return refused(response)
  const head = responseHeadSchema.safeParse({
    nodeId: response.headers.get(HEAD_HEADERS.nodeId),
    promptTokens: response.headers.get(HEAD_HEADERS.promptTokens),
    cachedTokens: response.headers.get(HEAD_HEADERS.cachedTokens),
  })
  if (head.success && head.data.nodeId === node.id) return { ok: true, head: head.data, response }
  await response.body?.cancel()
  return notANode(response)
}
