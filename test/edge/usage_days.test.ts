// Days of usage: their sums are those of the rows and of the ledger, whatever order these come in; a key sees its own family's.
import { env } from 'cloudflare:workers'
import fc from 'fast-check'
import { beforeEach, expect, test } from 'vitest'
import { refundOf } from '../../edge/account/money.ts'
import { DAYS } from '../../edge/usage_days.ts'
import { type UsageDaily, usageDailySchema, usageListSchema } from '../../schema/public_answers.ts'
import {
  type Account,
  admin,
  admissionOf,
  asCustomer,
  COST,
  chat,
  flush,
  idOf,
  MODEL,
  objectOf,
  openAccount,
  receiptOf,
  registerNode,
  send,
} from './world.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const NOW = Date.now()

let account: Account
beforeEach(async () => {
  account = await openAccount(1e9)
})

const days = async (asked = '', by = account): Promise<UsageDaily> =>
  usageDailySchema.parse(await (await asCustomer(by, `/v1/usage/daily${asked}`)).json())

const listed = async (by = account) => {
  const rows: { charge_nano: number; refund_nano?: number | undefined }[] = []
  for (let after = ''; ; ) {
    const page = usageListSchema.parse(await (await asCustomer(by, `/v1/usage?limit=100${after}`)).json())
    rows.push(...page.data)
    if (!page.has_more) return rows
    after = `&after=${page.data.at(-1)?.request_id}`
  }
}

const sum = <T>(rows: readonly T[], of: (row: T) => number): number => rows.reduce((total, row) => total + of(row), 0)
const chargedOf = (rows: UsageDaily['data']) => sum(rows, (row) => row.charge_nano)
const refundedOf = (rows: UsageDaily['data']) => sum(rows, ({ costs }) => costs?.refund_nano ?? 0)

const ledgerSum = async (kind: string): Promise<number> =>
  (await env.DB.prepare(
    'SELECT coalesce(sum(abs(amount_nano)), 0) AS nano FROM ledger WHERE account_id = ? AND kind = ?',
  )
    .bind(account.id, kind)
    .first<number>('nano')) ?? 0

test('a charge, one given back before it is in D1 and one after: the day, the rows and the ledger agree', async () => {
  const node = await registerNode('good')
  const kept = idOf(await chat(account.key))
  const [early, late] = [admissionOf(account), admissionOf(account)]
  for (const admission of [early, late]) await objectOf(account).admit(admission)
  const cached = { hitTokens: 64, missTokens: 3, outputTokens: 2 }
  const receipts = [kept, early.requestId, late.requestId].map((id) => receiptOf(node, account, id))
  await send(node, [{ ...receipts[0], ...cached } as (typeof receipts)[0], ...receipts.slice(1)])
  await objectOf(account).release(early.requestId)
  await flush(account)
  await objectOf(account).release(late.requestId)
  await flush(account)
  const costs = { cached_nano: 64 * 28, uncached_nano: 3 * 280 + 20 * 280, output_nano: 2 * 420 + 10 * 420 }
  const charge = 64 * 28 + 3 * 280 + 2 * 420 + 2 * COST
  const { data } = await days()
  expect(data).toMatchObject([
    {
      ...{ model: MODEL, requests: 3, charge_nano: charge, credit_nano: 0 },
      tokens: { prompt: 87, cached: 64, uncached: 23, output: 12 },
      costs: { ...costs, saved_nano: 64 * (280 - 28), refund_nano: 2 * COST },
    },
  ])
  expect([chargedOf(data), refundedOf(data)]).toEqual([await ledgerSum('charge'), await ledgerSum('refund')])
  const rows = await listed()
  expect([charge, 2 * COST]).toEqual([sum(rows, (r) => r.charge_nano), sum(rows, (r) => r.refund_nano ?? 0)])
})

interface Planted {
  readonly id: string
  readonly key: number
  readonly model: string
  readonly agoHours: number
  readonly tokens: readonly [number, number, number]
  readonly price: readonly [number, number, number]
  readonly creditShare: number
  readonly refund: 'none' | 'before' | 'after'
}

const planted: fc.Arbitrary<Omit<Planted, 'id'>> = fc.record({
  key: fc.nat(2),
  model: fc.constantFrom('a', 'b/c', MODEL),
  agoHours: fc.nat(40 * 24),
  tokens: fc.tuple(fc.nat(5000), fc.nat(5000), fc.nat(500)),
  price: fc.tuple(fc.nat(30), fc.nat(300), fc.nat(500)),
  creditShare: fc.constantFrom(0, 0, 0, 7, 100),
  refund: fc.constantFrom('none', 'none', 'before', 'after'),
})

const costOf = ({ tokens, price }: Planted): number =>
  tokens[0] * price[0] + tokens[1] * price[1] + tokens[2] * price[2]
const creditOf = (row: Planted): number => Math.floor((costOf(row) * row.creditShare) / 100)

const USAGE = `INSERT INTO usage (request_id, account_id, key_id, model, hit_tokens, miss_tokens, output_tokens, hit_nano, miss_nano,
  output_nano, credit_nano, charged_nano, settled_at, node_id, epoch, seq, attempt, reasoning_tokens, finish, opened_at, closed_at, signature)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'n', 'e', 1, 1, 0, 'stop', 0, 0, '')`
const LEDGER = `INSERT INTO ledger (account_id, id, kind, amount_nano, seq, balance_after_nano, created_at) VALUES (?, ?, ?, ?, 0, 0, 0)`

const statementsOf = (row: Planted, keyId: string): D1PreparedStatement[] => {
  const charged = costOf(row) - creditOf(row)
  const [usage, ledger] = [env.DB.prepare(USAGE), env.DB.prepare(LEDGER)]
  const refund = ledger.bind(account.id, refundOf(row.id), 'refund', charged)
  return [
    ...(row.refund === 'before' ? [refund] : []),
    ledger.bind(account.id, row.id, 'charge', -charged),
    usage.bind(
      ...[row.id, account.id, keyId, row.model, ...row.tokens, ...row.price, creditOf(row), charged],
      NOW - row.agoHours * HOUR_MS,
    ),
    ...(row.refund === 'after' ? [refund] : []),
  ]
}

test('whatever was charged, credited and given back, at whatever price: sums by day and model are exact', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(planted, { minLength: 1, maxLength: 30 }), async (some) => {
      const rows = some.map((row): Planted => ({ ...row, id: crypto.randomUUID() }))
      account = await openAccount(1e9)
      const rotated = await (await admin('POST', `/keys/${account.keyId}/rotate`, { overlapSeconds: 3600 })).json<{
        id: string
        key: string
      }>()
      const made = await (await admin('POST', '/keys', { account: account.id, name: 'o' })).json<{
        id: string
        key: string
      }>()
      const keys = [account.keyId, rotated.id, made.id]
      await env.DB.batch(rows.flatMap((row) => statementsOf(row, keys[row.key] ?? '')))
      const all = `?from=${new Date(NOW - 41 * DAY_MS).toISOString().slice(0, 10)}`
      const [own, others] = [await days(all), await days(all, { ...account, key: made.key })]
      expect(chargedOf([...own.data, ...others.data])).toBe(await ledgerSum('charge'))
      expect(refundedOf([...own.data, ...others.data])).toBe(await ledgerSum('refund'))
      const list = await listed()
      expect([chargedOf(own.data), refundedOf(own.data)]).toEqual([
        sum(list, (r) => r.charge_nano),
        sum(list, (r) => r.refund_nano ?? 0),
      ])
      for (const { date, model, requests, charge_nano: charge, credit_nano: credit, costs } of own.data) {
        const inDay = (row: Planted) => new Date(NOW - row.agoHours * HOUR_MS).toISOString().startsWith(date)
        const its = rows.filter((row) => row.key < 2 && row.model === model && inDay(row))
        expect([requests, credit]).toEqual([its.length, sum(its, creditOf)])
        expect(costs?.saved_nano).toBe(sum(its, ({ tokens, price }) => tokens[0] * (price[1] - price[0])))
        const { cached_nano = 0, uncached_nano = 0, output_nano = 0 } = costs ?? {}
        expect([cached_nano, uncached_nano + output_nano]).toEqual([
          sum(its, ({ tokens, price }) => tokens[0] * price[0]),
          sum(its, ({ tokens, price }) => tokens[1] * price[1] + tokens[2] * price[2]),
        ])
        expect(charge).toBe(cached_nano + uncached_nano + output_nano - credit)
      }
      const shown = await days()
      expect(shown.data).toEqual(own.data.filter(({ date }) => date >= shown.from))
    }),
    { numRuns: 10 },
  )
})

test('hours from before costs were kept: found out from the rows where all are there, else not known', async () => {
  const hour = NOW - (NOW % HOUR_MS)
  const row: Planted = {
    ...{ id: crypto.randomUUID(), key: 0, model: 'a', agoHours: 0, tokens: [10, 20, 30], price: [1, 2, 3] },
    ...{ creditShare: 0, refund: 'before' },
  }
  await env.DB.batch(statementsOf(row, account.keyId))
  const expected = (await days()).data
  const forget = `UPDATE usage_hours SET hit_cost_nano = NULL, miss_cost_nano = NULL, saved_nano = NULL, refund_nano = NULL`
  const fill = env.TEST_MIGRATIONS.flatMap(({ queries }) => queries).find((text) =>
    /^\s*UPDATE `usage_hours`/.test(text),
  )
  await env.DB.batch([env.DB.prepare(forget), env.DB.prepare(fill ?? '')])
  expect((await days()).data).toEqual(expected)
  const swept = `INSERT INTO usage_hours (account_id, key_id, model, hour, requests, hit_tokens, miss_tokens, output_tokens, credit_nano,
    charged_nano) VALUES (?, ?, 'swept', ?, 1, 1, 1, 1, 0, 5)`
  await env.DB.batch([env.DB.prepare(swept).bind(account.id, account.keyId, hour), env.DB.prepare(fill ?? '')])
  const one = { ...row, id: crypto.randomUUID(), model: 'swept', refund: 'none' as const }
  await env.DB.batch(statementsOf(one, account.keyId))
  expect((await days()).data[1]).toMatchObject({
    model: 'swept',
    requests: 2,
    costs: null,
    charge_nano: 5 + costOf(one),
  })
})

test('days are asked for by date, 366 at most', async () => {
  const today = new Date().toISOString().slice(0, 10)
  expect(await days(`?to=2026-03-01`)).toEqual({
    object: 'usage.daily',
    from: '2026-01-31',
    to: '2026-03-01',
    data: [],
  })
  expect([(await days()).to, (await days('?from=2026-11-01&to=2026-11-01')).from]).toEqual([today, '2026-11-01'])
  for (const asked of [
    'from=',
    'from=1',
    'to=2026-02-30',
    'from=2025-01-01&to=2026-01-02',
    'from=2026-01-02&to=2026-01-01',
  ]) {
    const refused = await asCustomer(account, `/v1/usage/daily?${asked}`)
    expect([asked, refused.status]).toEqual([asked, 422])
    expect(await refused.json()).toMatchObject({ error: { param: asked.split('=')[0] } })
  }
  expect((await asCustomer({ ...account, key: 'sk-x' }, '/v1/usage/daily')).status).toBe(401)
})

test('the hours of a key are found by the primary key, whatever its account used before or beside them', async () => {
  const plan = await env.DB.prepare(`EXPLAIN QUERY PLAN ${DAYS}`).bind('', '', 0, 0).all<{ detail: string }>()
  const lines = plan.results.map(({ detail }) => detail)
  const index = 'INDEX sqlite_autoindex_usage_hours_1'
  expect(lines).toContain(`SEARCH h USING ${index} (account_id=? AND key_id=? AND model=? AND hour>? AND hour<?)`)
  expect(lines).toContain(`SEARCH usage_hours USING COVERING ${index} (account_id=? AND key_id=? AND model>?)`)
  expect(lines.filter((line) => /SCAN (?:h|usage_hours|api_keys)\b/.test(line))).toEqual([])
})
