// Answers that break between a node and a client, runs that outlast their window, calls that are lost or come late: charged once or
// not at all, and nothing stays held.
import { runInDurableObject } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { retryStore } from '../../edge/account/holds.ts'
import { nextMonth, type OutboxItem } from '../../edge/account/money.ts'
import { type AccountStore, accountStore } from '../../edge/account/store.ts'
import type { Env } from '../../edge/env.ts'
import { breaker } from '../../edge/fleet.ts'
import { complete } from '../../edge/flow/complete.ts'
import { flushOutbox } from '../../edge/outbox.ts'
import { openAiChat } from '../../schema/dialects/openai_chat.ts'
import { CLOSED_KEPT_MS, RECEIPT_WINDOW_MS } from '../../schema/limits.ts'
import { DEFAULT_PRICE, holdOf } from '../../schema/money.ts'
import {
  type Account,
  admin,
  admissionOf,
  alarm,
  asCustomer,
  COST,
  chat,
  flush,
  MODEL,
  objectOf,
  openAccount,
  receiptOf,
  registerNode,
  removeNodes,
  send,
  type TestNode,
} from './world.ts'

const CREDIT = 1e9
type Calls = Readonly<Record<string, (...args: unknown[]) => unknown>>
const NOTHING = { hitTokens: 0, missTokens: 0, outputTokens: 0, finish: 'error' as const }

let node: TestNode
let account: Account
beforeEach(async () => {
  await removeNodes()
  node = await registerNode('good')
  account = await openAccount(CREDIT)
})

afterEach(() => {
  vi.restoreAllMocks()
})

const query = (text: string, ...values: SqlStorageValue[]) =>
  runInDurableObject(objectOf(account), (_object, { storage }) => storage.sql.exec(text, ...values).toArray())
const balance = () => objectOf(account).balance()
const ofAccount = async () => {
  const { findings } = await (await admin('GET', '/audit')).json<{ findings: { account: string }[] }>()
  return findings.filter((finding) => finding.account === account.id)
}

test('charged before its answer broke off: the charge goes back, the key runs again, and is charged once', async () => {
  const object = objectOf(account)
  const first = admissionOf(account, { idempotencyKey: 'k', fingerprint: 'f' })
  await object.admit(first)
  await send(node, [receiptOf(node, account, first.requestId)])
  expect((await balance()).balanceNano).toBe(CREDIT - COST)
  for (let i = 0; i < 3; i++) await object.release(first.requestId)
  expect(await balance()).toEqual({ balanceNano: CREDIT, heldNano: 0 })
  const second = { ...first, requestId: crypto.randomUUID() }
  expect((await object.admit(second)).kind).toBe('admitted')
  await send(node, [receiptOf(node, account, second.requestId), receiptOf(node, account, first.requestId)])
  expect(await balance()).toEqual({ balanceNano: CREDIT - COST, heldNano: 0 })
  await flush(account)
  expect(await ofAccount()).toEqual([])
  const explained = await (await asCustomer(account, `/v1/usage/${first.requestId}`)).json<{
    lines: { amount_nano: number }[]
    refund_nano: number
  }>()
  expect(explained.refund_nano).toBe(COST)
  const list = await (await asCustomer(account, '/v1/usage')).json<{
    data: { request_id: string; refund_nano?: number }[]
  }>()
  expect(new Map(list.data.map((row) => [row.request_id, row.refund_nano]))).toEqual(
    new Map([
      [first.requestId, COST],
      [second.requestId, undefined],
    ]),
  )
  expect(explained.lines.reduce((sum, line) => sum + line.amount_nano, 0)).toBe(0)
})

test('two tries under one key whose answers both break off cost nothing', async () => {
  await removeNodes()
  const slow = await registerNode('slowbreak')
  for (let tries = 1; tries <= 2; tries++) {
    const answer = chat(account.key, {}, { 'idempotency-key': 'same' })
    let holds: unknown[] = []
    while (holds.length < tries)
      holds = (await query('SELECT request_id FROM holds ORDER BY rowid')).map((row) => row.request_id)
    await send(slow, [receiptOf(slow, account, String(holds.at(-1)))])
    const response = await answer
    expect([response.status, await response.text()]).toEqual([502, expect.stringContaining('not charged')])
  }
  await expect.poll(balance, { timeout: 30_000 }).toEqual({ balanceNano: CREDIT, heldNano: 0 })
})

test('an answer that its node broke off behind the head holds nothing, costs nothing, and frees its key', async () => {
  const object = objectOf(account)
  const first = admissionOf(account, { idempotencyKey: 'k', fingerprint: 'f' })
  await object.admit(first)
  await object.keepOutcome(first.requestId, 'text/event-stream', new Uint8Array([1]))
  const told = { ...NOTHING, firstTokenAt: Date.now() }
  await send(node, [receiptOf(node, account, first.requestId, told)])
  expect(await balance()).toEqual({ balanceNano: CREDIT, heldNano: 0 })
  expect(await query('SELECT * FROM outcome_parts')).toEqual([])
  expect((await object.admit({ ...first, requestId: crypto.randomUUID() })).kind).toBe('admitted')
  await flush(account)
  expect(await ofAccount()).toEqual([])
})

test('a node that failed before it answered says nothing of the attempt that follows', async () => {
  const first = admissionOf(account)
  await objectOf(account).admit(first)
  await send(node, [receiptOf(node, account, first.requestId, { ...NOTHING, firstTokenAt: null })])
  expect((await balance()).heldNano).toBeGreaterThan(0)
})

test('a run that takes longer than the window is held for as long as its tokens may take', async () => {
  const object = objectOf(account)
  const long = admissionOf(account, { maxTokens: 65_536, idempotencyKey: 'k', fingerprint: 'f' })
  const short = admissionOf(account)
  await object.admit(long)
  await object.admit(short)
  const age = (ms: number) => query('UPDATE holds SET created_at = created_at - ?', ms)
  const states = async () => (await query('SELECT state FROM holds ORDER BY rowid')).map((row) => row.state)
  await age(RECEIPT_WINDOW_MS + 1)
  await alarm(account)
  expect(await states()).toEqual(['open', 'released'])
  expect(await object.admit({ ...long, requestId: crypto.randomUUID() })).toMatchObject({
    error: { code: 'idempotency_in_progress' },
  })
  await age(3_600_000)
  await alarm(account)
  expect(await states()).toEqual(['released', 'released'])
  // Whatever became of it, its answer does not come any more.
  expect(await object.admit({ ...long, requestId: crypto.randomUUID() })).toMatchObject({
    error: { code: 'idempotency_lost' },
  })
})

test.each(['key', 'account'])('of a late receipt no more is charged than the budget of its %s has left', async (of) => {
  const late = admissionOf(account)
  await objectOf(account).admit(late)
  await query('UPDATE holds SET created_at = created_at - ?', RECEIPT_WINDOW_MS + 1)
  await alarm(account)
  const [paid, open] = [admissionOf(account), admissionOf(account)]
  for (const admission of [paid, open]) await objectOf(account).admit(admission)
  await send(node, [receiptOf(node, account, paid.requestId)])
  const path = of === 'key' ? `/keys/${account.keyId}/limits` : `/accounts/${account.id}/limits`
  const hold = holdOf(20, 10, DEFAULT_PRICE)
  expect((await admin('PUT', path, { monthlyBudgetNano: COST + hold + 1_000 })).status).toBe(200)
  await send(node, [receiptOf(node, account, late.requestId)])
  expect(await balance()).toEqual({ balanceNano: CREDIT - COST - 1_000, heldNano: hold })
})

test('what is given back may be spent again, in the month in which it was charged', async () => {
  const at = (time: number) => vi.spyOn(Date, 'now').mockReturnValue(time)
  const object = objectOf(account)
  const run = async () => {
    const admission = admissionOf(account)
    const { kind } = await object.admit(admission)
    if (kind === 'admitted') await send(node, [receiptOf(node, account, admission.requestId)])
    return { id: admission.requestId, kind }
  }
  // The end of the next month: nothing that was made just now is younger.
  const turn = nextMonth(nextMonth(Date.now()))
  at(turn - 43_200_000)
  const hold = holdOf(20, 10, DEFAULT_PRICE)
  await admin('PUT', `/keys/${account.keyId}/limits`, { monthlyBudgetNano: hold + COST - 1 })
  const first = await run()
  expect((await run()).kind).toBe('refused')
  await object.release(first.id)
  const second = await run()
  expect(second.kind).toBe('admitted')
  at(turn + 43_200_000)
  expect((await run()).kind).toBe('admitted')
  // Of one month's money nothing is the next one's.
  await object.release(second.id)
  expect((await run()).kind).toBe('refused')
})

test('a try that took a detour, too, costs nothing, and is not paid for', async () => {
  const object = objectOf(account)
  for (const isRetry of [false, true]) {
    const admission = admissionOf(account, { fingerprint: 'f', isRetry, promptBytes: 1_000 })
    await object.admit(admission)
    if (isRetry) await object.setOverlap(admission.requestId, 192)
    await send(node, [receiptOf(node, account, admission.requestId, { missTokens: 200 })])
    expect(await balance()).toEqual({ balanceNano: CREDIT - 200 * 280 - 5 * 420, heldNano: 0 })
  }
})

test('of a late receipt of a try nothing is given that was never charged', async () => {
  account = await openAccount(2 * holdOf(20, 10, DEFAULT_PRICE))
  const object = objectOf(account)
  const [first, second] = [false, true].map((isRetry) => admissionOf(account, { fingerprint: 'f', isRetry }))
  if (!first || !second) throw new Error('two')
  await object.admit(first)
  await send(node, [receiptOf(node, account, first.requestId)])
  await object.admit(second)
  await query('UPDATE holds SET created_at = created_at - ?', RECEIPT_WINDOW_MS + 1)
  await alarm(account)
  const before = (await balance()).balanceNano
  // Holds nearly all that is left.
  expect((await object.admit(admissionOf(account, { maxTokens: 20 }))).kind).toBe('admitted')
  await send(node, [receiptOf(node, account, second.requestId)])
  expect((await balance()).balanceNano).toBe(before)
})

test('where a cached token costs more than another one a detour is no reason to charge, or give, more', async () => {
  const model = 'dear-hits'
  await admin('PUT', '/prices', { model, hitNano: 500, missNano: 100, outputNano: 0 })
  const object = objectOf(account)
  for (const [isRetry, missTokens] of [
    [false, 200],
    [true, 150],
  ] as const) {
    const admission = admissionOf(account, { model, fingerprint: 'f', isRetry, promptBytes: 1_000 })
    expect((await object.admit(admission)).kind).toBe('admitted')
    await object.setOverlap(admission.requestId, 128)
    await send(node, [receiptOf(node, account, admission.requestId, { model, missTokens })])
    expect(await balance()).toEqual({ balanceNano: CREDIT - 200 * 100, heldNano: 0 })
  }
})

test('a try that was answered with an error is not repeated, nor is what another key sent', async () => {
  const object = objectOf(account)
  const made = await admin('POST', '/keys', { account: account.id, name: 'other' })
  const { id: keyId, key } = await made.json<{ id: string; key: string }>()
  const [failed, theirs, again] = [account, { ...account, keyId, key }, account].map((by, i) =>
    admissionOf(by, { fingerprint: 'f', isRetry: i > 0 }),
  )
  if (!failed || !theirs || !again) throw new Error('three')
  await object.admit(failed)
  await object.release(failed.requestId)
  for (const admission of [theirs, again]) {
    expect((await object.admit(admission)).kind).toBe('admitted')
    expect((await object.holdOf(admission.requestId))?.retryOf).toBeNull()
  }
})

test('a request that was settled gets no further attempt', async () => {
  const other = await registerNode('other')
  const first = admissionOf(account)
  const object = objectOf(account)
  await object.admit(first)
  await send(node, [receiptOf(node, account, first.requestId)])
  await object.setAttempt(first.requestId, other.id, { attempt: 1, nodeId: node.id, code: 'node_failed' }, 0)
  const second = receiptOf(other, account, first.requestId, { attempt: 2 })
  const [answer] = await object.settle([{ receipt: second, signature: 'x'.repeat(86) }])
  expect(answer).toEqual({ state: 'ignored' })
  expect((await balance()).balanceNano).toBe(CREDIT - COST)
})

test('a batch that D1 applies late does not take the balance back', async () => {
  const run = async () => {
    const admission = admissionOf(account)
    await objectOf(account).admit(admission)
    await send(node, [receiptOf(node, account, admission.requestId)])
  }
  await run()
  let late: D1PreparedStatement[] = []
  const lost = {
    prepare: (text: string) => env.DB.prepare(text),
    batch: async (statements: D1PreparedStatement[]) => {
      late = statements
      throw new Error('Network connection lost.')
    },
  } as unknown as D1Database
  const items: OutboxItem[] = await runInDurableObject(objectOf(account), (_object, { storage }) =>
    accountStore(storage).outbox(100),
  )
  expect(items.length).toBeGreaterThan(0)
  await flushOutbox(lost, { outbox: () => items } as unknown as AccountStore)
  await run()
  await flush(account)
  await env.DB.batch(late)
  expect(await ofAccount()).toEqual([])
})

test('a release that is lost once is said again', async () => {
  await removeNodes()
  const broken = await registerNode('breaks')
  let lost = 0
  const real = (env as unknown as Env).ACCOUNT
  const once = (stub: ReturnType<typeof real.get>) =>
    new Proxy(stub, {
      get: (target, name) => {
        if (name !== 'release') return (...args: unknown[]) => (target as unknown as Calls)[String(name)]?.(...args)
        return async (id: string) => {
          if (lost++ === 0) throw new Error('Network connection lost.')
          return target.release(id)
        }
      },
    })
  const objects = {
    idFromName: (name: string) => real.idFromName(name),
    get: (id: DurableObjectId) => once(real.get(id)),
  }
  const pending: Promise<unknown>[] = []
  const requestId = crypto.randomUUID()
  const response = await complete({
    ...{
      env: { ...(env as unknown as Env), ACCOUNT: objects as unknown as typeof real },
      requestId,
      dialect: openAiChat,
    },
    context: { waitUntil: (work: Promise<unknown>) => void pending.push(work) },
    request: new Request('http://edge/v1/chat/completions', {
      method: 'POST',
      headers: { authorization: `Bearer ${account.key}` },
      body: JSON.stringify({ model: MODEL, messages: [{ role: 'user', content: 'Hi' }], max_tokens: 10 }),
    }),
  })
  expect(response.status).toBe(502)
  await Promise.allSettled(pending)
  await send(broken, [receiptOf(broken, account, requestId)])
  expect(await balance()).toEqual({ balanceNano: CREDIT, heldNano: 0 })
})

test.each(['proxy', 'broken', 'unsigned'])(
  'the breaker opens on a node that answers nothing but errors: %s',
  async (id) => {
    await removeNodes()
    await registerNode(id)
    await registerNode('good', 5)
    // An open breaker is half-open after some seconds.
    vi.spyOn(Date, 'now').mockReturnValue(Date.now())
    for (let i = 0; i < 6; i++) expect((await chat(account.key)).status).toBe(200)
    expect(breaker.state(id, Date.now())).toBe('open')
    breaker.succeeded(id)
  },
)

test('a retry finds the request it repeats without reading all others', async () => {
  const now = Date.now()
  await query(
    `WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 20000)
      INSERT INTO holds (request_id, key_id, family, model, amount, prompt_bytes, max_tokens, price, created_at, fingerprint, attempt, state, closed_at)
      SELECT 'r' || i, ?1, ?1, 'tiny', 0, 20, 10, '{}', ?2 - i, 'f' || i, 1, 'settled', ?2 FROM c`,
    ...[account.keyId, now],
  )
  await runInDurableObject(objectOf(account), (_object, { storage }) => {
    let read = 0
    const sql = {
      exec: (text: string, ...values: SqlStorageValue[]) => {
        const cursor = storage.sql.exec(text, ...values)
        const rows = cursor.toArray()
        read += cursor.rowsRead
        return { toArray: () => rows }
      },
    } as unknown as SqlStorage
    expect(retryStore(sql).firstWithBody(account.keyId, 'f7', now - 600_000)).toBe('r7')
    expect(read).toBeLessThan(100)
  })
})

test('an account that nobody uses any more forgets what it should', async () => {
  const id = (await chat(account.key)).headers.get('x-request-id') ?? ''
  await send(node, [receiptOf(node, account, id)])
  await flush(account)
  const left = async () =>
    (await query('SELECT (SELECT count(*) FROM trails) AS trails, (SELECT count(*) FROM holds) AS holds'))[0]
  const next = () => runInDurableObject(objectOf(account), (_object, { storage }) => storage.getAlarm())
  expect([await left(), await next()]).toEqual([{ trails: 1, holds: 1 }, expect.any(Number)])
  await query('UPDATE trails SET at = at - ?', 25 * 3_600_000)
  await alarm(account)
  expect([await left(), await next()]).toEqual([{ trails: 0, holds: 1 }, expect.any(Number)])
  await query('UPDATE holds SET closed_at = closed_at - ?', CLOSED_KEPT_MS + 1)
  await alarm(account)
  expect([await left(), await next()]).toEqual([{ trails: 0, holds: 0 }, null])
})
