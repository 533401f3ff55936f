// What the edge alone may post: runs (verify, admit once, generate), runs that were abandoned, prompts to count.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ZodType } from 'zod'
import { type ApiError, fail, ok, type Result, statusOf } from '../schema/errors.ts'
import { REQUEST_BODY_BYTES_MAX } from '../schema/limits.ts'
import { bodyHash, verifyToken } from '../schema/signature.ts'
import { abandonRequestSchema, type RunRequest, runRequestSchema } from '../schema/wire.ts'
import { Answer } from './answer.ts'
import { type RunHandler, sendJson } from './front.ts'
import type { Generation, Workshop } from './generate.ts'
import { log } from './log.ts'
import { serveRun } from './serve_run.ts'
import { tokenize } from './tokenize.ts'

/** A client's body rendered and quoted again, what of it the answer repeats, quoted too, and the prefix keys. */
export const RUN_BODY_BYTES_MAX = 4 * REQUEST_BODY_BYTES_MAX + 1024 * 1024
/** How long a taken attempt is remembered before the journal knows it. */
const TAKEN_MS = 5 * 60_000

export interface ServerOptions {
  readonly shop: Workshop
  /** Keys of the edge's calls, the likeliest first; none until registered. */
  readonly dispatchKeys: () => readonly Uint8Array[]
  readonly pendingMax: number
  readonly stallMs: number
  readonly keepAliveMs: number
}

export interface RunServer {
  readonly run: RunHandler
  readonly count: RunHandler
  readonly abandon: RunHandler
  /** Runs between submission and last byte. */
  readonly live: ReadonlySet<Generation>
  /** Bytes that slow readers have not taken. */
  backlogBytes(): number
  /** Resolves when the readers have taken every answer that was begun, or are gone. */
  taken(): Promise<void>
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

const parseAs = <T>(schema: ZodType<T>, body: Uint8Array): Result<T> => {
  const json = parseJson(body)
  if (!json.ok) return json
  const parsed = schema.safeParse(json.value)
  if (parsed.success) return ok(parsed.data)
  const issue = parsed.error.issues[0]
  return fail('invalid_request', { message: `${issue?.path.join('.')}: ${issue?.message}` })
}

type Attempt = Pick<RunRequest, 'attempt'> & Pick<RunRequest['run'], 'requestId'>

/** Attempts taken since the start; the journal remembers those that were opened, over restarts too. */
class Taken {
  readonly #journal: Workshop['journal']
  readonly #taken = new Map<string, { readonly at: number; work: Promise<unknown> }>()

  constructor(journal: Workshop['journal']) {
    this.#journal = journal
  }

  /** False when the attempt was taken before. */
  take({ requestId, attempt }: Attempt): boolean {
    const now = Date.now()
    for (const [key, { at }] of this.#taken) {
      if (now - at < TAKEN_MS) break
      this.#taken.delete(key)
    }
    const key = `${requestId}/${attempt}`
    if (this.#taken.has(key) || this.#journal.hasSeen({ requestId, attempt })) return false
    this.#taken.set(key, { at: now, work: Promise.resolve() })
    return true
  }

  /** `work` ends when the attempt has, refused or not. */
  begin({ requestId, attempt }: Attempt, work: Promise<unknown>): void {
    const taken = this.#taken.get(`${requestId}/${attempt}`)
    if (taken) taken.work = work.catch(() => {})
  }

  /** Whether the attempt was opened; one that had not come by now is never taken. Waits for one that is at work. */
  async abandon(attempt: Attempt): Promise<boolean> {
    if (!this.take(attempt)) await this.#taken.get(`${attempt.requestId}/${attempt.attempt}`)?.work
    return this.#journal.hasSeen(attempt)
  }
}

/** The body of a call that the edge signed. */
const verified = async (
  { shop, dispatchKeys }: ServerOptions,
  request: IncomingMessage,
): Promise<Result<Uint8Array>> => {
  const [key, ...former] = dispatchKeys()
  if (!key) return fail('no_node', { message: 'This node is not registered yet.', retryAfterSeconds: 1 })
  // Before the body is read: only the edge may fill memory.
  const signedWith = (secret: Uint8Array) => verifyToken(secret, 'HS256', shop.nodeId, request.headers.authorization)
  let call = await signedWith(key)
  for (const before of former) if (!call.ok) call = await signedWith(before)
  if (!call.ok) return call
  if (call.value.issuer !== 'edge') return fail('invalid_signature')
  const body = await readBody(request)
  if (!body.ok) return body
  const isSigned = call.value.bodyHash === (await bodyHash(body.value))
  return isSigned ? body : fail('invalid_signature', { internal: 'body hash differs' })
}

const count = async (options: ServerOptions, request: IncomingMessage, response: ServerResponse): Promise<void> => {
  const body = await verified(options, request)
  const json = body.ok ? parseJson(body.value) : body
  const counted = json.ok ? await tokenize(options.shop, json.value) : json
  if (counted.ok) sendJson(response, 200, counted.value)
  else sendError(response, counted.error)
}

const sendError = (response: ServerResponse, { code, message }: ApiError): void =>
  sendJson(response, statusOf(code), { error: { code, message } })

export const createRunServer = (options: ServerOptions): RunServer => {
  const { shop, pendingMax } = options
  const live = new Set<Generation>()
  /** Those whose readers have not taken all, and when they have. */
  const answers = new Map<Answer, Promise<void>>()
  const taken = new Taken(shop.journal)

  const admit = async (request: IncomingMessage): Promise<Result<RunRequest>> => {
    const body = await verified(options, request)
    if (!body.ok) return body
    const parsed = parseAs(runRequestSchema, body.value)
    if (!parsed.ok) return parsed
    if (shop.journal.pending.size > pendingMax) {
      return fail('no_node', { message: 'Too many receipts of this node wait to be settled.', retryAfterSeconds: 10 })
    }
    const { attempt } = parsed.value
    const { requestId } = parsed.value.run
    return taken.take({ requestId, attempt }) ? parsed : fail('conflict', { message: 'This attempt was taken before.' })
  }

  const begin = (request: RunRequest, answer: Answer): Promise<Result<void>> => {
    const work = serveRun(shop, request, answer, live)
    taken.begin({ requestId: request.run.requestId, attempt: request.attempt }, work)
    return work
  }

  const abandon = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const body = await verified(options, request)
    const attempt = body.ok ? parseAs(abandonRequestSchema, body.value) : body
    if (!attempt.ok) return sendError(response, attempt.error)
    sendJson(response, 200, { willBill: await taken.abandon(attempt.value) })
  }

  const run = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const answer = new Answer(request, response, options)
    const closed = new Promise<void>((done) => response.once('close', done))
    answers.set(
      answer,
      closed.then(() => void answers.delete(answer)),
    )
    const admitted = await admit(request)
    const result = admitted.ok ? await begin(admitted.value, answer) : admitted
    if (result.ok) return
    shop.metrics.refused(result.error.code)
    const { code, internal } = result.error
    log('warn', 'run_refused', { code, ...(internal ? { internal } : {}) })
    // The rest of a body that is too large is not worth reading.
    if (code === 'request_too_large') response.setHeader('connection', 'close')
    answer.refuse(result.error)
  }

  return {
    run,
    abandon,
    count: (request, response) => count(options, request, response),
    live,
    backlogBytes: () => [...answers.keys()].reduce((sum, answer) => sum + answer.backlogBytes, 0),
    taken: async () => {
      await Promise.all(answers.values())
    },
  }
}
