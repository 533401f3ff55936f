// The node's HTTP face: POST /run for the edge alone, /healthz and /metrics for whoever watches it.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { fail, ok, type Result, statusOf } from '../schema/errors.ts'
import { REQUEST_BODY_BYTES_MAX } from '../schema/limits.ts'
import { verifyCall } from '../schema/signature.ts'
import { PATHS, type RunRequest, runRequestSchema } from '../schema/wire.ts'
import { Answer } from './answer.ts'
import { type Generation, generate, type Workshop } from './generate.ts'
import { log, reasonOf } from './log.ts'
import { tokenize } from './tokenize.ts'

/** A client's body rendered and quoted again, what of it the answer repeats, quoted too, and the prefix keys. */
export const RUN_BODY_BYTES_MAX = 4 * REQUEST_BODY_BYTES_MAX + 1024 * 1024
/** The edge sends its body at once; a caller that trickles is not the edge. */
const RUN_BODY_TIMEOUT_MS = 30_000
/** An idle connection outlives the Worker's use of it: one closed under a request reads as a node that is down. */
const TIMEOUTS = { requestTimeout: RUN_BODY_TIMEOUT_MS, headersTimeout: 10_000, keepAliveTimeout: 300_000 }
/** How long a taken attempt is remembered before the journal knows it. */
const TAKEN_MS = 5 * 60_000

export interface Health {
  readonly ready: boolean
  readonly [field: string]: unknown
}

export interface ServerOptions {
  readonly shop: Workshop
  /** Key of the edge's calls; `undefined` until registered. */
  readonly dispatchKey: () => Uint8Array | undefined
  readonly health: () => Health
  readonly pendingMax: number
  readonly stallMs: number
}

export interface NodeServer {
  readonly http: Server
  /** Runs between submission and last byte. */
  readonly live: ReadonlySet<Generation>
  /** Bytes that slow readers have not taken. */
  backlogBytes(): number
}

const readBody = async (request: IncomingMessage): Promise<Result<Uint8Array<ArrayBuffer>>> => {
  const tooLarge = fail('request_too_large')
  if (Number(request.headers['content-length'] ?? 0) > RUN_BODY_BYTES_MAX) return tooLarge
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > RUN_BODY_BYTES_MAX) return tooLarge
    chunks.push(chunk)
  }
  return ok(new Uint8Array(Buffer.concat(chunks)))
}

const parseJson = (body: Uint8Array): Result<unknown> => {
  try {
    return ok(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body)))
  } catch {
    return fail('malformed_request')
  }
}

const parseRun = (body: Uint8Array): Result<RunRequest> => {
  const json = parseJson(body)
  if (!json.ok) return json
  const parsed = runRequestSchema.safeParse(json.value)
  if (parsed.success) return ok(parsed.data)
  const issue = parsed.error.issues[0]
  return fail('invalid_request', { message: `${issue?.path.join('.')}: ${issue?.message}` })
}

/** Attempts taken since the start; the journal remembers those that were opened, over restarts too. */
class Taken {
  readonly #journal: Workshop['journal']
  readonly #at = new Map<string, number>()

  constructor(journal: Workshop['journal']) {
    this.#journal = journal
  }

  /** False when the attempt was taken before. */
  take(requestId: string, attempt: number): boolean {
    const now = Date.now()
    for (const [key, at] of this.#at) {
      if (now - at < TAKEN_MS) break
      this.#at.delete(key)
    }
    const key = `${requestId}/${attempt}`
    if (this.#at.has(key) || this.#journal.hasSeen({ requestId, attempt })) return false
    this.#at.set(key, now)
    return true
  }
}

/** The body of a call that the edge signed. */
const verified = async (
  { shop, dispatchKey }: ServerOptions,
  request: IncomingMessage,
): Promise<Result<Uint8Array>> => {
  const body = await readBody(request)
  if (!body.ok) return body
  const key = dispatchKey()
  if (!key) return fail('no_node', { message: 'This node is not registered yet.', retryAfterSeconds: 1 })
  const call = await verifyCall(key, 'HS256', shop.nodeId, request.headers.authorization, body.value)
  if (!call.ok) return call
  return call.value === 'edge' ? body : fail('invalid_signature')
}

const count = async (options: ServerOptions, request: IncomingMessage, response: ServerResponse): Promise<void> => {
  const body = await verified(options, request)
  const json = body.ok ? parseJson(body.value) : body
  const counted = json.ok ? await tokenize(options.shop, json.value) : json
  if (counted.ok) return sendJson(response, 200, counted.value)
  const { code, message } = counted.error
  sendJson(response, statusOf(code), { error: { code, message } })
}

export const createNodeServer = (options: ServerOptions): NodeServer => {
  const { shop, health, pendingMax, stallMs } = options
  const live = new Set<Generation>()
  const answers = new Set<Answer>()
  const taken = new Taken(shop.journal)

  const admit = async (request: IncomingMessage): Promise<Result<RunRequest>> => {
    const body = await verified(options, request)
    if (!body.ok) return body
    const parsed = parseRun(body.value)
    if (!parsed.ok) return parsed
    if (shop.journal.pending.size > pendingMax) {
      return fail('no_node', { message: 'Too many receipts of this node wait to be settled.', retryAfterSeconds: 10 })
    }
    const { run, attempt } = parsed.value
    return taken.take(run.requestId, attempt) ? parsed : fail('conflict', { message: 'This attempt was taken before.' })
  }

  const run = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const answer = new Answer(request, response, stallMs)
    answers.add(answer)
    response.once('close', () => answers.delete(answer))
    const admitted = await admit(request)
    const result = admitted.ok ? await generate(shop, admitted.value, answer, live) : admitted
    if (result.ok) return
    shop.metrics.refused(result.error.code)
    const { code, internal } = result.error
    log('warn', 'run_refused', { code, ...(internal ? { internal } : {}) })
    // The rest of a body that is too large is not worth reading.
    if (code === 'request_too_large') response.setHeader('connection', 'close')
    answer.refuse(result.error)
  }

  const http = createServer({ ...TIMEOUTS }, (request, response) => {
    const path = new URL(request.url ?? '/', 'http://node').pathname
    handle(path, request, response).catch((error) => {
      if (!response.destroyed) log('error', 'request_failed', { path, error: reasonOf(error) })
      response.destroy()
    })
  })

  const handle = async (path: string, request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const posts: readonly string[] = [PATHS.run, PATHS.tokenize]
    const method = posts.includes(path) ? 'POST' : 'GET'
    if (![...posts, '/healthz', '/metrics'].includes(path)) return sendJson(response, 404, errorBody('not_found'))
    if (request.method !== method) return sendJson(response, 405, errorBody('method_not_allowed'))
    if (path === PATHS.run) return run(request, response)
    if (path === PATHS.tokenize) return count(options, request, response)
    if (path === '/healthz') {
      const state = health()
      return sendJson(response, state.ready ? 200 : 503, state)
    }
    response.writeHead(200, { 'content-type': shop.metrics.contentType })
    response.end(await shop.metrics.text())
  }

  return {
    http,
    live,
    backlogBytes: () => [...answers].reduce((sum, answer) => sum + answer.backlogBytes, 0),
  }
}

const errorBody = (code: 'not_found' | 'method_not_allowed') => {
  const { error } = fail(code)
  return { error: { code: error.code, message: error.message } }
}

const sendJson = (response: ServerResponse, status: number, body: unknown): void => {
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(JSON.stringify(body))
}
