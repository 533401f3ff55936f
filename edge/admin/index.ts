// The admin API under /admin/v1: signed calls (schema/admin_call.ts), each taken once, idempotent mutations.
import { drizzle } from 'drizzle-orm/d1'
import { type Context, Hono } from 'hono'
import type { z } from 'zod'
import { verifyAdminCall } from '../../schema/admin_call.ts'
import { accounts, apiKeys, prices } from '../../schema/db.ts'
import { openAiChat } from '../../schema/dialects/openai_chat.ts'
import { apiError, fail, ok, type Result } from '../../schema/errors.ts'
import { keyLimitsSchema } from '../../schema/key_limits.ts'
import { ADMIN_ROWS_MAX } from '../../schema/limits.ts'
import { readSigned } from '../body.ts'
import { accountObject, type Env, secretsOf } from '../env.ts'
import { errorResponse } from '../flow/answer.ts'
import { log, reasonOf } from '../log.ts'
import { audit } from './audit.ts'
import { auditReceipts, bookedFrom, journalBody } from './audit_receipts.ts'
import {
  bookedBody,
  bookedLines,
  chargedUntil,
  listChains,
  readSegments,
  refundedUntil,
  resealBody,
  resealSegments,
} from './evidence.ts'
import { createKey, createKeyBody, keyView, revokeKey, rotateBody, rotateKey, setKeyLimits } from './keys.ts'
import { audited, readLog } from './log.ts'
import {
  accountView,
  createAccount,
  createAccountBody,
  findAccount,
  priceBody,
  setAccountLimits,
  setPrice,
  topUp,
  topUpBody,
  withdrawBody,
  withdrawPrice,
} from './mutations.ts'
import { listNodes, removeNode, removeNodeBody } from './nodes.ts'
import { ledgerRows, usageRows } from './rows.ts'

type App = { Bindings: Env; Variables: { bytes: Uint8Array<ArrayBuffer> } }
type AdminContext = Context<App>

/** POSTs that change nothing. */
const READS = ['/audit/receipts', '/evidence/booked']

const reply = (c: AdminContext, result: Result<object>): Response =>
  result.ok ? c.json(result.value) : errorResponse(openAiChat, result.error)

const parseBody = <S extends z.ZodType>(c: AdminContext, schema: S): Result<z.output<S>> => {
  let body: unknown
  try {
    body = JSON.parse(new TextDecoder().decode(c.get('bytes')))
  } catch {
    return fail('malformed_request')
  }
  const parsed = schema.safeParse(body)
  if (parsed.success) return ok(parsed.data)
  const issue = parsed.error.issues[0]
  const param = issue?.path.join('.') ?? ''
  return fail('invalid_parameter', { message: `${param}: ${issue?.message ?? 'invalid'}`, param })
}

type Work<S extends z.ZodType> = (env: Env, key: string, body: z.output<S>, id: string) => Promise<Result<object>>

/** A mutation: body checked, idempotency key required; `id` is the path's. */
const mutation =
  <S extends z.ZodType>(schema: S, work: Work<S>) =>
  async (c: AdminContext): Promise<Response> => {
    const key = c.req.header('idempotency-key')
    if (!key || key.length > 200) {
      return reply(c, fail('invalid_request', { message: 'Send an idempotency-key header of 1 to 200 characters.' }))
    }
    const body = parseBody(c, schema)
    return reply(c, body.ok ? await work(c.env, key, body.value, c.req.param('id') ?? '') : body)
  }

const rows =
  (read: (env: Env, asked: Record<string, string>) => Promise<Result<object[]>>) =>
  async (c: AdminContext): Promise<Response> => {
    const found = await read(c.env, c.req.query())
    return reply(c, found.ok ? ok({ data: found.value }) : found)
  }

export const adminApi = new Hono<App>()
  .use(async (c, next) => {
    const { pathname, search } = new URL(c.req.url)
    const signed = await verifyAdminCall(secretsOf(c.env, 'ADMIN_SECRET'), c.req.header('authorization'), {
      ...{ method: c.req.method, path: pathname + search },
      idempotencyKey: c.req.header('idempotency-key'),
    })
    if (!signed.ok) return errorResponse(openAiChat, signed.error)
    const { callId, bodyHash } = signed.value
    const body = await readSigned(c.req.raw, bodyHash)
    if (!body.ok) return errorResponse(openAiChat, body.error)
    const bytes = body.value
    c.set('bytes', bytes)
    if (c.req.method === 'GET' || READS.some((path) => c.req.path.endsWith(path))) return next()
    const entry = await audited(c.env, callId, c.req.raw, new TextDecoder().decode(bytes))
    if (!entry) {
      log('warn', 'admin_call_repeated', { call: callId })
      return errorResponse(openAiChat, apiError('conflict', { message: 'This call was taken before. Sign another.' }))
    }
    await next()
    const refused = c.res.ok
      ? undefined
      : await c.res
          .clone()
          .json<{ error?: { code?: string } }>()
          .catch(() => undefined)
    // What is done must not be answered as if it were not: whoever reads that does it again.
    await entry.ended(c.res.status, refused?.error?.code).catch((error: unknown) => {
      log('error', 'outcome_not_logged', { call: entry.callId, status: c.res.status, error: reasonOf(error) })
    })
  })
  .post('/accounts', mutation(createAccountBody, createAccount))
  .post('/keys', mutation(createKeyBody, createKey))
  .post('/topups', mutation(topUpBody, topUp))
  .put(
    '/prices',
    mutation(priceBody, (env, _key, body) => setPrice(env, body)),
  )
  .post(
    '/prices/withdraw',
    mutation(withdrawBody, (env, _key, body) => withdrawPrice(env, body)),
  )
  .post(
    '/keys/:id/rotate',
    mutation(rotateBody, (env, key, body, id) => rotateKey(env, key, id, body)),
  )
  .put(
    '/keys/:id/limits',
    mutation(keyLimitsSchema, (env, _key, body, id) => setKeyLimits(env, id, body)),
  )
  .put(
    '/accounts/:id/limits',
    mutation(keyLimitsSchema, (env, _key, body, id) => setAccountLimits(env, id, body)),
  )
  .post(
    '/nodes/:id/remove',
    mutation(removeNodeBody, (env, _key, body, id) => removeNode(env, id, body)),
  )
  .post(
    '/evidence/reseal',
    mutation(resealBody, (env, _key, body) => resealSegments(env, body)),
  )
  .post('/keys/:id/revoke', async (c) => reply(c, await revokeKey(c.env, c.req.param('id'))))
  .get('/log', async (c) => c.json({ data: await readLog(c.env, ADMIN_ROWS_MAX) }))
  .get('/accounts', async (c) => {
    const rows = await drizzle(c.env.DB).select().from(accounts).limit(ADMIN_ROWS_MAX)
    return c.json({ data: rows.map(accountView) })
  })
  .get('/keys', async (c) => {
    const rows = await drizzle(c.env.DB).select().from(apiKeys).limit(ADMIN_ROWS_MAX)
    return c.json({ data: rows.map(keyView) })
  })
  .get('/prices', async (c) => c.json({ data: await drizzle(c.env.DB).select().from(prices).limit(ADMIN_ROWS_MAX) }))
  .get('/nodes', async (c) => c.json({ data: await listNodes(c.env.DB) }))
  .get('/ledger', rows(ledgerRows))
  .get('/usage', rows(usageRows))
  .get('/audit', async (c) => c.json(await audit(c.env)))
  .get('/audit/booked', async (c) =>
    c.json({ data: await bookedFrom(c.env, c.req.query('node') ?? '', c.req.query('epoch') ?? '') }),
  )
  .get('/accounts/:id', async (c) => {
    const account = await findAccount(c.env.DB, c.req.param('id'))
    if (!account.ok) return errorResponse(openAiChat, account.error)
    return c.json({ ...accountView(account.value), ...(await accountObject(c.env, account.value.id).balance()) })
  })
  .get('/evidence', async (c) => c.json({ data: await listChains(c.env) }))
  .get('/evidence/segments', async (c) => {
    const { node = '', chain = '', from, to } = c.req.query()
    return c.json({ data: await readSegments(c.env, node, chain, Number(from), Number(to)) })
  })
  .get('/evidence/charged', async (c) => c.json({ data: await chargedUntil(c.env, Number(c.req.query('until'))) }))
  .get('/evidence/refunds', async (c) => c.json({ data: await refundedUntil(c.env, Number(c.req.query('until'))) }))
  .post('/evidence/booked', async (c) => {
    const body = parseBody(c, bookedBody)
    return reply(c, body.ok ? await bookedLines(c.env, body.value) : body)
  })
  .post('/audit/receipts', async (c) => {
    const body = parseBody(c, journalBody)
    return reply(c, body.ok ? await auditReceipts(c.env, body.value) : body)
  })
  .all('*', () => errorResponse(openAiChat, apiError('not_found')))
