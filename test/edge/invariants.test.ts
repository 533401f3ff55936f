// What must hold for money whatever happens in whatever order: properties over random histories of one account, against the real
// object and D1. The clock is the only thing that is moved by hand.
import { runInDurableObject } from 'cloudflare:test'
import { env } from 'cloudflare:workers'
import fc from 'fast-check'
import { beforeAll, expect, test } from 'vitest'
import { costOf, DEFAULT_PRICE, holdOf } from '../../schema/money.ts'
import {
  type Account,
  admin,
  admissionOf,
  alarm,
  chat,
  flush,
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

const HOLD = holdOf(20, 10, DEFAULT_PRICE)

interface Rows {
  readonly ledger: { id: string; kind: string; amountNano: number; seq: number; balanceAfterNano: number }[]
  readonly usage: Record<'hitTokens' | 'missTokens' | 'outputTokens' | 'creditNano' | 'chargedNano', number>[]
}
const rowsOf = async (account: Account): Promise<Rows> => {
  await flush(account)
  const read = async <T>(path: string) =>
    (await (await admin('GET', `${path}?account=${account.id}`)).json<{ data: T }>()).data
  return { ledger: await read('/ledger'), usage: await read('/usage') }
}

/** What is held, as the table says: the object keeps its sum by itself. */
const heldRows = (account: Account): Promise<number> =>
  runInDurableObject(objectOf(account), (_object, { storage }) =>
    Number(storage.sql.exec("SELECT coalesce(sum(amount), 0) AS nano FROM holds WHERE state = 'open'").one().nano),
  )

/** The books of an account at rest. */
const expectBooksInOrder = async (account: Account): Promise<void> => {
  const { balanceNano, heldNano } = await objectOf(account).balance()
  expect(balanceNano - heldNano).toBeGreaterThanOrEqual(0)
  expect(heldNano).toBe(await heldRows(account))
  const { ledger, usage } = await rowsOf(account)
  expect(ledger.reduce((sum, row) => sum + row.amountNano, 0)).toBe(balanceNano)
  expect(new Set(ledger.map(({ id }) => id)).size).toBe(ledger.length)
  expect(ledger.map(({ seq }) => seq).sort((a, b) => a - b)).toEqual(ledger.map((_, i) => i + 1))
  for (const { hitTokens, missTokens, outputTokens, creditNano, chargedNano } of usage) {
    const cost = costOf({ hit: hitTokens, miss: missTokens, output: outputTokens }, DEFAULT_PRICE)
    expect(chargedNano).toBe(cost - creditNano)
  }
  expect(ledger.filter(({ kind }) => kind === 'charge')).toHaveLength(usage.length)
}

test('200 requests at once on an account with money for ten: ten run, and nothing is ever overdrawn', async () => {
  const probe = await openAccount(10_000_000)
  await chat(probe.key)
  const one = (await objectOf(probe).balance()).heldNano
  const account = await openAccount(one * 10 + one - 1)
  let watching = true
  const low = (async () => {
    let lowest = Infinity
    while (watching) {
      const { balanceNano, heldNano } = await objectOf(account).balance()
      lowest = Math.min(lowest, balanceNano - heldNano)
    }
    return lowest
  })()
  const answers = await Promise.all(Array.from({ length: 200 }, () => chat(account.key)))
  watching = false
  expect(await low).toBeGreaterThanOrEqual(0)
  const ran = answers.filter(({ status }) => status === 200).map(({ headers }) => headers.get('x-request-id') ?? '')
  expect(ran).toHaveLength(10)
  expect(answers.filter(({ status }) => status === 402)).toHaveLength(190)
  // Receipts of all of them, three times each, at once.
  const receipts = ran.map((id) => receiptOf(node, account, id))
  await Promise.all([receipts, [...receipts].reverse(), receipts].map((batch) => send(node, batch)))
  expect((await objectOf(account).balance()).heldNano).toBe(0)
  await expectBooksInOrder(account)
})

type Step =
  | { kind: 'admit'; count: number; retry: boolean }
  | {
      kind: 'settle'
      which: number
      hit: number
      miss: number
      output: number
      attempt: number
      finish: 'stop' | 'cancelled' | 'error'
    }
  | { kind: 'again'; which: number }
  | { kind: 'release'; which: number }
  | { kind: 'next'; which: number }
  | { kind: 'late' }
  | { kind: 'flush'; failing: boolean }
  | { kind: 'topUp'; id: number; nano: number }

const which = fc.nat(11)
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('admit' as const),
      count: fc.integer({ min: 1, max: 6 }),
      retry: fc.boolean(),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('settle' as const),
      ...{
        which,
        hit: fc.constantFrom(0, 0, 64),
        miss: fc.nat(24),
        output: fc.nat(12),
        attempt: fc.integer({ min: 1, max: 3 }),
      },
      finish: fc.constantFrom('stop' as const, 'cancelled' as const, 'error' as const),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('again' as const), which }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('release' as const), which }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('next' as const), which }) },
  { weight: 1, arbitrary: fc.constant({ kind: 'late' as const }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('flush' as const), failing: fc.boolean() }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('topUp' as const), id: fc.nat(2), nano: fc.constantFrom(1, HOLD) }),
  },
)

/** One account's history; each step may find nothing to act on, which is a step too. */
class History {
  readonly ids: string[] = []
  readonly sent: ReturnType<typeof receiptOf>[] = []
  readonly account: Account

  constructor(account: Account) {
    this.account = account
  }

  get #object() {
    return objectOf(this.account)
  }

  async do(s: Step): Promise<void> {
    const id = 'which' in s ? this.ids[s.which % Math.max(1, this.ids.length)] : undefined
    if (s.kind === 'admit') await this.#admit(s.count, s.retry)
    else if (s.kind === 'topUp') await this.#object.topUp(`t${s.id}`, s.nano)
    else if (s.kind === 'late') await this.#late()
    else if (s.kind === 'flush') await this.#flush(s.failing)
    else if (!id) return
    else if (s.kind === 'settle') await this.#settle(id, s)
    else if (s.kind === 'release') await this.#object.release(id)
    else if (s.kind === 'next')
      await this.#object.setAttempt(
        id,
        node.id,
        { attempt: 1, nodeId: 'down', code: 'node_failed' },
        s.which % 2 === 0 ? 64 : 0,
      )
    else await this.#again(s.which)
  }

  async #admit(count: number, retry: boolean): Promise<void> {
    const body = { fingerprint: 'same', isRetry: retry }
    const asked = Array.from({ length: count }, () => admissionOf(this.account, body))
    const answers = await Promise.all(asked.map((a) => this.#object.admit(a)))
    answers.forEach((answer, i) => {
      if (answer.kind === 'admitted') this.ids.push(asked[i]?.requestId ?? '')
    })
  }

  async #settle(id: string, s: Extract<Step, { kind: 'settle' }>): Promise<void> {
    const { hit: hitTokens, miss: missTokens, output, attempt, finish } = s
    const outputTokens = missTokens === 0 ? 0 : output
    const receipt = receiptOf(node, this.account, id, { hitTokens, missTokens, outputTokens, attempt, finish })
    this.sent.push(receipt)
    await send(node, [receipt, receipt])
  }

  async #again(which: number): Promise<void> {
    const receipt = this.sent[which % Math.max(1, this.sent.length)]
    if (receipt) await Promise.all([send(node, [receipt]), send(node, [receipt])])
  }

  async #late(): Promise<void> {
    await runInDurableObject(this.#object, (_object, state) => {
      state.storage.sql.exec("UPDATE holds SET created_at = created_at - 3600000 WHERE state = 'open'")
    })
    await alarm(this.account)
  }

  async #flush(failing: boolean): Promise<void> {
    if (failing) await env.DB.prepare('ALTER TABLE ledger RENAME TO ledger_away').run()
    try {
      await alarm(this.account)
    } finally {
      if (failing) await env.DB.prepare('ALTER TABLE ledger_away RENAME TO ledger').run()
    }
  }
}

test('any history of admissions, receipts, repetitions, releases, time-outs and failing flushes leaves the books in order', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 20 }), async (steps) => {
      const history = new History(await openAccount(HOLD * 3 + 7))
      for (const s of steps) {
        await history.do(s)
        const { balanceNano, heldNano } = await objectOf(history.account).balance()
        expect(balanceNano - heldNano).toBeGreaterThanOrEqual(0)
      }
      await expectBooksInOrder(history.account)
    }),
    { numRuns: 8, endOnFailure: true },
  )
  expect(await (await admin('GET', '/audit')).json()).toMatchObject({ ok: true })
})

test('a client that leaves after any byte is charged exactly what the receipt says', async () => {
  const account = await openAccount(100_000_000)
  const whole = new TextEncoder().encode(await (await chat(account.key, { stream: true })).text()).length
  await fc.assert(
    fc.asyncProperty(fc.nat(whole), fc.nat(10), async (bytes, outputTokens) => {
      const before = (await objectOf(account).balance()).balanceNano
      const response = await chat(account.key, { stream: true })
      const reader = response.body?.getReader({ mode: 'byob' })
      if (bytes > 0) await reader?.readAtLeast(bytes, new Uint8Array(bytes))
      await reader?.cancel()
      const id = response.headers.get('x-request-id') ?? ''
      expect((await objectOf(account).balance()).balanceNano).toBe(before)
      await send(node, [receiptOf(node, account, id, { outputTokens, finish: 'cancelled' })])
      expect((await objectOf(account).balance()).balanceNano).toBe(before - 10 * 280 - outputTokens * 420)
    }),
    { numRuns: 12 },
  )
  await expectBooksInOrder(account)
})
