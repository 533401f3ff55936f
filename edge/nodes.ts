// Registration and heartbeat of nodes. A join token admits a node once; from then on its own key speaks for it. One that an operator
// removed is told so, and heard no more, but for its receipts.
import { and, count, eq, gt, isNull, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/d1'
import { isTemplateName, templateName } from '../schema/chat/template_source.ts'
import { nodes } from '../schema/db.ts'
import { fail, ok, type Result } from '../schema/errors.ts'
import { HEARTBEAT_SECONDS, NODE_STALE_MS } from '../schema/limits.ts'
import { parseJson } from '../schema/text.ts'
import { type Beaten, heartbeatSchema, type Load, type Registered, registrationSchema } from '../schema/wire.ts'
import { sameText } from './auth.ts'
import { readBody } from './body.ts'
import { type Env, secretsOf } from './env.ts'
import type { NodeCall } from './node_calls.ts'
import { dispatchSecret } from './node_client.ts'
import { keepTemplate } from './templates.ts'

const loadColumns = (load: Load) => ({
  running: load.running,
  waiting: load.waiting,
  prefillTokensPerSecond: Math.round(load.prefillTokensPerSecond),
  kvPages: load.kvPages,
  kvPagesUsed: load.kvPagesUsed,
  promptTokens: load.promptTokens,
  cachedTokens: load.cachedTokens,
  predictedTokens: load.predictedTokens,
  predictedRightTokens: load.predictedRightTokens,
})

export const register = async (env: Env, request: Request): Promise<Result<Registered>> => {
  const authorization = request.headers.get('authorization') ?? ''
  if (!secretsOf(env, 'JOIN_TOKEN').some((token) => sameText(authorization, `Bearer ${token}`))) {
    return fail('invalid_signature', { message: 'The join token is wrong.' })
  }
  const bytes = await readBody(request)
  if (!bytes.ok) return bytes
  const body = parseJson(new TextDecoder().decode(bytes.value))
  const parsed = registrationSchema.safeParse(body)
  if (!parsed.success) return fail('invalid_request', { message: parsed.error.message })
  const { nodeId, address, publicKey, model, chatFormat, template, contextTokens, load } = parsed.data
  if (template ? templateName(template) !== chatFormat : isTemplateName(chatFormat))
    return fail('invalid_request', { message: 'chatFormat is not the name of the template.' })
  const now = Date.now()
  const live = { address, model, chatFormat, contextTokens, draining: false, heartbeatAt: now, ...loadColumns(load) }
  if (template) await keepTemplate(env.DB, template)
  // One statement: of two nodes that come under one id together, one gets it.
  const taken = await drizzle(env.DB)
    .insert(nodes)
    .values({ id: nodeId, publicKey, registeredAt: now, ...live })
    .onConflictDoUpdate({
      ...{ target: nodes.id, set: live },
      setWhere: sql`${nodes.publicKey} = ${publicKey} AND ${nodes.removedAt} IS NULL`,
    })
    .returning({ id: nodes.id })
  if (taken.length === 0)
    return (await isRemoved(env.DB, nodeId, publicKey))
      ? fail('node_removed')
      : fail('conflict', { message: 'Another node registered under this id; choose another id.' })
  return ok({ dispatchSecret: dispatchSecret(env.SPARROW_SECRET, nodeId), heartbeatSeconds: HEARTBEAT_SECONDS })
}

/** A removed id is given to nobody else: the receipts under it are checked with the key that it had. */
const isRemoved = async (database: D1Database, nodeId: string, publicKey?: string): Promise<boolean> => {
  const [row] = await drizzle(database).select().from(nodes).where(eq(nodes.id, nodeId))
  return !!row && row.removedAt !== null && (publicKey === undefined || row.publicKey === publicKey)
}

export const heartbeat = async (env: Env, { nodeId, bytes }: NodeCall): Promise<Result<Beaten>> => {
  const parsed = heartbeatSchema.safeParse(parseJson(new TextDecoder().decode(bytes)))
  if (!parsed.success) return fail('invalid_request', { message: parsed.error.message })
  if (parsed.data.nodeId !== nodeId) return fail('invalid_signature')
  const { draining, load } = parsed.data
  const heard = await drizzle(env.DB)
    .update(nodes)
    .set({ draining, heartbeatAt: Date.now(), ...loadColumns(load) })
    .where(and(eq(nodes.id, nodeId), isNull(nodes.removedAt)))
    .returning({ id: nodes.id })
  if (heard.length > 0) return ok({ ok: true, dispatchSecret: dispatchSecret(env.SPARROW_SECRET, nodeId) })
  return (await isRemoved(env.DB, nodeId)) ? fail('node_removed') : fail('not_found')
}

export const liveNodes = async (database: D1Database): Promise<number> => {
  const live = and(gt(nodes.heartbeatAt, Date.now() - NODE_STALE_MS), eq(nodes.draining, false))
  const rows = await drizzle(database).select({ n: count() }).from(nodes).where(live)
  return rows[0]?.n ?? 0
}
