// Sums over days of usage, in whole tokens and nano-dollars.
import type { UsageDaily } from '../../../schema/public_answers.ts'

export type UsageDay = UsageDaily['data'][number]

/** What tokens cost by kind, before credits; null where it is not known of all days. */
export type Costs = NonNullable<UsageDay['costs']>

export interface Totals {
  readonly requests: number
  readonly cached: number
  readonly uncached: number
  readonly output: number
  readonly chargeNano: number
  readonly creditNano: number
  /** Given back after the charge, where that is known: a day without costs hides none of the others'. */
  readonly refundNano: number
  readonly costs: Costs | null
}

const NO_COSTS: Costs = { cached_nano: 0, uncached_nano: 0, output_nano: 0, saved_nano: 0, refund_nano: 0 }
const NOTHING: Totals = {
  requests: 0,
  cached: 0,
  uncached: 0,
  output: 0,
  chargeNano: 0,
  creditNano: 0,
  refundNano: 0,
  costs: NO_COSTS,
}

const addCosts = (a: Costs | null, b: Costs | null): Costs | null =>
  a && b
    ? {
        cached_nano: a.cached_nano + b.cached_nano,
        uncached_nano: a.uncached_nano + b.uncached_nano,
        output_nano: a.output_nano + b.output_nano,
        saved_nano: a.saved_nano + b.saved_nano,
        refund_nano: a.refund_nano + b.refund_nano,
      }
    : null

const add = (sum: Totals, day: UsageDay): Totals => ({
  requests: sum.requests + day.requests,
  cached: sum.cached + day.tokens.cached,
  uncached: sum.uncached + day.tokens.uncached,
  output: sum.output + day.tokens.output,
  chargeNano: sum.chargeNano + day.charge_nano,
  creditNano: sum.creditNano + day.credit_nano,
  refundNano: sum.refundNano + (day.costs?.refund_nano ?? 0),
  costs: addCosts(sum.costs, day.costs),
})

export const totalOf = (days: readonly UsageDay[]): Totals => days.reduce(add, NOTHING)

/** What was paid in the end. */
export const netNano = ({ chargeNano, refundNano }: Totals): number => chargeNano - refundNano

const DAY_MS = 24 * 3_600_000

/** Every day of the span, those without a request too. */
export const byDay = ({ from, to, data }: UsageDaily): { date: string; totals: Totals }[] => {
  const count = Math.round((Date.parse(to) - Date.parse(from)) / DAY_MS) + 1
  return Array.from({ length: count }, (_, i) => {
    const date = new Date(Date.parse(from) + i * DAY_MS).toISOString().slice(0, 10)
    return { date, totals: totalOf(data.filter((day) => day.date === date)) }
  })
}

/** The dearest first. */
export const byModel = (data: readonly UsageDay[]): { model: string; totals: Totals }[] =>
  [...new Set(data.map(({ model }) => model))]
    .map((model) => ({ model, totals: totalOf(data.filter((day) => day.model === model)) }))
    .sort((a, b) => netNano(b.totals) - netNano(a.totals))

/** Share of prompt tokens that were cached, cut, not rounded: all is 100%, nearly all is not. */
export const shareText = ({ cached, uncached }: Pick<Totals, 'cached' | 'uncached'>): string => {
  const prompt = cached + uncached
  if (prompt === 0) return '–'
  const tenths = Math.floor((cached * 1000) / prompt)
  return cached > 0 && tenths === 0 ? 'under 0.1%' : `${tenths % 10 === 0 ? tenths / 10 : (tenths / 10).toFixed(1)}%`
}
