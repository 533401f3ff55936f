// What the dashboard counts and writes: exact, whatever is in it.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { daysCsv, requestsCsv } from '../../edge/dashboard/app/csv.ts'
import { mergePages } from '../../edge/dashboard/app/pages.ts'
import { shortCount, ticksOf } from '../../edge/dashboard/app/scale.ts'
import { partsOf, takenOff } from '../../edge/dashboard/app/series.ts'
import { byDay, byModel, netNano, shareText, totalOf, type UsageDay } from '../../edge/dashboard/app/totals.ts'
import type { UsageList } from '../../schema/public_answers.ts'

const day = (
  date: string,
  model: string,
  [hit, miss, output]: readonly [number, number, number],
  refund = 0,
): UsageDay => ({
  ...{ date, model, requests: 1, tokens: { prompt: hit + miss, cached: hit, uncached: miss, output } },
  ...{ charge_nano: hit * 28 + miss * 280 + output * 420 - 5, charge_usd: '0', credit_nano: 5 },
  costs: {
    ...{ cached_nano: hit * 28, uncached_nano: miss * 280, output_nano: output * 420 },
    ...{ saved_nano: hit * 252, refund_nano: refund },
  },
})

test('days without a request are there; sums by day and by model are those of all', () => {
  const data = [
    day('2026-02-28', 'a', [1024, 4, 14]),
    day('2026-02-28', 'b', [0, 3, 1], 7),
    day('2026-03-02', 'a', [1, 2, 3]),
  ]
  const days = byDay({ object: 'usage.daily', from: '2026-02-27', to: '2026-03-02', data })
  expect(days.map(({ date, totals }) => [date, totals.requests])).toEqual([
    ...[['2026-02-27', 0] as const, ['2026-02-28', 2] as const, ['2026-03-01', 0] as const, ['2026-03-02', 1] as const],
  ])
  for (const parts of [days, byModel(data)]) {
    expect(parts.reduce((sum, { totals }) => sum + netNano(totals), 0)).toBe(netNano(totalOf(data)))
  }
  for (const totals of [totalOf(data), totalOf([])]) {
    const parts = partsOf(totals, 'spend').reduce((sum, { amount }) => sum + amount, 0)
    expect(parts - takenOff(totals)).toBe(netNano(totals))
  }
  expect(takenOff(totalOf(data))).toBe(3 * 5 + 7)
})

test('costs that are not known of one day are not known of the sum', () => {
  const data = [day('2026-02-28', 'a', [1, 1, 1]), { ...day('2026-02-28', 'a', [1, 1, 1]), costs: null }]
  expect([totalOf(data).costs, partsOf(totalOf(data), 'spend')]).toEqual([
    null,
    [{ kind: 'unsplit', amount: totalOf(data).chargeNano }],
  ])
})

test('what was given back on other days is taken off a sum of which one day has no costs', () => {
  const data = [day('2026-02-27', 'a', [1, 1, 1], 7), { ...day('2026-02-28', 'a', [1, 1, 1]), costs: null }]
  const days = byDay({ object: 'usage.daily', from: '2026-02-27', to: '2026-02-28', data })
  expect(netNano(totalOf(data))).toBe(days.reduce((sum, { totals }) => sum + netNano(totals), 0))
  expect(takenOff(totalOf(data))).toBe(7)
})

test('a share is never rounded up', () => {
  const text = (cached: number, uncached: number) => shareText({ cached, uncached })
  expect([text(0, 0), text(0, 9), text(1, 9999), text(9999, 1), text(9, 0), text(1, 1), text(941, 59)]).toEqual([
    ...['–', '0%', 'under 0.1%', '99.9%', '100%', '50%', '94.1%'],
  ])
})

test('the scale has whole, even steps and holds what is drawn', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 9e15 }), (most) => {
      const ticks = ticksOf(most)
      const step = ticks[1] ?? 0
      expect(ticks.length).toBeLessThanOrEqual(5)
      expect(ticks.at(-1)).toBeGreaterThanOrEqual(most)
      ticks.forEach((tick, i) => void expect(tick).toBe(i * step))
    }),
  )
  expect([shortCount(0), shortCount(500), shortCount(2000), shortCount(2_500_000)]).toEqual(['0', '500', '2K', '2.5M'])
})

const request = (id: string, model = 'm'): UsageList['data'][number] => ({
  ...{ object: 'usage.request', request_id: id, model, api_key_id: 'k', state: 'settled', finish: 'stop' },
  ...{ tokens: { prompt: 2, cached: 1, uncached: 1, output: 1, reasoning: 0 }, charge_nano: 1234 },
  ...{ charge_usd: '0.000001234', settled_at: Date.UTC(2026, 0, 31) },
})

test('a CSV is exact, and no spreadsheet runs what is in it', () => {
  const rows = ['=HYPERLINK("http://x")', '@sum', '-1+1', 'a,b', 'two\nlines'].map((model) => request('r', model))
  const cells = requestsCsv(rows)
  expect(cells).toContain(
    `r,2026-01-31T00:00:00.000Z,"'=HYPERLINK(""http://x"")",k,stop,1,1,1,0,1234,0,0.000001234\r\n`,
  )
  for (const cell of [",'@sum,", ",'-1+1,", ',"a,b",', ',"two\nlines",']) expect(cells).toContain(cell)
  expect(daysCsv([{ ...day('2026-01-31', 'm', [1, 2, 3]), costs: null }])).toContain(
    '2026-01-31,m,1,1,2,3,,,,5,1843,,,',
  )
})

test('a fresh page meets what is shown, or takes its place', () => {
  const ids = (page: { data: UsageList['data'] }) => page.data.map(({ request_id }) => request_id).join('')
  const page = (text: string, more: boolean) => ({ data: [...text].map((id) => request(id)), has_more: more })
  const shown = page('cba', false)
  const met = mergePages(page('edc', true), shown)
  expect([ids(met), met.has_more]).toEqual(['edcba', false])
  const apart = mergePages(page('gfe', true), shown)
  expect([ids(apart), apart.has_more]).toEqual(['gfe', true])
  expect(ids(mergePages(page('a', false), undefined))).toBe('a')
})
