// The audit log of the admin API. Each call that may change something leaves a row before it begins and one after it ended; the
// table's triggers refuse every UPDATE and DELETE. Bodies of calls hold no secrets; answers, which may, are not written.
import { desc } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/d1'
import { auditLog } from '../../schema/db.ts'
import { clientIp, type Env } from '../env.ts'

const DETAIL_LENGTH = 4000

type Entry = typeof auditLog.$inferInsert

export interface AuditedCall {
  readonly callId: string
  /** Writes the outcome. */
  ended(status: number, code: string | undefined): Promise<void>
}

/** Writes that `request` was asked for. Without this row nothing is done: a failure here fails the call. */
export const audited = async (env: Env, request: Request, body: string): Promise<AuditedCall> => {
  const url = new URL(request.url)
  const base = {
    callId: crypto.randomUUID(),
    action: `${request.method} ${url.pathname.replace('/admin/v1', '')}`,
    ip: clientIp(request.headers) ?? '',
  }
  const write = async (entry: Pick<Entry, 'phase' | 'detail'>): Promise<void> => {
    await drizzle(env.DB)
      .insert(auditLog)
      .values({ ...base, ...entry, at: Date.now() })
  }
  const asked = { body: body.slice(0, DETAIL_LENGTH), idempotencyKey: request.headers.get('idempotency-key') }
  await write({ phase: 'asked', detail: JSON.stringify(asked) })
  return {
    callId: base.callId,
    ended: (status, code) =>
      write({
        phase: status < 400 ? 'done' : 'refused',
        detail: JSON.stringify({ status, ...(code ? { code } : {}) }),
      }),
  }
}

/** Newest first. */
export const readLog = (env: Env, limit: number): Promise<(typeof auditLog.$inferSelect)[]> =>
  drizzle(env.DB).select().from(auditLog).orderBy(desc(auditLog.seq)).limit(limit)
