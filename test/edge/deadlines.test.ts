// A client's own deadline: a cancel, which is charged for what was computed, and leaves no answer to be repeated.
import { beforeEach, expect, test, vi } from 'vitest'
import { DEFAULT_PRICE } from '../../schema/money.ts'
import {
  type Account,
  admissionOf,
  chat,
  idOf,
  objectOf,
  openAccount,
  receiptOf,
  registerNode,
  removeNodes,
  send,
  type TestNode,
} from './world.ts'

const CREDIT = 1e9

let node: TestNode
let account: Account
beforeEach(async () => {
  await removeNodes()
  node = await registerNode('good')
  account = await openAccount(CREDIT)
})

const balance = () => objectOf(account).balance()

test("a client's own deadline is a cancel: its receipt is charged, and its idempotency key runs again", async () => {
  await removeNodes()
  const slow = await registerNode('overdue')
  const ask = () => chat(account.key, { deadline_ms: 50 }, { 'idempotency-key': 'k' })
  const late = await ask()
  expect(late.status).toBe(504)
  const prefill = { hitTokens: 0, missTokens: 12, outputTokens: 0, firstTokenAt: null, finish: 'cancelled' as const }
  await send(slow, [receiptOf(slow, account, idOf(late), prefill)])
  expect(await balance()).toEqual({ balanceNano: CREDIT - 12 * DEFAULT_PRICE.miss, heldNano: 0 })
  await removeNodes()
  await registerNode('good')
  await vi.waitUntil(async () => (await ask()).status === 200, { timeout: 15_000 })
})

test('nor is the error frame that a deadline in prefill ends a stream with what its key repeats', async () => {
  const object = objectOf(account)
  const first = admissionOf(account, { idempotencyKey: 'k', fingerprint: 'f' })
  await object.admit(first)
  await object.keepOutcome(first.requestId, 'text/event-stream', new Uint8Array([1]))
  const prefill = { hitTokens: 0, missTokens: 12, outputTokens: 0, firstTokenAt: null, finish: 'cancelled' as const }
  await send(node, [receiptOf(node, account, first.requestId, prefill)])
  expect(await balance()).toEqual({ balanceNano: CREDIT - 12 * DEFAULT_PRICE.miss, heldNano: 0 })
  expect((await object.admit({ ...first, requestId: crypto.randomUUID() })).kind).toBe('admitted')
  // What was answered in part stays the answer.
  const begun = { ...first, requestId: crypto.randomUUID(), idempotencyKey: 'other' }
  await object.admit(begun)
  await object.keepOutcome(begun.requestId, 'text/event-stream', new Uint8Array([1]))
  await send(node, [receiptOf(node, account, begun.requestId, { outputTokens: 1, finish: 'cancelled' })])
  expect((await object.admit({ ...begun, requestId: crypto.randomUUID() })).kind).toBe('replay')
})
