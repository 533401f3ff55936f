// Ledger and usage rows of one account, newest first, a page at a time: what an operator looks at, and takes away whole.
import { and, desc, eq, gte, lt, or, type SQL } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/d1'
import { z } from 'zod'
import { ledger, usage } from '../../schema/db.ts'
import { fail, ok, type Result } from '../../schema/errors.ts'
import { ADMIN_ROWS_MAX } from '../../schema/limits.ts'
import type { Env } from '../env.ts'
import { readQuery, whole } from '../query.ts'
import { findAccount } from './mutations.ts'

/** `from` is included, `to` is not (Unix milliseconds); `before`: what the last row of the page before has as `seq`, or `requestId`. */
const time = { account: z.string().default(''), from: whole.optional(), to: whole.optional() }
const ledgerQuery = z.object({ ...time, before: whole.optional() })
const usageQuery = z.object({ ...time, before: z.uuid().optional() })

type Asked = Record<string, string>

const within = (column: typeof ledger.createdAt | typeof usage.settledAt, from?: number, to?: number) => [
  from === undefined ? undefined : gte(column, from),
  to === undefined ? undefined : lt(column, to),
]

export const ledgerRows = async (env: Env, asked: Asked): Promise<Result<(typeof ledger.$inferSelect)[]>> => {
  const query = readQuery(ledgerQuery, asked)
  if (!query.ok) return query
  const { from, to, before } = query.value
  const account = await findAccount(env.DB, query.value.account)
  if (!account.ok) return account
  const older = before === undefined ? undefined : lt(ledger.seq, before)
  const rows = await drizzle(env.DB)
    .select()
    .from(ledger)
    .where(and(eq(ledger.accountId, account.value.id), older, ...within(ledger.createdAt, from, to)))
    .orderBy(desc(ledger.seq))
    .limit(ADMIN_ROWS_MAX)
  return ok(rows)
}

export const usageRows = async (env: Env, asked: Asked): Promise<Result<(typeof usage.$inferSelect)[]>> => {
  const query = readQuery(usageQuery, asked)
  if (!query.ok) return query
  const { from, to, before } = query.value
  const account = await findAccount(env.DB, query.value.account)
  if (!account.ok) return account
  const db = drizzle(env.DB)
  const mine = eq(usage.accountId, account.value.id)
  let older: SQL | undefined
  if (before !== undefined) {
    const [last] = await db
      .select({ at: usage.settledAt })
      .from(usage)
      .where(and(mine, eq(usage.requestId, before)))
    if (!last) return fail('not_found', { message: 'This request has no usage row any more.', param: 'before' })
    older = or(lt(usage.settledAt, last.at), and(eq(usage.settledAt, last.at), lt(usage.requestId, before)))
  }
  const rows = await db
    .select()
    .from(usage)
    .where(and(mine, older, ...within(usage.settledAt, from, to)))
    .orderBy(desc(usage.settledAt), desc(usage.requestId))
    .limit(ADMIN_ROWS_MAX)
  return ok(rows)
}
