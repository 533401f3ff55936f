// `GET /v1/usage/daily`: what a key, and those it was rotated from or into, were charged by UTC day and model, out of the roll-ups
// that are kept for ever.
import { z } from 'zod'
import { fail, ok, type Result } from '../schema/errors.ts'
import { formatUsd } from '../schema/money.ts'
import { USAGE_DAYS_MAX, USAGE_DAYS_SHOWN, type UsageDaily, usageDailyQuery } from '../schema/public_answers.ts'
import type { Env } from './env.ts'
import { knownCaller } from './public_api.ts'
import { readQuery } from './query.ts'

const DAY_MS = 24 * 3_600_000

const query = z.object({ from: usageDailyQuery.from.optional(), to: usageDailyQuery.to.optional() })

const dateOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10)

/**
 * Account, family, from, before. Of each key it steps from model to model, so that the primary key finds the hours of each: what the
 * key used before and after is not read.
 */
export const DAYS = `
  WITH RECURSIVE mine (key_id) AS (SELECT id FROM api_keys WHERE account_id = ?1 AND family = ?2 UNION SELECT ?2),
  models (key_id, model) AS (
    SELECT key_id, (SELECT min(model) FROM usage_hours WHERE account_id = ?1 AND key_id = mine.key_id) FROM mine
    UNION ALL
    SELECT key_id, (SELECT min(model) FROM usage_hours WHERE account_id = ?1 AND key_id = m.key_id AND model > m.model)
    FROM models AS m WHERE model IS NOT NULL)
  SELECT hour - hour % ${DAY_MS} AS day, h.model, sum(requests) AS requests, sum(hit_tokens) AS hit, sum(miss_tokens) AS miss,
    sum(output_tokens) AS output, sum(charged_nano) AS charged, sum(credit_nano) AS credit,
    CASE WHEN count(*) = count(hit_cost_nano) THEN sum(hit_cost_nano) END AS hitCost,
    sum(miss_cost_nano) AS missCost, sum(saved_nano) AS saved, sum(refund_nano) AS refund
  FROM models AS m CROSS JOIN usage_hours AS h
  WHERE h.account_id = ?1 AND h.key_id = m.key_id AND h.model = m.model AND h.hour >= ?3 AND h.hour < ?4
  GROUP BY 1, 2 ORDER BY 1, 2`

interface DayRow {
  readonly day: number
  readonly model: string
  readonly requests: number
  readonly hit: number
  readonly miss: number
  readonly output: number
  readonly charged: number
  readonly credit: number
  /** Null: some hour's costs are not known, and so none of the four of the day. */
  readonly hitCost: number | null
  readonly missCost: number
  readonly saved: number
  readonly refund: number
}

const dayOf = (row: DayRow): UsageDaily['data'][number] => ({
  date: dateOf(row.day),
  model: row.model,
  requests: row.requests,
  tokens: { prompt: row.hit + row.miss, cached: row.hit, uncached: row.miss, output: row.output },
  charge_nano: row.charged,
  charge_usd: formatUsd(row.charged),
  credit_nano: row.credit,
  costs:
    row.hitCost === null
      ? null
      : {
          cached_nano: row.hitCost,
          uncached_nano: row.missCost,
          output_nano: row.charged + row.credit - row.hitCost - row.missCost,
          saved_nano: row.saved,
          refund_nano: row.refund,
        },
})

/** First and last day as their first milliseconds. Errors: invalid_parameter. */
const spanOf = (asked: Record<string, string>, now: number): Result<{ from: number; to: number }> => {
  const parsed = readQuery(query, asked)
  if (!parsed.ok) return parsed
  const to = Date.parse(parsed.value.to ?? dateOf(now))
  const from = parsed.value.from === undefined ? to - (USAGE_DAYS_SHOWN - 1) * DAY_MS : Date.parse(parsed.value.from)
  const days = (to - from) / DAY_MS + 1
  if (days >= 1 && days <= USAGE_DAYS_MAX) return ok({ from, to })
  const message = `from: must be ${dateOf(to)} (to) or one of the ${USAGE_DAYS_MAX - 1} days before.`
  return fail('invalid_parameter', { message, param: 'from' })
}

export const listUsageDays = async (
  env: Env,
  request: Request,
  asked: Record<string, string>,
): Promise<Result<UsageDaily>> => {
  const span = spanOf(asked, Date.now())
  if (!span.ok) return span
  const caller = await knownCaller(env, request)
  if (!caller.ok) return caller
  const { accountId, family } = caller.value
  const { from, to } = span.value
  const statement = env.DB.prepare(DAYS).bind(accountId, family, from, to + DAY_MS)
  const { results } = await statement.all<DayRow & Record<string, unknown>>()
  return ok({ object: 'usage.daily', from: dateOf(from), to: dateOf(to), data: results.map(dayOf) })
}
