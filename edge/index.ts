// The Worker: routes, the Durable Object's export, the scheduled sweep. Each route names the file that serves it.

import { type Context, type Handler, Hono } from 'hono'
import { cors } from 'hono/cors'
import { v7 as uuidv7 } from 'uuid'
import { anthropic } from '../schema/dialects/anthropic.ts'
import { COUNTERS } from '../schema/dialects/counters.ts'
import type { Dialect } from '../schema/dialects/dialect.ts'
import { DIALECTS } from '../schema/dialects/index.ts'
import { openAiChat } from '../schema/dialects/openai_chat.ts'
import { type ApiError, apiError, type Result } from '../schema/errors.ts'
import { openApiDocument } from '../schema/openapi/document.ts'
import { HEADERS } from '../schema/openapi/headers.ts'
import { PATHS } from '../schema/wire.ts'
import { adminApi } from './admin/index.ts'
import { discard } from './body.ts'
import { dashboardFile, dashboardPage } from './dashboard/serve.ts'
import { DOCS_HEADERS, docsPage } from './docs/page.ts'
import { type Env, environmentFault } from './env.ts'
import { errorResponse } from './flow/answer.ts'
import { complete } from './flow/complete.ts'
import { framesOf, log, reasonOf } from './log.ts'
import { explainPrefix } from './miss_api.ts'
import { type NodeCall, nodeCall } from './node_calls.ts'
import { heartbeat, liveNodes, register } from './nodes.ts'
import { knownCaller, listModels, userBalance } from './public_api.ts'
import { takeReceipts } from './receipts.ts'
import { sweep } from './sweep.ts'
import { countTokens } from './tokens.ts'
import { explainUsage, listUsage } from './usage_api.ts'
import { listUsageDays } from './usage_days.ts'

export { AccountObject } from './account.ts'

type App = { Bindings: Env; Variables: { requestId: string } }

const callOf = (c: Context<App>) => ({
  ...{ env: c.env, context: c.executionCtx, request: c.req.raw, requestId: c.get('requestId') },
})

const EXPOSED = Object.keys(HEADERS).join(',')

const error = (e: ApiError): Response => errorResponse(openAiChat, e)
/** Whose shape an error at this path has. */
const dialectAt = (path: string): Pick<Dialect, 'status' | 'errorBody'> =>
  DIALECTS.find(({ paths }) => paths.includes(path)) ??
  COUNTERS.find(({ paths }) => paths.includes(path))?.dialect ??
  (path.startsWith('/anthropic/') ? anthropic : openAiChat)
const json = (result: Result<object>): Response => (result.ok ? Response.json(result.value) : error(result.error))

const ALLOWED = { GET: 'GET, HEAD, OPTIONS', POST: 'POST, OPTIONS' } as const
const only = (method: keyof typeof ALLOWED, dialect: Pick<Dialect, 'status' | 'errorBody'>): Response => {
  const refused = errorResponse(dialect, apiError('method_not_allowed', { message: `Use ${method}.` }))
  refused.headers.set('allow', ALLOWED[method])
  return refused
}

// A slash at the end of an address changes nothing.
const app = new Hono<App>({ strict: false })

const NOT_CONFIGURED = 'The service is not configured; its operator finds the reason in the log.'

// One layer around every answer: each costs two turns of the event loop.
app.use(async (c, next) => {
  const requestId = uuidv7()
  c.set('requestId', requestId)
  const fault = environmentFault(c.env)
  if (fault) {
    log('error', 'bad_environment', { fault })
    c.res = errorResponse(dialectAt(c.req.path), apiError('internal_error', { message: NOT_CONFIGURED }))
  } else await next()
  if (c.res.status >= 400) await discard(c.req.raw)
  const { headers } = c.res
  // A replayed answer keeps the id of the request that was run.
  const id = headers.get('x-request-id') ?? requestId
  // OpenAI's name for it, and Anthropic's.
  headers.set('x-request-id', id)
  headers.set('request-id', id)
  // A cache may keep what was asked for with `x-api-key`, which it does not know for a credential, and give it to whoever asks next.
  if (!headers.has('cache-control')) headers.set('cache-control', 'no-store')
  headers.set('access-control-allow-origin', '*')
  headers.set('access-control-expose-headers', EXPOSED)
})
app.options('*', cors({ origin: '*', maxAge: 86_400 }))

for (const dialect of DIALECTS) {
  for (const path of dialect.paths) {
    app.post(path, (c) => complete({ ...callOf(c), dialect }))
    app.all(path, () => only('POST', dialect))
  }
}

for (const counter of COUNTERS) {
  for (const path of counter.paths) {
    app.post(path, (c) => countTokens(callOf(c), counter))
    app.all(path, () => only('POST', counter.dialect))
  }
}

/** An address that is only read. */
const read = <P extends string>(path: P, answer: Handler<App, P>): void => {
  app.get(path, answer)
  app.all(path, (c) => only('GET', dialectAt(c.req.path)))
}

for (const prefix of ['', '/v1', '/beta']) {
  read(`${prefix}/models`, async (c) => {
    const caller = await knownCaller(c.env, c.req.raw)
    if (!caller.ok) return error(caller.error)
    return c.json({ object: 'list', data: await listModels(c.env, caller.value.models) })
  })
  // Names may have slashes, as those of Hugging Face do.
  read(`${prefix}/models/:id{.+}`, async (c) => {
    const caller = await knownCaller(c.env, c.req.raw)
    if (!caller.ok) return error(caller.error)
    const model = (await listModels(c.env, caller.value.models)).find(({ id }) => id === c.req.param('id'))
    return model ? c.json(model) : error(apiError('model_not_found'))
  })
}
for (const prefix of ['', '/v1']) {
  read(`${prefix}/user/balance`, async (c) => json(await userBalance(c.env, c.req.raw)))
  read(`${prefix}/usage`, async (c) => json(await listUsage(c.env, c.req.raw, c.req.query())))
  read(`${prefix}/usage/daily`, async (c) => json(await listUsageDays(c.env, c.req.raw, c.req.query())))
  read(`${prefix}/usage/:id/prefix`, async (c) => json(await explainPrefix(c.env, c.req.raw, c.req.param('id'))))
  read(`${prefix}/usage/:id`, async (c) => json(await explainUsage(c.env, c.req.raw, c.req.param('id'))))
}
read('/healthz', async (c) => c.json({ ok: true, nodes: await liveNodes(c.env.DB) }))
read('/openapi.json', (c) => c.json(openApiDocument(new URL(c.req.url).origin)))
read('/docs', (c) => {
  const { origin } = new URL(c.req.url)
  return c.html(docsPage(openApiDocument(origin), origin), 200, DOCS_HEADERS)
})
read('/dashboard', (c) => dashboardPage(c.req.raw.headers))
read('/dashboard/:file', (c) => dashboardFile(c.req.path) ?? c.notFound())

const fromNode =
  (take: (env: Env, call: NodeCall) => Promise<Result<object>>) =>
  async (c: Context<App>): Promise<Response> => {
    const call = await nodeCall(c.env, c.req.raw)
    return json(call.ok ? await take(c.env, call.value) : call)
  }

app.post(PATHS.register, async (c) => json(await register(c.env, c.req.raw)))
app.post(PATHS.heartbeat, fromNode(heartbeat))
app.post(PATHS.receipts, fromNode(takeReceipts))
app.route('/admin/v1', adminApi)

app.notFound((c) => {
  const message = `There is nothing at ${c.req.method} ${c.req.path}.`
  return errorResponse(dialectAt(c.req.path), apiError('not_found', { message }))
})
app.onError((failure, c) => {
  log('error', 'exception', { requestId: c.get('requestId'), error: reasonOf(failure), at: framesOf(failure) })
  return errorResponse(dialectAt(c.req.path), apiError('internal_error'))
})

export default {
  fetch: app.fetch,
  scheduled: (_event, env, context) => context.waitUntil(sweep(env)),
} satisfies ExportedHandler<Env>
