// What is shown as CSV: amounts in whole nano-dollars, times in UTC.
import { csv } from '../../../schema/csv.ts'
import { formatUsd } from '../../../schema/money.ts'
import type { UsageList } from '../../../schema/public_answers.ts'
import type { UsageDay } from './totals.ts'

export const daysCsv = (days: readonly UsageDay[]): string =>
  csv(
    [
      ...['date_utc', 'model', 'requests', 'cached_tokens', 'uncached_tokens', 'output_tokens'],
      ...['cached_nano', 'uncached_nano', 'output_nano', 'credit_nano', 'charge_nano', 'refund_nano', 'saved_nano'],
      'charge_usd',
    ],
    days.map(({ date, model, requests, tokens, costs, credit_nano: credit, charge_nano: charge }) => [
      ...[date, model, requests, tokens.cached, tokens.uncached, tokens.output],
      ...[costs?.cached_nano ?? null, costs?.uncached_nano ?? null, costs?.output_nano ?? null, credit, charge],
      ...[costs?.refund_nano ?? null, costs?.saved_nano ?? null, formatUsd(charge)],
    ]),
  )

export const requestsCsv = (rows: UsageList['data']): string =>
  csv(
    [
      ...['request_id', 'settled_at', 'model', 'api_key_id', 'finish', 'cached_tokens', 'uncached_tokens'],
      ...['output_tokens', 'reasoning_tokens', 'charge_nano', 'refund_nano', 'charge_usd'],
    ],
    rows.map((row) => [
      ...[row.request_id, new Date(row.settled_at).toISOString(), row.model, row.api_key_id, row.finish],
      ...[row.tokens.cached, row.tokens.uncached, row.tokens.output, row.tokens.reasoning],
      ...[row.charge_nano, row.refund_nano ?? 0, row.charge_usd],
    ]),
  )
