// The node's side of one HTTP exchange with the edge: head, pieces, end, and the news that the other side is gone. Knows how
// many bytes the reader has not taken yet, and cuts off one that takes nothing for too long.
import type { IncomingMessage, ServerResponse } from 'node:http'
import { KEEP_ALIVE } from '../schema/dialects/dialect.ts'
import { type ApiError, statusOf } from '../schema/errors.ts'
import { HEAD_HEADERS } from '../schema/wire.ts'

export interface Head {
  readonly nodeId: string
  readonly stream: boolean
  readonly promptTokens: number
  readonly cachedTokens: number
}

/** Above so many bytes not yet taken, text waits unformatted at its source. */
const BACKLOG_BYTES = 64 * 1024

export class Answer {
  readonly #response: ServerResponse
  readonly #keepAliveMs: number
  #keepAlive: NodeJS.Timeout | undefined
  #onGone: () => void = () => {}
  #onDrain: () => void = () => {}
  #onQuiet: () => string = () => KEEP_ALIVE
  #gone = false

  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    { stallMs, keepAliveMs }: { readonly stallMs: number; readonly keepAliveMs: number },
  ) {
    this.#response = response
    this.#keepAliveMs = keepAliveMs
    response.on('close', () => {
      clearInterval(this.#keepAlive)
      if (response.writableFinished) return
      this.#gone = true
      this.#onGone()
    })
    response.on('drain', () => this.#onDrain())
    // Counted from the last byte that was written or taken; who owes nothing is no reader.
    response.setTimeout(stallMs, () => {
      if (this.backlogBytes > 0) this.break()
    })
    // A socket error is followed by close, which is where it is dealt with.
    request.on('error', () => {})
    response.on('error', () => {})
  }

  /** True once the edge or the client behind it has hung up. */
  get gone(): boolean {
    return this.#gone
  }

  get headSent(): boolean {
    return this.#response.headersSent
  }

  /** Bytes written that the reader has not taken. */
  get backlogBytes(): number {
    return this.#response.writableLength
  }

  get isFull(): boolean {
    return this.#response.writableLength > BACKLOG_BYTES
  }

  onGone(callback: () => void): void {
    this.#onGone = callback
  }

  onDrain(callback: () => void): void {
    this.#onDrain = callback
  }

  /** `said`: from now on, instead of a comment, where there is nothing to say for a while. */
  onQuiet(said: () => string): void {
    this.#onQuiet = said
  }

  /** A stream that has to wait begins with comments, so that nobody on the way takes it for dead. */
  queued(head: Head): void {
    this.#keepAlive = setTimeout(() => {
      if (this.#gone || this.headSent) return
      this.head(head)
      this.#response.write(KEEP_ALIVE)
    }, this.#keepAliveMs)
  }

  head({ nodeId, stream, promptTokens, cachedTokens }: Head): void {
    clearTimeout(this.#keepAlive)
    this.#response.writeHead(200, {
      'content-type': stream ? 'text/event-stream; charset=utf-8' : 'application/json',
      'cache-control': 'no-cache, no-transform',
      [HEAD_HEADERS.nodeId]: nodeId,
      [HEAD_HEADERS.promptTokens]: promptTokens,
      [HEAD_HEADERS.cachedTokens]: cachedTokens,
    })
    if (!stream) return
    this.#keepAlive = setInterval(() => {
      if (this.backlogBytes === 0) this.#response.write(this.#onQuiet())
    }, this.#keepAliveMs)
  }

  write(text: string): void {
    if (this.#gone) return
    this.#keepAlive?.refresh()
    this.#response.write(text)
  }

  end(text: string): void {
    if (this.#gone) return
    clearInterval(this.#keepAlive)
    this.#response.end(text)
  }

  /** An error answer instead of a head. */
  refuse(error: ApiError): void {
    clearTimeout(this.#keepAlive)
    if (this.#gone || this.headSent) return
    const { code, message, param, retryAfterSeconds } = error
    const body = { code, message, ...(param ? { param } : {}), ...(retryAfterSeconds ? { retryAfterSeconds } : {}) }
    this.#response.writeHead(statusOf(code), {
      'content-type': 'application/json',
      ...(retryAfterSeconds ? { 'retry-after': String(retryAfterSeconds) } : {}),
    })
    this.#response.end(JSON.stringify({ error: body }))
  }

  /** Ends the exchange without an end: the reader must not take what it has for the whole. */
  break(): void {
    this.#response.destroy()
  }
}
