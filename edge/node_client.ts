// One signed call to one node. The client's abort travels on, so a node stops within a step of the client leaving.
import { type ApiError, apiError, isErrorCode, isRetryable } from '../schema/errors.ts'
import { signCall } from '../schema/signature.ts'
import { utf8 } from '../schema/text.ts'
import {
  HEAD_HEADERS,
  nodeErrorSchema,
  PATHS,
  type ResponseHead,
  type RunRequest,
  responseHeadSchema,
} from '../schema/wire.ts'
import { derive } from './auth.ts'
import { reasonOf } from './log.ts'

export type NodeAnswer =
  | { readonly ok: true; readonly head: ResponseHead; readonly response: Response }
  | { readonly ok: false; readonly error: ApiError; readonly retryable: boolean; readonly unreachable: boolean }

/** The secret with which the edge signs its calls to a node; told to the node when it registers, stored nowhere. */
export const dispatchSecret = (secret: string, nodeId: string): string =>
  derive(secret, 'dispatch', nodeId).toString('base64url')

const refused = async (response: Response): Promise<NodeAnswer> => {
  const parsed = nodeErrorSchema.safeParse(await response.json().catch(() => undefined))
  const { code, message, param, retryAfterSeconds } = parsed.data?.error ?? { code: 'node_failed', message: undefined }
  const known = isErrorCode(code) && code !== 'invalid_signature' ? code : 'node_failed'
  const error = apiError(known, {
    ...(message && known === code ? { message } : {}),
    ...(param ? { param } : {}),
    ...(retryAfterSeconds ? { retryAfterSeconds } : {}),
  })
  return { ok: false, error, retryable: isRetryable(known), unreachable: false }
}

export const callNode = async (
  secret: string,
  node: { readonly id: string; readonly address: string },
  request: RunRequest,
  signal: AbortSignal,
): Promise<NodeAnswer> => {
  const body = utf8(JSON.stringify(request))
  const key = utf8(dispatchSecret(secret, node.id))
  let response: Response
  try {
    response = await fetch(new URL(PATHS.run, node.address), {
      method: 'POST',
      headers: {
        authorization: await signCall(key, 'HS256', 'edge', node.id, body),
        'content-type': 'application/json',
      },
      body,
      signal,
    })
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
  return { ok: false, error: apiError('node_failed', { internal: 'not a node' }), retryable: true, unreachable: true }
}
