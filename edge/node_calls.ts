// Calls from nodes: who signed them is known before their bodies are read.
import { fail, ok, type Result } from '../schema/errors.ts'
import { claimedIssuer, verifyToken } from '../schema/signature.ts'
import { readSigned } from './body.ts'
import type { Env } from './env.ts'
import { keptNodeKey, readNodeKey } from './node_keys.ts'

export interface NodeCall {
  readonly nodeId: string
  readonly key: CryptoKey
  readonly bytes: Uint8Array<ArrayBuffer>
}

const ID_LENGTH_MAX = 64

type Signed = { readonly key: CryptoKey; readonly bodyHash: unknown }

const verifyHead = async (env: Env, nodeId: string, authorization: string | null): Promise<Result<Signed>> => {
  const signedWith = async (key: CryptoKey): Promise<Result<Signed>> => {
    const token = await verifyToken(key, 'EdDSA', 'edge', authorization)
    return token.ok ? ok({ key, bodyHash: token.value.bodyHash }) : token
  }
  const kept = keptNodeKey(nodeId)
  const known = kept && (await signedWith(kept))
  // What the kept key says no to may be signed with one that was registered since.
  if (known?.ok) return known
  const key = await readNodeKey(env.DB, nodeId)
  return key ? signedWith(key) : fail('not_found', { message: 'This node is not registered.' })
}

/** Errors: invalid_signature, not_found (register first), request_too_large. */
export const nodeCall = async (env: Env, request: Request): Promise<Result<NodeCall>> => {
  const authorization = request.headers.get('authorization')
  const nodeId = claimedIssuer(authorization)
  if (!nodeId || nodeId.length > ID_LENGTH_MAX) return fail('invalid_signature')
  const head = await verifyHead(env, nodeId, authorization)
  if (!head.ok) return head
  const bytes = await readSigned(request, head.value.bodyHash)
  return bytes.ok ? ok({ nodeId, key: head.value.key, bytes: bytes.value }) : bytes
}
