// Prefix hashing: the rendered prompt is cut into fixed blocks of UTF-8 bytes; the key of a block is a truncated HMAC over
// its predecessor's key and its own bytes. Salted by account, model and chat format, so an index row tells nothing about a
// prompt and links no two tenants. Test vectors: schema/vectors/prefix.json.
import { createHmac } from 'node:crypto'
import { PREFIX_BLOCK_BYTES, PREFIX_BLOCKS_MAX } from './limits.ts'

/** Bytes kept of each HMAC; 18 bytes are 24 base64url characters without padding. */
const KEY_BYTES = 18

export interface PrefixScope {
  readonly accountId: string
  readonly model: string
  readonly chatFormat: string
}

const chain = (secret: string, previous: Uint8Array, block: Uint8Array): Buffer =>
  createHmac('sha256', secret).update(previous).update(block).digest().subarray(0, KEY_BYTES)

/** Keys of the full blocks of `prompt`, in order; a last partial block has none. */
export const prefixKeys = (secret: string, scope: PrefixScope, prompt: string): string[] => {
  const bytes = new TextEncoder().encode(prompt)
  const blocks = Math.min(Math.floor(bytes.length / PREFIX_BLOCK_BYTES), PREFIX_BLOCKS_MAX)
  if (blocks === 0) return []
  const salt = new TextEncoder().encode(JSON.stringify([scope.accountId, scope.model, scope.chatFormat]))
  let previous = chain(secret, salt, new Uint8Array())
  const keys: string[] = []
  for (let i = 0; i < blocks; i++) {
    previous = chain(secret, previous, bytes.subarray(i * PREFIX_BLOCK_BYTES, (i + 1) * PREFIX_BLOCK_BYTES))
    keys.push(previous.toString('base64url'))
  }
  return keys
}

/**
 * How many tokens lie wholly inside the first 1, 2, ... blocks, for `tokenBytes` = UTF-8 length of each prompt token in
 * order. A token that straddles a block's end belongs to the next block.
 */
export const tokensPerBlock = (tokenBytes: readonly number[], blocks: number): number[] => {
  const ends: number[] = []
  let bytes = 0
  let tokens = 0
  for (let block = 1; block <= blocks; block++) {
    const end = block * PREFIX_BLOCK_BYTES
    while (tokens < tokenBytes.length && bytes + (tokenBytes[tokens] ?? 0) <= end) bytes += tokenBytes[tokens++] ?? 0
    ends.push(tokens)
  }
  return ends
}
