// The committed vectors of receipts, prefix keys and the chat format: made by other programs or by hand, so that two
// implementations agree and not one with itself.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import type { Conversation } from '../../schema/chat/chat_format.ts'
import { TOOL_PREAMBLE } from '../../schema/chat/deepseek_v32.ts'
import { chatFormatByName } from '../../schema/chat/index.ts'
import { prefixKeys, tokensPerBlock } from '../../schema/prefix.ts'
import { receiptBytes, receiptFault, signReceipt, verifyReceipt } from '../../schema/receipt.ts'
import { importPublicKey } from '../../schema/signature.ts'
import chat from '../../schema/vectors/chat.json' with { type: 'json' }
import prefix from '../../schema/vectors/prefix.json' with { type: 'json' }
import receipts from '../../schema/vectors/receipts.json' with { type: 'json' }
import { receiptSchema, signedReceiptSchema } from '../../schema/wire.ts'

test.each(receipts.receipts)('receipt: $name', async ({ receipt: plain, bytes: length, sha256, signature }) => {
  const receipt = receiptSchema.parse(plain)
  const bytes = receiptBytes(receipt)
  expect(bytes.length).toBe(length)
  expect(createHash('sha256').update(bytes).digest('hex')).toBe(sha256)
  const key = await crypto.subtle.importKey('jwk', receipts.privateKey, { name: 'Ed25519' }, false, ['sign'])
  expect(await signReceipt(key, receipt)).toEqual({ receipt, signature })
  const publicKey = await importPublicKey(receipts.privateKey.x)
  expect(await verifyReceipt(publicKey, signedReceiptSchema.parse({ receipt, signature }))).toBe(true)
  expect(receiptFault(receipt)).toBeUndefined()
})

test('every field of a receipt is under the signature', async () => {
  const [first] = receipts.receipts
  const receipt = receiptSchema.parse(first?.receipt)
  const publicKey = await importPublicKey(receipts.privateKey.x)
  const changes = {
    requestId: '019a1b2c-3d4e-7f50-8a6b-0123456789ac',
    attempt: 2,
    accountId: 'acc_2',
    keyId: 'key_2',
    nodeId: 'node_2',
    epoch: 'e2',
    seq: 1,
    model: 'other',
    hitTokens: 64,
    missTokens: 13,
    outputTokens: 6,
    reasoningTokens: 1,
    finish: 'length',
    openedAt: 0,
    firstTokenAt: null,
    closedAt: 1795450000901,
    prefix: [['A'.repeat(24), 1]],
    firstPrompt: { hit: 0, miss: 1 },
  }
  expect(Object.keys(changes).length).toBe(Object.keys(receiptSchema.shape).length - 1)
  for (const [field, value] of Object.entries(changes)) {
    const forged = receiptSchema.parse({ ...receipt, [field]: value })
    expect(await verifyReceipt(publicKey, { receipt: forged, signature: first?.signature ?? '' }), field).toBe(false)
  }
  expect(await verifyReceipt(publicKey, { receipt, signature: '!' })).toBe(false)
})

test('a receipt whose first prompt took more than all of its prompts is at fault', () => {
  const receipt = receiptSchema.parse(receipts.receipts.at(-1)?.receipt)
  for (const firstPrompt of [
    { hit: receipt.hitTokens + 64, miss: 0 },
    { hit: 0, miss: receipt.missTokens + 1 },
  ])
    expect(receiptFault({ ...receipt, firstPrompt })).toContain('first prompt')
})

test.each(prefix.prefixKeys)('prefix keys: $name', ({ secret, accountId, model, chatFormat, piece, times, keys }) => {
  expect(prefixKeys(secret, { accountId, model, chatFormat }, piece.repeat(times))).toEqual(keys)
})

test('prefix keys of a longer prompt start with those of its beginning', () => {
  const scope = { accountId: 'a', model: 'm', chatFormat: 'f' }
  const long = prefixKeys('s', scope, 'x'.repeat(1000))
  expect(long.length).toBe(3)
  expect(prefixKeys('s', scope, 'x'.repeat(600))).toEqual(long.slice(0, 2))
  expect(prefixKeys('s', scope, `y${'x'.repeat(999)}`).filter((key) => long.includes(key))).toEqual([])
})

test.each(prefix.tokensPerBlock)('tokens per block: $name', ({ tokenBytes, blocks, tokens }) => {
  expect(tokensPerBlock(tokenBytes, blocks)).toEqual(tokens)
})

test.each(chat.vectors)('chat: $name', ({ messages, tools, thinking, prompt }) => {
  // JSON imports know no literal types; a message of another shape would fail to render.
  const conversation = { messages, tools, thinking } as Conversation
  expect(chatFormatByName('deepseek_v32')?.render(conversation)).toEqual({ ok: true, value: prompt })
})

test('the tool preamble is the one the embedded model was trained with', () => {
  const trained = new URL('../../gpu-node/model/train/tool_preamble.txt', import.meta.url)
  expect(TOOL_PREAMBLE).toBe(readFileSync(trained, 'utf8'))
})
