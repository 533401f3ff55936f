// When an account's object acts by itself: its next alarm is set for whatever waits, and a request that waits for room gets it at once.
import { runInDurableObject } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { CLOSED_KEPT_MS, RECEIPT_WINDOW_MS } from '../../schema/limits.ts'
import { DEFAULT_PRICE, holdOf } from '../../schema/money.ts'
import {
  type Account,
  ALARM_LATE_MS,
  admin,
  admissionOf,
  alarm,
  flush,
  objectOf,
  openAccount,
  receiptOf,
  registerNode,
  send,
  type TestNode,
} from './world.ts'

const HOLD = holdOf(20, 10, DEFAULT_PRICE)
let node: TestNode
let account: Account
let now: number
beforeEach(async () => {
  node = await registerNode('good')
  account = await openAccount(1e9)
  await flush(account)
  now = Date.now()
  vi.spyOn(Date, 'now').mockImplementation(() => now)
})
afterEach(() => {
  vi.restoreAllMocks()
})

const query = (text: string, ...values: SqlStorageValue[]) =>
  runInDurableObject(objectOf(account), (_object, { storage }) => storage.sql.exec(text, ...values).toArray())
/** So long from now the object wakes; `null`: never. */
const wakesIn = async (): Promise<number | null> => {
  const at = await runInDurableObject(objectOf(account), (_object, { storage }) => storage.getAlarm())
  return at === null ? null : at - ALARM_LATE_MS - now
}
const settled = async (): Promise<string> => {
  const { requestId } = admissionOf(account)
  await objectOf(account).admit(admissionOf(account, { requestId }))
  await send(node, [receiptOf(node, account, requestId)])
  return requestId
}

test('an account without anything to do sleeps; one with a hold wakes when its receipt should have come', async () => {
  expect(await wakesIn()).toBeNull()
  await objectOf(account).admit(admissionOf(account))
  expect(await wakesIn()).toBe(RECEIPT_WINDOW_MS)
})

test.each([
  ['the window', 10, RECEIPT_WINDOW_MS],
  ['what its tokens may take', 65_536, 65_536 * 60],
  ['two hours, however many tokens are asked for', 65_536 * 128, 2 * 3_600_000],
])('a hold that is open when the object slept is let go after %s', async (_of, maxTokens, ms) => {
  account = await openAccount(1e13)
  await objectOf(account).admit(admissionOf(account, { maxTokens }))
  await alarm(account)
  expect(await wakesIn()).toBe(ms)
  now += ms
  await alarm(account)
  expect((await objectOf(account).balance()).heldNano).toBe(0)
})

test('charges and refunds are on their way within a second, and soon again where D1 fails', async () => {
  const id = await settled()
  expect(await wakesIn()).toBeLessThanOrEqual(1_000)
  await env.DB.prepare('ALTER TABLE ledger RENAME TO ledger_away').run()
  await alarm(account)
  await env.DB.prepare('ALTER TABLE ledger_away RENAME TO ledger').run()
  expect(await wakesIn()).toBeLessThanOrEqual(5_000)
  await flush(account)
  expect(await wakesIn()).toBeGreaterThan(5_000)
  await objectOf(account).release(id)
  expect(await wakesIn()).toBeLessThanOrEqual(1_000)
})

test('a later wish does not put off an earlier one, nor does one of an object that was evicted', async () => {
  await settled()
  await objectOf(account).admit(admissionOf(account))
  expect(await wakesIn()).toBeLessThanOrEqual(1_000)
  await alarm(account)
  const before = await wakesIn()
  await runInDurableObject(objectOf(account), (_object, state) => state.abort('evicted')).catch(() => {})
  // Behind where tests set the alarm, or the wish would be the earlier one.
  now += ALARM_LATE_MS + 60_000
  await objectOf(account).admit(admissionOf(account))
  expect((await wakesIn()) ?? 0).toBe((before ?? 0) - ALARM_LATE_MS - 60_000)
})

test('what is to be forgotten goes once an hour, not row by row', async () => {
  await settled()
  await query('UPDATE holds SET closed_at = ?', now - CLOSED_KEPT_MS + 1)
  await alarm(account)
  expect(await wakesIn()).toBe(3_600_000)
})

/** The clock stands and no wait ends by itself: only room that was made lets a request in. */
const withoutTimers = (): void => {
  const real = setTimeout
  vi.spyOn(globalThis, 'setTimeout').mockImplementation(((work: () => void, ms?: number) =>
    ms !== undefined && ms > 500 && ms <= 600 ? 0 : real(work, ms)) as typeof setTimeout)
}

const ROOM: [string, (id: string) => Promise<unknown>][] = [
  ['its receipt', (id) => send(node, [receiptOf(node, account, id)])],
  ['an error of the edge', (id) => objectOf(account).release(id)],
  [
    'no receipt in time',
    async (id) => {
      await query('UPDATE holds SET created_at = ? WHERE request_id = ?', now - RECEIPT_WINDOW_MS, id)
      await alarm(account)
    },
  ],
]
test.each(ROOM)(
  'a request that waits for another gets its room as soon as that one ends with %s',
  async (_how, end) => {
    await admin('PUT', `/accounts/${account.id}/limits`, { concurrency: 1 })
    const first = admissionOf(account)
    await objectOf(account).admit(first)
    withoutTimers()
    const next = objectOf(account).admit(admissionOf(account))
    await end(first.requestId)
    expect((await next).kind).toBe('admitted')
  },
  30_000,
)

test.each([
  ['balance', { creditNano: 2 * HOLD - 1 }, 'insufficient_balance'],
  ['budget of its key', { creditNano: 1e9, monthlyBudgetNano: 2 * HOLD - 1 }, 'insufficient_quota'],
])(
  'a request waits for money of its %s that a run is about to leave, and for no other',
  async (_of, limits, code) => {
    const { creditNano, ...rest } = { monthlyBudgetNano: undefined, ...limits }
    account = await openAccount(creditNano)
    if (rest.monthlyBudgetNano) await admin('PUT', `/keys/${account.keyId}/limits`, rest)
    const object = objectOf(account)
    const first = admissionOf(account)
    expect((await object.admit(first)).kind).toBe('admitted')
    const next = object.admit(admissionOf(account))
    await send(node, [receiptOf(node, account, first.requestId)])
    expect((await next).kind).toBe('admitted')
    // As long as the clock stands this one would wait for ever.
    expect(await object.admit(admissionOf(account, { maxTokens: 1_000 }))).toMatchObject({ error: { code } })
  },
  30_000,
)
