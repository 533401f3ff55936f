// Receipts: canonical bytes, signature, and the invariants every side checks before it trusts one.
import { base64url } from 'jose'
import { KV_PAGE_TOKENS } from './limits.ts'
import { utf8 } from './text.ts'
import type { Receipt, SignedReceipt } from './wire.ts'

/**
 * The bytes that are signed: a JSON array of the fields in fixed order, UTF-8, no white space. Field names are left out
 * on purpose, so the order below is part of the format (test vectors: schema/vectors/receipts.json).
 */
export const receiptBytes = (r: Receipt): Uint8Array<ArrayBuffer> =>
  utf8(
    JSON.stringify([
      'sparrow-receipt',
      r.version,
      r.requestId,
      r.attempt,
      r.accountId,
      r.keyId,
      r.nodeId,
      r.epoch,
      r.seq,
      r.model,
      r.hitTokens,
      r.missTokens,
      r.outputTokens,
      r.reasoningTokens,
      r.finish,
      r.openedAt,
      r.firstTokenAt,
      r.closedAt,
      r.prefix,
      ...(r.firstPrompt ? [[r.firstPrompt.hit, r.firstPrompt.miss]] : []),
    ]),
  )

export const signReceipt = async (privateKey: CryptoKey, receipt: Receipt): Promise<SignedReceipt> => {
  const signature = new Uint8Array(await crypto.subtle.sign('Ed25519', privateKey, receiptBytes(receipt)))
  return { receipt, signature: base64url.encode(signature) }
}

export const verifyReceipt = async (publicKey: CryptoKey, signed: SignedReceipt): Promise<boolean> => {
  try {
    return await crypto.subtle.verify(
      'Ed25519',
      publicKey,
      base64url.decode(signed.signature) as Uint8Array<ArrayBuffer>,
      receiptBytes(signed.receipt),
    )
  } catch {
    return false
  }
}

/** The first invariant a receipt breaks, in words, or `undefined` when it holds together. */
export const receiptFault = (r: Receipt): string | undefined => {
  if (r.hitTokens % KV_PAGE_TOKENS !== 0) return `hitTokens is no multiple of ${KV_PAGE_TOKENS}`
  const { hit: firstHit, miss: firstMiss } = r.firstPrompt ?? { hit: 0, miss: 0 }
  if (firstHit > r.hitTokens || firstMiss > r.missTokens) return 'its first prompt took more than all of them'
  if (r.reasoningTokens > r.outputTokens) return 'reasoningTokens exceeds outputTokens'
  if (r.outputTokens > 0 && r.missTokens === 0) return 'tokens were sampled but no prompt token was computed'
  if (r.closedAt < r.openedAt) return 'closed before it opened'
  return undefined
}
