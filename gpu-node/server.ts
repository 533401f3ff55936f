// The node's HTTP server: POST /run from the edge, /healthz and /metrics for the operator. Admission is here, work in generate.ts.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { type ApiError, apiError, statusOf } from '../schema/errors.ts'
import { verifyCall } from '../schema/signature.ts'
import { utf8 } from '../schema/text.ts'
import { HEAD_HEADERS, PATHS, runRequestSchema } from '../schema/wire.ts'
import { type GenerateContext, generate, type RunningRun, type Sink } from './generate.ts'

const BODY_BYTES_MAX = 32 * 1024 * 1024
const KEEP_ALIVE_MS = 10_000
/** A client this far behind is gone for all purposes: its run is cancelled. */
const UNREAD_BYTES_MAX = 16 * 1024 * 1024

export interface NodeServerOptions extends GenerateContext {
  readonly queueMax: number
  readonly dispatchSecret: () => string | undefined
  readonly healthDetails: () => object
}

const sendJson = (res: ServerResponse, status: number, body: object, headers: Record<string, string> = {}): void => {
  if (res.headersSent || res.destroyed) return
  res.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body))
}

const sendError = (res: ServerResponse, error: ApiError): void => {
  const { code, message, param, retryAfterSeconds } = error
  if (error.internal) console.error(JSON.stringify({ event: 'refused', code, internal: error.internal }))
  sendJson(res, statusOf(code), {
    error: { code, message, ...(param ? { param } : {}), ...(retryAfterSeconds ? { retryAfterSeconds } : {}) },
  })
}

const readBody = async (req: IncomingMessage): Promise<Uint8Array<ArrayBuffer> | undefined> => {
  const parts: Buffer[] = []
  let size = 0
  for await (const part of req as AsyncIterable<Buffer>) {
    size += part.length
    if (size > BODY_BYTES_MAX) return undefined
    parts.push(part)
  }
  return new Uint8Array(Buffer.concat(parts))
}

/** The response as a Sink; comments keep an idle stream's connections open. */
const sinkOf = (res: ServerResponse, nodeId: string, onSlow: () => void): Sink => {
  let keepAlive: NodeJS.Timeout | undefined
  const gone = (): boolean => res.destroyed || res.writableEnded
  res.on('close', () => clearInterval(keepAlive))
  return {
    head: (promptTokens, cachedTokens, stream) => {
      if (gone()) return
      res.writeHead(200, {
        'content-type': stream ? 'text/event-stream; charset=utf-8' : 'application/json',
        [HEAD_HEADERS.nodeId]: nodeId,
        [HEAD_HEADERS.promptTokens]: String(promptTokens),
        [HEAD_HEADERS.cachedTokens]: String(cachedTokens),
      })
      res.flushHeaders()
      if (stream) keepAlive = setInterval(() => gone() || res.write(': keep-alive\n\n'), KEEP_ALIVE_MS)
    },
    write: (text) => {
      if (gone()) return
      res.write(text)
      if (res.writableLength > UNREAD_BYTES_MAX) onSlow()
    },
    end: (text) => {
      clearInterval(keepAlive)
      if (!gone()) res.end(text)
    },
    fail: (error) => sendError(res, error),
  }
}

export class NodeServer {
  readonly #o: NodeServerOptions
  readonly #runs = new Set<RunningRun>()
  readonly #taken = new Set<string>()
  readonly http: Server
  #draining = false

  constructor(options: NodeServerOptions) {
    this.#o = options
    this.http = createServer((req, res) => {
      this.#route(req, res).catch((error: unknown) => {
        console.error(
          JSON.stringify({ event: 'exception', error: error instanceof Error ? error.stack : String(error) }),
        )
        sendError(res, apiError('internal_error'))
      })
    })
    // Answers take as long as they take; the edge's abort is what ends them early.
    this.http.requestTimeout = 60_000
  }

  get draining(): boolean {
    return this.#draining
  }

  get running(): number {
    return this.#runs.size
  }

  /** Takes nothing new, lets running answers finish for at most `ms`, then cancels them; their receipts are written. */
  async drain(ms: number): Promise<void> {
    this.#draining = true
    const all = Promise.all([...this.#runs].map((run) => run.finished))
    const timer = setTimeout(() => {
      for (const run of this.#runs) run.cancel()
    }, ms)
    await all
    clearTimeout(timer)
    this.http.close()
    this.http.closeIdleConnections()
  }

  async #route(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const path = new URL(req.url ?? '/', 'http://node').pathname
    if (path === PATHS.run && req.method === 'POST') return this.#run(req, res)
    if (path === '/healthz') {
      const ready = this.#o.dispatchSecret() !== undefined && !this.#draining
      return sendJson(res, ready ? 200 : 503, { ready, draining: this.#draining, ...this.#o.healthDetails() })
    }
    if (path === '/metrics') {
      const { registry } = this.#o.metrics
      res.writeHead(200, { 'content-type': registry.contentType }).end(await registry.metrics())
      return
    }
    sendError(res, apiError('not_found'))
  }

  async #run(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const body = await readBody(req)
    if (!body) return sendError(res, apiError('request_too_large'))
    const secret = this.#o.dispatchSecret()
    if (!secret || this.#draining) return sendError(res, apiError('node_draining', { retryAfterSeconds: 1 }))
    const call = await verifyCall(utf8(secret), 'HS256', this.#o.nodeId, req.headers.authorization, body)
    if (!call.ok) return sendError(res, call.error)
    const parsed = runRequestSchema.safeParse(parseJson(body))
    if (!parsed.success) return sendError(res, apiError('invalid_request', { message: parsed.error.message }))
    const key = `${parsed.data.run.requestId}/${parsed.data.attempt}`
    if (
      this.#taken.has(key) ||
      this.#o.journal.knows({ requestId: parsed.data.run.requestId, attempt: parsed.data.attempt })
    ) {
      return sendError(res, apiError('conflict', { message: 'This attempt was dispatched here before.' }))
    }
    if (this.#o.engine.stats().waiting >= this.#o.queueMax) {
      return sendError(res, apiError('rate_limit_exceeded', { retryAfterSeconds: 1 }))
    }
    this.#remember(key)
    // The client may leave while the prompt is still being encoded.
    const control = { left: false, cancel: () => {} }
    const leave = (): void => {
      control.left = true
      if (!res.writableFinished) control.cancel()
    }
    res.on('close', leave)
    const started = await generate(this.#o, parsed.data, sinkOf(res, this.#o.nodeId, leave))
    if (!started) return
    control.cancel = () => started.cancel()
    if (control.left) leave()
    this.#runs.add(started)
    await started.finished
    this.#runs.delete(started)
  }

  /** Attempts of the last hours, so that a captured call cannot be replayed while its signature lives. */
  #remember(key: string): void {
    this.#taken.add(key)
    setTimeout(() => this.#taken.delete(key), 10 * 60_000).unref()
  }
}

const parseJson = (body: Uint8Array): unknown => {
  try {
    return JSON.parse(new TextDecoder().decode(body))
  } catch {
    return undefined
  }
}
