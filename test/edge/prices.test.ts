// Prices that were announced and are taken back: what a run is billed by, the list and the audit agree at every moment.
import { runInDurableObject } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import { afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import type { AccountObject } from '../../edge/account.ts'
import { PRICE_NOTICE_MS } from '../../schema/limits.ts'
import {
  type Account,
  admin,
  admissionOf,
  flush,
  objectOf,
  openAccount,
  receiptOf,
  registerNode,
  send,
} from './world.ts'

let account: Account
let model: string
let node: Awaited<ReturnType<typeof registerNode>>
beforeAll(async () => {
  node = await registerNode('good')
})
beforeEach(async () => {
  account = await openAccount(1e9)
  model = crypto.randomUUID()
})
afterEach(() => {
  vi.restoreAllMocks()
})

const set = async (nano: number, effectiveFrom?: number): Promise<number> => {
  const price = { model, hitNano: nano, missNano: nano, outputNano: nano }
  const answer = await admin('PUT', '/prices', { ...price, ...(effectiveFrom === undefined ? {} : { effectiveFrom }) })
  expect(answer.status).toBe(200)
  return (await answer.json<{ effectiveFrom: number }>()).effectiveFrom
}
/** Another price, so many milliseconds before it is too late to withdraw it: a call might take longer to set it. */
const announced = async (ms: number): Promise<number> => {
  const from = Date.now() + PRICE_NOTICE_MS + ms
  const row = 'INSERT INTO prices (model, effective_from, hit_nano, miss_nano, output_nano) VALUES (?, ?, 9, 9, 9)'
  await env.DB.prepare(row).bind(model, from).run()
  return from
}
const withdraw = (effectiveFrom: number) => admin('POST', '/prices/withdraw', { model, effectiveFrom })
const codeOf = async (answer: Response) => [
  answer.status,
  (await answer.json<{ error: { code: string } }>()).error.code,
]

/** A run is admitted; its id. */
const admitted = async (): Promise<string> => {
  const admission = admissionOf(account, { model })
  expect((await objectOf(account).admit(admission)).kind).toBe('admitted')
  return admission.requestId
}
/** Since when the price holds by which it will be billed. */
const priceOf = async (requestId: string) => (await objectOf(account).holdOf(requestId))?.price.from
const settle = async (ids: readonly string[]): Promise<void> => {
  await send(
    node,
    ids.map((id) => receiptOf(node, account, id, { model })),
  )
  await flush(account)
}
const findings = async () => (await (await admin('GET', '/audit')).json<{ findings: object[] }>()).findings

test('a price that was announced is withdrawn: no account that knew it bills by it, and it is in the log', async () => {
  const first = await set(1)
  const later = await set(2, Date.now() + 2 * PRICE_NOTICE_MS)
  // From now on the account knows both.
  const before = await admitted()
  expect(await (await withdraw(later)).json()).toEqual({ model, effectiveFrom: later, withdrawn: true })
  vi.spyOn(Date, 'now').mockReturnValue(later + 1)
  const after = await admitted()
  expect([await priceOf(before), await priceOf(after)]).toEqual([first, first])
  await settle([before, after])
  expect(await findings()).toEqual([])
  const { data } = await (await admin('GET', '/log')).json<{
    data: { action: string; phase: string; detail: string }[]
  }>()
  const logged = data.filter(({ action }) => action === 'POST /prices/withdraw').slice(0, 2)
  expect(logged).toMatchObject([{ phase: 'done' }, { phase: 'asked', detail: expect.stringContaining(String(later)) }])
})

test('withdrawn a second time it is as withdrawn as before; what was never announced is still told apart', async () => {
  const later = await announced(60_000)
  const first = await (await withdraw(later)).json()
  const again = await withdraw(later)
  expect([again.status, await again.json()]).toEqual([200, first])
  expect(await codeOf(await withdraw(later + 1))).toEqual([404, 'not_found'])
  // A call that was refused withdrew nothing, though it stands in the log twice.
  expect(await codeOf(await withdraw(later + 1))).toEqual([404, 'not_found'])
  expect((await admin('POST', '/prices/withdraw', { model: `${model}-other`, effectiveFrom: later })).status).toBe(404)
  // Nor does what is no JSON hold up the search.
  const row = 'INSERT INTO audit_log (at, call_id, phase, action, ip, detail) VALUES (1, ?, ?, ?, ?, ?)'
  for (const phase of ['asked', 'done'])
    await env.DB.prepare(row).bind('c', phase, 'POST /prices/withdraw', '', '{"body":"{"}').run()
  expect((await withdraw(later)).status).toBe(200)
})

test('an account that cannot read the list again bills by none: it may know a price that was withdrawn', async () => {
  await set(1)
  const later = await set(2, Date.now() + 2 * PRICE_NOTICE_MS)
  await admitted()
  await withdraw(later)
  await env.DB.prepare('ALTER TABLE prices RENAME TO prices_away').run()
  try {
    const now = Date.now()
    vi.spyOn(Date, 'now').mockReturnValue(now + 40_000)
    await admitted()
    vi.spyOn(Date, 'now').mockReturnValue(later + 1)
    const admission = admissionOf(account, { model })
    const refused = await runInDurableObject(objectOf(account), (object) =>
      (object as unknown as AccountObject).admit(admission).catch(String),
    )
    expect(refused).toMatch(/prices/)
  } finally {
    await env.DB.prepare('ALTER TABLE prices_away RENAME TO prices').run()
  }
})

test('a price that begins within the notice, is in force, or is not there cannot be withdrawn', async () => {
  const first = await set(1)
  const soon = await set(2)
  expect(await codeOf(await withdraw(soon))).toEqual([409, 'conflict'])
  expect(await codeOf(await withdraw(first))).toEqual([409, 'conflict'])
  expect(await codeOf(await withdraw(soon + 1))).toEqual([404, 'not_found'])
  const later = await set(3, Date.now() + 2 * PRICE_NOTICE_MS)
  expect((await withdraw(later)).status).toBe(200)
  // By an isolate whose clock is behind.
  const late = await announced(1)
  await vi.waitUntil(() => Date.now() > late - PRICE_NOTICE_MS)
  vi.spyOn(Date, 'now').mockReturnValue(first)
  expect(await codeOf(await withdraw(late))).toEqual([409, 'conflict'])
})

test('withdrawn at the last moment, while runs are admitted: each is billed by what is in the list at its time', async () => {
  const answers = new Set<number>()
  for (const ms of [30_000, 200, 80, 40, 20, 10, 5, 0]) {
    account = await openAccount(1e9)
    model = crypto.randomUUID()
    await set(1)
    const later = await announced(ms)
    const [id, { status }] = await Promise.all([admitted(), withdraw(later)])
    answers.add(status)
    const ids = [id]
    const clock = vi.spyOn(Date, 'now')
    for (const at of [later - 1, later, later + 1]) {
      clock.mockReturnValue(at)
      ids.push(await admitted())
    }
    clock.mockRestore()
    await settle(ids)
  }
  expect(await findings()).toEqual([])
  expect([...answers].sort()).toEqual([200, 409])
})
