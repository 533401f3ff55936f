// The audit log of the admin API. Each call that may change something leaves a row before it begins and one after it ended; the
// table's triggers refuse every UPDATE and DELETE. Bodies of calls hold no secrets; answers, which may, are not written.
import { desc } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/d1'
import { ADMIN_CALL_MS_MAX } from '../../schema/admin_call.ts'
import { auditLog } from '../../schema/db.ts'
import { clientIp, type Env } from '../env.ts'

const DETAIL_LENGTH = 4000

type Entry = typeof auditLog.$inferInsert

export interface AuditedCall {
  readonly callId: string
  /** Writes the outcome. */
  ended(status: number, code: string | undefined): Promise<void>
}

/** One statement: of a signed call that comes twice, one is taken. Older rows than a signature lasts are not looked at. */
const ASKED = `
  INSERT INTO audit_log (at, call_id, phase, action, ip, detail) SELECT ?1, ?2, 'asked', ?3, ?4, ?5
  WHERE NOT EXISTS (SELECT 1 FROM audit_log WHERE at > ?1 - ${ADMIN_CALL_MS_MAX} AND call_id = ?2)`

/**
 * Writes that `request` was asked for. Without this row nothing is done: a failure here fails the call. `undefined` when this very
 * call was taken before.
 */
export const audited = async (
  env: Env,
  callId: string,
  request: Request,
  body: string,
): Promise<AuditedCall | undefined> => {
  const url = new URL(request.url)
  const base = {
    callId,
    action: `${request.method} ${url.pathname.replace('/admin/v1', '')}`,
    ip: clientIp(request) ?? '',
  }
  const asked = { body: body.slice(0, DETAIL_LENGTH), idempotencyKey: request.headers.get('idempotency-key') }
  const { meta } = await env.DB.prepare(ASKED)
    .bind(Date.now(), callId, base.action, base.ip, JSON.stringify(asked))
    .run()
  if (meta.changes === 0) return undefined
  return {
    callId,
    ended: async (status, code) => {
      const ended: Entry = {
        ...{ ...base, at: Date.now(), phase: status < 400 ? 'done' : 'refused' },
        detail: JSON.stringify({ status, ...(code ? { code } : {}) }),
      }
      await drizzle(env.DB).insert(auditLog).values(ended)
    },
  }
}

/** Newest first. */
export const readLog = (env: Env, limit: number): Promise<(typeof auditLog.$inferSelect)[]> =>
  drizzle(env.DB).select().from(auditLog).orderBy(desc(auditLog.seq)).limit(limit)
