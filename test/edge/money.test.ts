// Invariants of money: never charged without a receipt, never twice, never below zero, whatever runs at once.
import { runDurableObjectAlarm } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import { beforeAll, expect, test } from 'vitest'
import type { AccountObject } from '../../edge/account.ts'
import { formatUsd } from '../../schema/money.ts'
import {
  type Account,
  admin,
  balanceOf,
  COST,
  chat,
  openAccount,
  receiptOf,
  registerNode,
  send,
  type TestNode,
} from './world.ts'

let node: TestNode
beforeAll(async () => {
  node = await registerNode('good')
})

const objectOf = (account: Account): DurableObjectStub<AccountObject> => {
  const namespace = (env as unknown as { ACCOUNT: DurableObjectNamespace<AccountObject> }).ACCOUNT
  return namespace.get(namespace.idFromName(account.id))
}
const run = async (account: Account): Promise<string> => (await chat(account.key)).headers.get('x-request-id') ?? ''
const held = async (account: Account): Promise<number> => (await objectOf(account).balance()).heldNano

test('a run holds its worst case until the receipt settles it; the same receipt again changes nothing', async () => {
  const account = await openAccount(1_000_000)
  const id = await run(account)
  expect(await held(account)).toBeGreaterThan(10 * 420)
  const receipt = receiptOf(node, account, id)
  for (let i = 0; i < 3; i++) expect((await send(node, [receipt])).acknowledged).toHaveLength(1)
  expect(await held(account)).toBe(0)
  expect(await balanceOf(account)).toBe(formatUsd(1_000_000 - COST))
})

test('fifty runs at once never hold more than the balance', async () => {
  const probe = await openAccount(10_000_000)
  await run(probe)
  const one = await held(probe)
  const account = await openAccount(one * 7 + one / 2)
  const answers = await Promise.all(Array.from({ length: 50 }, () => chat(account.key)))
  const statuses = answers.map(({ status }) => status)
  expect(statuses.filter((status) => status === 200)).toHaveLength(7)
  expect(statuses.filter((status) => status === 402)).toHaveLength(43)
})

test('a charge never exceeds its hold, and the balance never goes below zero', async () => {
  const account = await openAccount(50_000)
  const id = await run(account)
  const hold = await held(account)
  await send(node, [receiptOf(node, account, id, { missTokens: 1_000_000, outputTokens: 1_000_000 })])
  expect(await balanceOf(account)).toBe(formatUsd(50_000 - hold))
})

test('a released hold still settles late, capped at what other holds leave', async () => {
  const account = await openAccount(100_000)
  const late = await run(account)
  await objectOf(account).release(late)
  expect(await held(account)).toBe(0)
  await run(account)
  const free = 100_000 - (await held(account))
  await send(node, [receiptOf(node, account, late, { missTokens: 100_000 })])
  expect(await balanceOf(account)).toBe(formatUsd(100_000 - free))
})

test('receipts of an abandoned attempt count for nothing', async () => {
  const account = await openAccount(1_000_000)
  const id = await run(account)
  await objectOf(account).setAttempt(id, 2)
  await send(node, [receiptOf(node, account, id, { attempt: 1 })])
  expect(await balanceOf(account)).toBe(formatUsd(1_000_000))
  await send(node, [receiptOf(node, account, id, { attempt: 2, outputTokens: 1 })])
  expect(await balanceOf(account)).toBe(formatUsd(1_000_000 - 10 * 280 - 420))
})

test('zero is a number: a run cancelled in the queue frees its hold and costs nothing', async () => {
  const account = await openAccount(1_000_000)
  const id = await run(account)
  const zero = { missTokens: 0, outputTokens: 0, firstTokenAt: null, finish: 'cancelled' as const }
  await send(node, [receiptOf(node, account, id, zero)])
  expect(await held(account)).toBe(0)
  expect(await balanceOf(account)).toBe(formatUsd(1_000_000))
})

test('what can never be true is refused for ever, one by one', async () => {
  const account = await openAccount(1_000_000)
  const other = await registerNode('other')
  const id = await run(account)
  const good = receiptOf(node, account, id)
  const ack = await send(node, [
    receiptOf(node, account, crypto.randomUUID()),
    { ...good, hitTokens: 63 },
    { ...good, reasoningTokens: 6 },
    { ...good, model: 'dear' },
    { ...good, nodeId: other.id },
    good,
  ])
  expect(ack.refused).toHaveLength(5)
  expect(ack.acknowledged).toEqual([{ requestId: id, attempt: 1 }])
  expect(await balanceOf(account)).toBe(formatUsd(1_000_000 - COST))
})

test('a segment signed by another node is not taken', async () => {
  const account = await openAccount(1_000_000)
  const other = await registerNode('other')
  await expect(send(node, [receiptOf(node, account, await run(account))], other)).rejects.toThrow('invalid_signature')
})

test('settled rows reach D1 once, and the audit finds the books in order', async () => {
  const account = await openAccount(1_000_000)
  const ids = await Promise.all(Array.from({ length: 5 }, () => run(account)))
  const receipts = ids.map((id, seq) => receiptOf(node, account, id, { seq }))
  await send(node, receipts)
  await send(node, [...receipts].reverse())
  await runDurableObjectAlarm(objectOf(account))
  const { data } = await (await admin('GET', `/ledger?account=${account.id}`)).json<{
    data: { amountNano: number }[]
  }>()
  expect(data).toHaveLength(6)
  expect(data.reduce((sum, row) => sum + row.amountNano, 0)).toBe(1_000_000 - 5 * COST)
  expect(await (await admin('GET', '/audit')).json()).toMatchObject({ ok: true, wrongCharges: 0 })
})

test('receipts teach the prefix index', async () => {
  const account = await openAccount(1_000_000)
  const content = 'The quick brown fox jumps over the lazy dog. '.repeat(30)
  const first = await chat(account.key, { messages: [{ role: 'user', content }] })
  const key = 'a'.repeat(24)
  await send(node, [receiptOf(node, account, first.headers.get('x-request-id') ?? '', { prefix: [[key, 64]] })])
  const row = await env.DB.prepare('SELECT node_id, tokens FROM prefix_blocks WHERE key = ?').bind(key).first()
  expect(row).toEqual({ node_id: 'good', tokens: 64 })
})
