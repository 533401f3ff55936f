// A charge explained to whoever pays it: `GET /v1/usage` lists what a key was charged for, `GET /v1/usage/{request_id}` takes one
// charge apart, line by line. A key sees its own requests, and those of the keys it was rotated from or into.
import { and, desc, eq, gte, lt, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/d1'
import { z } from 'zod'
import { apiKeys, ledger, usage } from '../schema/db.ts'
import { fail, ok, type Result } from '../schema/errors.ts'
import { formatUsd } from '../schema/money.ts'
import {
  type PendingUsage,
  type SettledUsage,
  USAGE_PAGE,
  type UsageList,
  usageQuery,
} from '../schema/public_answers.ts'
import type { FinishReason } from '../schema/wire.ts'
import type { FailedAttempt, Hold } from './account/holds.ts'
import { type Credit, refundOf } from './account/money.ts'
import { accountObject, type Env } from './env.ts'
import { type KnownCaller, knownCaller, REQUEST_ID_IS } from './public_api.ts'
import { readQuery, whole } from './query.ts'

type UsageRow = typeof usage.$inferSelect

const { from, to, limit, after } = usageQuery
const query = z.object({
  from: whole.pipe(from).optional(),
  to: whole.pipe(to).optional(),
  limit: whole.pipe(limit).default(USAGE_PAGE),
  after: after.optional(),
})

type Line = SettledUsage['lines'][number]

const CREDIT_TEXT: Readonly<Record<Credit['reason'], string>> = {
  retry: 'already charged for the request that this one repeats',
  late_receipt: 'not charged: the receipt came too late and the balance or budget no longer covered it',
  affinity: 'billed as cached: another node held this prefix, and it was our choice not to send the request there',
}

const tokenLine = (item: string, quantity: number, unit: number): Line => ({
  item,
  quantity,
  unit_nano: unit,
  amount_nano: quantity * unit,
})

const linesOf = (row: UsageRow): Line[] => [
  tokenLine('cached prompt tokens', row.hitTokens, row.hitNano),
  tokenLine('uncached prompt tokens', row.missTokens, row.missNano),
  tokenLine('output tokens', row.outputTokens, row.outputNano),
  ...(JSON.parse(row.credits) as Credit[]).map(({ reason, nano, tokens }) => ({
    item: CREDIT_TEXT[reason],
    ...(tokens === undefined ? {} : { quantity: tokens, unit_nano: row.hitNano - row.missNano }),
    amount_nano: -nano,
  })),
]

const summary = (row: UsageRow, refundNano: number): UsageList['data'][number] => ({
  object: 'usage.request',
  request_id: row.requestId,
  model: row.model,
  api_key_id: row.keyId,
  state: 'settled',
  finish: row.finish as FinishReason,
  tokens: {
    prompt: row.hitTokens + row.missTokens,
    cached: row.hitTokens,
    uncached: row.missTokens,
    output: row.outputTokens,
    reasoning: row.reasoningTokens,
  },
  charge_nano: row.chargedNano,
  charge_usd: formatUsd(row.chargedNano),
  ...(refundNano > 0 ? { refund_nano: refundNano } : {}),
  settled_at: row.settledAt,
})

const attemptsOf = (failed: readonly FailedAttempt[], last?: { attempt: number; node: string }) => [
  ...failed.map(({ attempt, nodeId, code }) => ({ attempt, node: nodeId, outcome: code })),
  ...(last ? [{ ...last, outcome: 'answered' }] : []),
]

/** Given back after the charge, by request; most never are. */
const refundsOf = async (env: Env, accountId: string, rows: readonly UsageRow[]): Promise<Map<string, number>> => {
  const ids = JSON.stringify(rows.map(({ requestId }) => refundOf(requestId)))
  const mine = and(eq(ledger.accountId, accountId), sql`${ledger.id} IN (SELECT value FROM json_each(${ids}))`)
  const found = await drizzle(env.DB).select().from(ledger).where(mine)
  return new Map(found.map(({ id, amountNano }) => [id, amountNano]))
}

const REFUND_TEXT = 'given back: the answer broke off on its way and was not delivered'

const explained = (row: UsageRow, refundNano: number): SettledUsage => ({
  ...summary(row, refundNano),
  lines: [...linesOf(row), ...(refundNano > 0 ? [{ item: REFUND_TEXT, amount_nano: -refundNano }] : [])],
  price_version: row.priceFrom,
  hold: { amount_nano: row.holdNano, at: row.admittedAt, returned_nano: row.holdNano - row.chargedNano },
  attempts: attemptsOf(JSON.parse(row.attempts) as FailedAttempt[], { attempt: row.attempt, node: row.nodeId }),
  credit_nano: row.creditNano,
  ...(row.retryOf ? { repeats: row.retryOf } : {}),
  timing: { opened_at: row.openedAt, first_token_at: row.firstTokenAt, closed_at: row.closedAt },
  receipt: { node: row.nodeId, epoch: row.epoch, seq: row.seq, signature: row.signature },
})

const STATE_TEXT: Readonly<Record<Hold['state'], string>> = {
  open: 'running, or its receipt is on its way',
  settled: 'settled a moment ago',
  void: 'not charged: it was answered with an error before any token',
  released: 'not charged: no receipt came in time',
}

/** A request without a usage row (yet): what the account's object knows of it. */
const pending = (hold: Hold): PendingUsage => ({
  object: 'usage.request',
  request_id: hold.requestId,
  model: hold.model,
  api_key_id: hold.keyId,
  state: hold.state,
  note: STATE_TEXT[hold.state],
  lines: [],
  charge_nano: hold.chargedNano,
  charge_usd: formatUsd(hold.chargedNano),
  price_version: hold.price.from,
  hold: {
    amount_nano: hold.amountNano,
    at: hold.createdAt,
    returned_nano: hold.state === 'open' ? 0 : hold.amountNano - hold.chargedNano,
  },
  attempts: attemptsOf(hold.attempts),
})

const familyKeys = async (env: Env, { accountId, family }: KnownCaller): Promise<string[]> => {
  const mine = and(eq(apiKeys.accountId, accountId), eq(apiKeys.family, family))
  const rows = await drizzle(env.DB).select({ id: apiKeys.id }).from(apiKeys).where(mine)
  return [...new Set([family, ...rows.map(({ id }) => id)])]
}

export const explainUsage = async (env: Env, request: Request, requestId: string): Promise<Result<object>> => {
  const caller = await knownCaller(env, request)
  if (!caller.ok) return caller
  const keys = await familyKeys(env, caller.value)
  const row = (await drizzle(env.DB).select().from(usage).where(eq(usage.requestId, requestId)))[0]
  if (row && keys.includes(row.keyId)) {
    const refunds = await refundsOf(env, row.accountId, [row])
    return ok(explained(row, refunds.get(refundOf(requestId)) ?? 0))
  }
  const hold = row ? undefined : await accountObject(env, caller.value.accountId).holdOf(requestId)
  if (hold && keys.includes(hold.keyId)) return ok(pending(hold))
  return fail('not_found', {
    message: `This key made no request "${requestId}", or it is too long ago. ${REQUEST_ID_IS}`,
  })
}

export const listUsage = async (
  env: Env,
  request: Request,
  asked: Record<string, string>,
): Promise<Result<UsageList>> => {
  const parsed = readQuery(query, asked)
  if (!parsed.ok) return parsed
  const caller = await knownCaller(env, request)
  if (!caller.ok) return caller
  const { limit, after, to, from = 0 } = parsed.value
  // Not as parameters, of which D1 takes a hundred.
  const { accountId, family } = caller.value
  const mine = sql`SELECT id FROM api_keys WHERE account_id = ${accountId} AND family = ${family} UNION SELECT ${family}`
  const inTime = and(
    gte(usage.settledAt, from),
    to === undefined ? undefined : lt(usage.settledAt, to),
    after === undefined
      ? undefined
      : sql`(${usage.settledAt}, ${usage.requestId}) < (SELECT settled_at, request_id FROM usage WHERE request_id = ${after})`,
  )
  const order = [desc(usage.settledAt), desc(usage.requestId)] as const
  // Of each key no more than the page, in the order of its index: one sort over all keys would read all that they ever used.
  const page = sql`SELECT ${usage.requestId} FROM ${usage} WHERE ${usage.keyId} = k.id AND ${inTime}
    ORDER BY ${usage.settledAt} DESC, ${usage.requestId} DESC LIMIT ${limit + 1}`
  const where = sql`${usage.requestId} IN (
    SELECT u.request_id FROM (${mine}) AS k CROSS JOIN usage AS u WHERE u.request_id IN (${page}))`
  const there = sql`${usage.requestId} = ${after ?? null} AND ${usage.keyId} IN (${mine})`
  if (
    after !== undefined &&
    (await drizzle(env.DB).select({ at: usage.settledAt }).from(usage).where(there)).length === 0
  ) {
    const message = `after: this key was charged for no request "${after}", or it is too long ago. Begin again without it.`
    return fail('invalid_parameter', { message, param: 'after' })
  }
  const rows = await drizzle(env.DB)
    .select()
    .from(usage)
    .where(where)
    .orderBy(...order)
    .limit(limit + 1)
  const shown = rows.slice(0, limit)
  const refunds = await refundsOf(env, accountId, shown)
  const data = shown.map((row) => summary(row, refunds.get(refundOf(row.requestId)) ?? 0))
  return ok({ object: 'list', data, has_more: rows.length > limit })
}
