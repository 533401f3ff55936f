// Who this node is: its id and Ed25519 key pair, made on the first start and kept in the state directory.
import { randomBytes } from 'node:crypto'
import { mkdir, open, readFile, rename } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { signCall } from '../schema/signature.ts'
import { StartError } from './config.ts'
import { lockFolder } from './folder_lock.ts'

const base64url32 = z.string().regex(/^[\w-]{43}$/)
const identitySchema = z.object({ nodeId: z.string().min(1).max(64), x: base64url32, d: base64url32 })

export interface Identity {
  readonly nodeId: string
  /** JWK `x` of the public key. */
  readonly publicKey: string
  readonly privateKey: CryptoKey
  /** `authorization` of a call to the edge with this body. */
  sign(body: Uint8Array<ArrayBuffer>): Promise<string>
}

/** Replaces `file` so that a crash leaves the old content or the new, never half of either. */
const writeDurably = async (file: string, text: string): Promise<void> => {
  const fresh = await open(`${file}.new`, 'w', 0o600)
  await fresh.writeFile(text)
  await fresh.sync()
  await fresh.close()
  await rename(`${file}.new`, file)
}

const create = async (file: string, nodeId: string): Promise<z.infer<typeof identitySchema>> => {
  const pair = (await crypto.subtle.generateKey('Ed25519', true, ['sign', 'verify'])) as CryptoKeyPair
  const { x, d } = (await crypto.subtle.exportKey('jwk', pair.privateKey)) as JsonWebKey
  const identity = identitySchema.parse({ nodeId, x, d })
  await writeDurably(file, `${JSON.stringify(identity)}\n`).catch((error: Error) => {
    throw unusable(dirname(file), error)
  })
  return identity
}

const unusable = (stateDir: string, { message }: Error): StartError =>
  new StartError(`${stateDir} cannot be written: ${message}. Choose another SPARROW_STATE_DIR.`)

const makeFolder = async (stateDir: string): Promise<void> => {
  await mkdir(stateDir, { recursive: true, mode: 0o700 }).catch((error: Error) => {
    throw unusable(stateDir, error)
  })
}

/** Loads or makes the identity. Errors: StartError when the state directory belongs to another node, or cannot be written. */
export const loadIdentity = async (stateDir: string, nodeId: string | undefined): Promise<Identity> => {
  await makeFolder(stateDir)
  const file = join(stateDir, 'identity.json')
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw new StartError(`${file} cannot be read: ${error.message}.`)
  })
  const kept = text === undefined ? undefined : identitySchema.safeParse(parseJson(text))
  if (kept && !kept.success)
    throw new StartError(`${file} is damaged. Restore it, or choose another SPARROW_STATE_DIR.`)
  const identity = kept?.data ?? (await create(file, nodeId ?? `node-${randomBytes(6).toString('hex')}`))
  if (nodeId && identity.nodeId !== nodeId) {
    throw new StartError(`${stateDir} belongs to node ${identity.nodeId}. Choose another SPARROW_STATE_DIR.`)
  }
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: identity.x, d: identity.d }
  const privateKey = await crypto.subtle.importKey('jwk', jwk, 'Ed25519', false, ['sign']).catch(() => {
    throw new StartError(`${file} is damaged. Restore it, or choose another SPARROW_STATE_DIR.`)
  })
  return {
    nodeId: identity.nodeId,
    publicKey: identity.x,
    privateKey,
    sign: (body) => signCall(privateKey, 'EdDSA', identity.nodeId, 'edge', body),
  }
}

const parseJson = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Two nodes must not write one journal. Error: StartError. */
export const lockState = async (stateDir: string): Promise<{ release(): void }> => {
  await makeFolder(stateDir)
  let lock: ReturnType<typeof lockFolder>
  try {
    lock = lockFolder(stateDir)
  } catch (error) {
    throw unusable(stateDir, error as Error)
  }
  if (!lock)
    throw new StartError(`Another node is running on ${stateDir}. Stop it, or choose another SPARROW_STATE_DIR.`)
  return lock
}
