// Invariants of money: never charged without a receipt, never twice, never below zero, whatever runs at once.
import { runDurableObjectAlarm, runInDurableObject } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import { afterEach, beforeAll, expect, test, vi } from 'vitest'
import { accountStore } from '../../edge/account/store.ts'
import { forgetNodes } from '../../edge/live_nodes.ts'
import { formatUsd } from '../../schema/money.ts'
import { balanceSchema } from '../../schema/public_answers.ts'
import {
  type Account,
  admin,
  admissionOf,
  asCustomer,
  balanceOf,
  COST,
  chat,
  objectOf,
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
afterEach(() => {
  vi.restoreAllMocks()
})

const run = async (account: Account): Promise<string> => (await chat(account.key)).headers.get('x-request-id') ?? ''
/** Makes the account's open holds older than the receipt window, and lets its alarm see to them. */
const expireHolds = async (account: Account): Promise<void> => {
  await runInDurableObject(objectOf(account), (_object, state) => {
    state.storage.sql.exec('UPDATE holds SET created_at = created_at - 3600000')
  })
  await runDurableObjectAlarm(objectOf(account))
}
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

test('the balance tells what requests under way hold, beside the fields of DeepSeek, which stay as they are', async () => {
  const account = await openAccount(1_000_000)
  const told = async () => {
    const answer = await (await asCustomer(account, '/user/balance')).json()
    expect(balanceSchema.parse(answer)).toEqual(answer)
    return answer
  }
  const whole = { currency: 'USD', total_balance: '0.001000000', granted_balance: '0.000000000' }
  const before = { ...whole, topped_up_balance: '0.001000000', held_balance: '0.000000000' }
  expect(await told()).toEqual({ is_available: true, balance_infos: [before] })
  const ids = [await run(account), await run(account)]
  const both = await held(account)
  const during = { ...before, held_balance: formatUsd(both) }
  expect(await told()).toEqual({ is_available: true, balance_infos: [during] })
  await send(node, [receiptOf(node, account, ids[0] ?? '')])
  const left = formatUsd(1_000_000 - COST)
  const after = { ...before, total_balance: left, topped_up_balance: left, held_balance: formatUsd(both / 2) }
  expect(await told()).toEqual({ is_available: true, balance_infos: [after] })
})

test('fifty runs at once never hold more than the balance', async () => {
  const probe = await openAccount(10_000_000)
  await run(probe)
  const one = await held(probe)
  const account = await openAccount(one * 7)
  const answers = await Promise.all(Array.from({ length: 50 }, () => chat(account.key)))
  const statuses = answers.map(({ status }) => status)
  expect(statuses.filter((status) => status === 200)).toHaveLength(7)
  expect(statuses.filter((status) => status === 402)).toHaveLength(43)
  // An open hold pays for its run, also where all of the balance is held.
  const ran = answers.flatMap(({ status, headers }) => (status === 200 ? [headers.get('x-request-id') ?? ''] : []))
  await send(
    node,
    ran.map((id) => receiptOf(node, account, id)),
  )
  expect(await balanceOf(account)).toBe(formatUsd(7 * (one - COST)))
})

test('a receipt above the hold is a lie: refused, and nothing is charged', async () => {
  const account = await openAccount(50_000)
  const id = await run(account)
  const ack = await send(node, [receiptOf(node, account, id, { missTokens: 1, outputTokens: 1_000_000 })])
  expect(ack.refused[0]?.reason).toBe('it claims more than was held')
  // What a cheap prompt leaves of the hold is not there for tokens that nobody asked for.
  const more = await send(node, [receiptOf(node, account, id, { missTokens: 1, outputTokens: 11 })])
  expect(more.refused[0]?.reason).toBe('it counts more output tokens than were asked for')
  const long = await send(node, [receiptOf(node, account, id, { hitTokens: 64 * 100, missTokens: 1, outputTokens: 0 })])
  expect(long.refused[0]?.reason).toBe('it counts more prompt tokens than the prompt has bytes')
  expect(await balanceOf(account)).toBe(formatUsd(50_000))
})

test('a run that asked for no token has none: a receipt that counts one is a lie', async () => {
  const account = await openAccount(50_000)
  const scored = admissionOf(account, { maxTokens: 0 })
  await objectOf(account).admit(scored)
  const lie = await send(node, [receiptOf(node, account, scored.requestId, { missTokens: 1, outputTokens: 1 })])
  expect(lie.refused[0]?.reason).toBe('it counts more output tokens than were asked for')
  await send(node, [receiptOf(node, account, scored.requestId, { outputTokens: 0 })])
  expect(await balanceOf(account)).toBe(formatUsd(50_000 - 10 * 280))
})

test('without a receipt in time the hold is let go; a late one still settles, capped at what other holds leave', async () => {
  const account = await openAccount(30_000)
  const late = await run(account)
  await expireHolds(account)
  expect(await held(account)).toBe(0)
  await run(account)
  const free = 30_000 - (await held(account))
  await send(node, [receiptOf(node, account, late, { missTokens: 50, outputTokens: 10 })])
  expect(free).toBeLessThan(50 * 280 + 10 * 420)
  expect(await balanceOf(account)).toBe(formatUsd(30_000 - free))
})

test.each([false, true])(
  'what the edge answered with an error is never charged, whatever a receipt says (late: %s)',
  async (late) => {
    const account = await openAccount(1_000_000)
    const id = await run(account)
    if (late) await expireHolds(account)
    await objectOf(account).release(id)
    expect((await send(node, [receiptOf(node, account, id)])).acknowledged).toHaveLength(1)
    expect(await balanceOf(account)).toBe(formatUsd(1_000_000))
  },
)

test.each([false, true])(
  'receipts of an abandoned attempt count for nothing, and only the node asked may settle the next (late: %s)',
  async (late) => {
    const account = await openAccount(1_000_000)
    const other = await registerNode('other')
    const id = await run(account)
    if (late) await expireHolds(account)
    // Said twice, where the first answer was lost.
    for (let i = 0; i < 2; i++)
      await objectOf(account).setAttempt(id, other.id, { attempt: 1, nodeId: node.id, code: 'node_failed' }, 0)
    expect((await objectOf(account).holdOf(id))?.attempts).toHaveLength(1)
    await send(node, [receiptOf(node, account, id, { attempt: 1 })])
    expect((await send(node, [receiptOf(node, account, id, { attempt: 2 })])).refused).toHaveLength(1)
    expect((await send(other, [receiptOf(other, account, id, { attempt: 3 })])).refused).toHaveLength(1)
    expect(await balanceOf(account)).toBe(formatUsd(1_000_000))
    await send(other, [receiptOf(other, account, id, { attempt: 2, outputTokens: 1 })])
    expect(await balanceOf(account)).toBe(formatUsd(1_000_000 - 10 * 280 - 420))
  },
)

test('zero is a number: a run cancelled in the queue frees its hold and costs nothing', async () => {
  const account = await openAccount(1_000_000)
  const id = await run(account)
  const zero = { missTokens: 0, outputTokens: 0, firstTokenAt: null, finish: 'cancelled' as const }
  await send(node, [receiptOf(node, account, id, zero)])
  expect(await held(account)).toBe(0)
  expect(await balanceOf(account)).toBe(formatUsd(1_000_000))
  // Nor is there anything to give back.
  const { lastSeq } = await objectOf(account).books()
  await objectOf(account).release(id)
  expect((await objectOf(account).books()).lastSeq).toBe(lastSeq)
})

test('a try that repeats a request whose charge was given back is charged itself', async () => {
  const account = await openAccount(1_000_000)
  for (const isRetry of [false, true]) {
    const admission = admissionOf(account, { fingerprint: 'f', isRetry })
    await objectOf(account).admit(admission)
    await send(node, [receiptOf(node, account, admission.requestId)])
    if (!isRetry) await objectOf(account).release(admission.requestId)
    expect(await balanceOf(account)).toBe(formatUsd(isRetry ? 1_000_000 - COST : 1_000_000))
  }
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

test('a node that is gone is heard for ten seconds at most; one that registers anew is heard under its new key at once', async () => {
  const account = await openAccount(1_000_000)
  const heard = async (by: TestNode) => (await send(by, [receiptOf(by, account, crypto.randomUUID())])).refused
  const address = 'http://127.0.0.1:9'
  const before = await registerNode('leaving', 0, { address })
  expect(await heard(before)).toHaveLength(1)
  const after = await registerNode('leaving', 0, { address })
  expect(await heard(after)).toHaveLength(1)
  await env.DB.prepare('DELETE FROM nodes WHERE id = ?').bind('leaving').run()
  forgetNodes()
  const later = Date.now() + 10_000
  vi.spyOn(Date, 'now').mockReturnValue(later)
  await expect(heard(after)).rejects.toThrow('not_found')
  await expect(heard(before)).rejects.toThrow('not_found')
  vi.restoreAllMocks()
  await expect(heard(after)).rejects.toThrow('not_found')
})

test('what is held is right after a change that was rolled back', async () => {
  const account = await openAccount(1_000_000)
  const id = await run(account)
  await runInDurableObject(objectOf(account), (_object, { storage }) => {
    const store = accountStore(storage)
    const [before, hold] = [store.openHolds(), store.hold(id)]
    if (!hold) throw new Error('no hold')
    expect(before).toEqual({ count: 1, heldNano: hold.amountNano })
    const fails = (change: () => void) =>
      expect(() =>
        store.transaction(() => {
          change()
          throw new Error('rolled back')
        }),
      ).toThrow('rolled back')
    fails(() => store.addHold({ ...hold, requestId: 'second', fingerprint: null, retryOf: null }))
    expect(store.openHolds()).toEqual(before)
    fails(() => store.closeHold(hold, 'settled', Date.now()))
    expect(store.openHolds()).toEqual(before)
    expect(store.openHolds(hold.family)).toEqual(before)
    // Counted anew, each family has its own.
    store.addHold({ ...hold, requestId: 'third', family: 'other', fingerprint: null, retryOf: null })
    store.recountHolds()
    expect([store.openHolds('other'), store.openHolds(hold.family)]).toEqual([before, before])
    expect(store.openHolds()).toEqual({ count: 2, heldNano: 2 * hold.amountNano })
  })
})

test('settled rows reach D1 once, and the audit finds the books in order', async () => {
  const account = await openAccount(1_000_000)
  const ids = await Promise.all(Array.from({ length: 5 }, () => run(account)))
  const receipts = ids.map((id) => receiptOf(node, account, id))
  await send(node, receipts)
  await send(node, [...receipts].reverse())
  await runDurableObjectAlarm(objectOf(account))
  const { data } = await (await admin('GET', `/ledger?account=${account.id}`)).json<{
    data: { amountNano: number }[]
  }>()
  expect(data).toHaveLength(6)
  expect(data.reduce((sum, row) => sum + row.amountNano, 0)).toBe(1_000_000 - 5 * COST)
  expect(await (await admin('GET', '/audit')).json()).toMatchObject({ ok: true, findings: [] })
})

test('receipts teach the prefix index', async () => {
  const account = await openAccount(1_000_000)
  const content = 'The quick brown fox jumps over the lazy dog. '.repeat(30)
  const first = await chat(account.key, { messages: [{ role: 'user', content }] })
  const key = 'a'.repeat(24)
  await send(node, [receiptOf(node, account, first.headers.get('x-request-id') ?? '', { prefix: [[key, 64]] })])
  const row = await env.DB.prepare('SELECT node_id, tokens FROM prefix_blocks WHERE key = ?').bind(key).first()
  expect(row).toEqual({ node_id: 'good', tokens: 64 })
  // One that is refused teaches nothing, or a node could say what lies where of requests that it never had.
  const forged = 'b'.repeat(24)
  const ack = await send(node, [receiptOf(node, account, crypto.randomUUID(), { prefix: [[forged, 64]] })])
  expect(ack.refused).toHaveLength(1)
  expect(await env.DB.prepare('SELECT 1 FROM prefix_blocks WHERE key = ?').bind(forged).first()).toBeNull()
})
