// POST /internal/receipts, a node's call (node_calls.ts): verify each receipt's signature and its invariants; settle; acknowledge.

import type { Terms, Unbilled } from '../schema/bill.ts'
import { fail, ok, type Result } from '../schema/errors.ts'
import { receiptFault, verifyReceipt } from '../schema/receipt.ts'
import { parseJson } from '../schema/text.ts'
import { type SegmentAck, type SignedReceipt, segmentSchema } from '../schema/wire.ts'
import { accountObject, type Env } from './env.ts'
import { checkLink, keepSegment } from './evidence.ts'
import { log, reasonOf } from './log.ts'
import type { NodeCall } from './node_calls.ts'
import { recording } from './prefix.ts'
import { giveWay, inTurns } from './turns.ts'

/** Why a receipt can never be taken, or `undefined`. */
const faultOf = async (key: CryptoKey, nodeId: string, signed: SignedReceipt): Promise<string | undefined> => {
  if (signed.receipt.nodeId !== nodeId) return 'it names another node'
  if (!(await verifyReceipt(key, signed))) return 'its signature is wrong'
  return receiptFault(signed.receipt)
}

export const takeReceipts = async (env: Env, { nodeId, key, bytes }: NodeCall): Promise<Result<SegmentAck>> => {
  const text = new TextDecoder().decode(bytes)
  const parsed = segmentSchema.safeParse(parseJson(text))
  if (!parsed.success) return fail('invalid_request', { message: parsed.error.issues[0]?.message ?? 'not a segment' })
  const { receipts } = parsed.data
  if (parsed.data.nodeId !== nodeId) return fail('invalid_signature')

  const linked = await checkLink(env, parsed.data, text)
  if (!linked.ok) return linked

  const ack: SegmentAck = { acknowledged: [], refused: [] }
  const terms: Terms[] = []
  const byAccount = new Map<string, SignedReceipt[]>()
  await inTurns(receipts, async (signed) => {
    const { requestId, attempt, accountId } = signed.receipt
    const fault = await faultOf(key, nodeId, signed)
    if (fault) ack.refused.push({ requestId, attempt, reason: fault })
    else byAccount.set(accountId, [...(byAccount.get(accountId) ?? []), signed])
  })
  await giveWay()
  // One account's failure leaves only its own receipts unacknowledged; the node sends them again.
  await Promise.all([...byAccount].map(([accountId, group]) => settle(env, accountId, group, ack, terms)))
  await giveWay()
  const taken = new Set(ack.acknowledged.map(({ requestId }) => requestId))
  const fresh = receipts.map(({ receipt }) => receipt).filter((receipt) => taken.has(receipt.requestId))
  // Kept before it is acknowledged: what cannot be kept comes again.
  const word = { terms, unbilled: unbilledOf(ack, terms) }
  const kept = await keepSegment(env, parsed.data, text, word, recording(env.DB, env.SPARROW_SECRET, fresh))
  if (!kept.ok) return kept
  return ok(ack)
}

/** What was taken without a charge, and what was refused. */
const unbilledOf = ({ acknowledged, refused }: SegmentAck, terms: readonly Terms[]): Unbilled[] => {
  const billed = new Set(terms.map(({ requestId, attempt }) => `${requestId}/${attempt}`))
  return [...acknowledged.filter(({ requestId, attempt }) => !billed.has(`${requestId}/${attempt}`)), ...refused]
}

const settle = async (
  env: Env,
  accountId: string,
  group: readonly SignedReceipt[],
  ack: SegmentAck,
  terms: Terms[],
): Promise<void> => {
  try {
    const answers = await accountObject(env, accountId).settle(group)
    group.forEach(({ receipt: { requestId, attempt } }, i) => {
      const settlement = answers[i]
      if (settlement?.state === 'refused') ack.refused.push({ requestId, attempt, reason: settlement.reason })
      else if (settlement) ack.acknowledged.push({ requestId, attempt })
      if (settlement && 'terms' in settlement && settlement.terms) terms.push(settlement.terms)
    })
  } catch (error) {
    log('error', 'settle_failed', { account: accountId, error: reasonOf(error) })
  }
}
