// One run from prompt to receipt: tokenize, queue, journal OPEN, stream, journal CLOSE, finish. The order of the last three
// is the promise that billing stands on: no token leaves before OPEN is durable, no finish before CLOSE is.
import type { AnswerParser } from '../schema/chat/chat_format.ts'
import { chatFormatByName } from '../schema/chat/index.ts'
import type { Delta, Dialect, StreamFormatter, Usage } from '../schema/dialects/dialect.ts'
import { dialectByName } from '../schema/dialects/index.ts'
import { type ApiError, apiError, fail, ok, type Result } from '../schema/errors.ts'
import { KV_PAGE_TOKENS } from '../schema/limits.ts'
import { tokensPerBlock } from '../schema/prefix.ts'
import type { FinishReason, RunRequest } from '../schema/wire.ts'
import type { Admission, Place } from './admission.ts'
import type { Answer } from './answer.ts'
import { type EndReason, type Engine, EngineError, type EngineEvent, type SequenceHandle } from './engine/engine.ts'
import type { GrammarSession, Grammars } from './grammar.ts'
import type { Meter } from './journal.ts'
import { NO_COUNTS, type RunCounts } from './journal_records.ts'
import { log, reasonOf } from './log.ts'
import type { Metrics, PrefillSpeed } from './metrics.ts'
import type { EncodedPrompt, Tokenizer } from './tokenizer.ts'

/** What every run needs of its node. */
export interface Workshop {
  readonly nodeId: string
  readonly model: string
  readonly engine: Engine
  readonly tokenizer: Tokenizer
  readonly grammars: Grammars
  readonly journal: Meter
  readonly admission: Admission
  readonly metrics: Metrics
  readonly prefillSpeed: PrefillSpeed
  /** A receipt became durable. */
  readonly onClosed: () => void
}

const PROGRESS_TOKENS = 64

const FINISH: Readonly<Record<EndReason, FinishReason>> = {
  stop_token: 'stop',
  stop_string: 'stop',
  length: 'length',
  cancelled: 'cancelled',
  error: 'error',
}

type EndEvent = Extract<EngineEvent, { kind: 'end' }>

/** Adds a delta to those that wait, joined with the last where both continue one text. */
export const joinDelta = (waiting: Delta[], next: Delta): void => {
  const last = waiting.at(-1)
  if (last && (next.kind === 'content' || next.kind === 'reasoning') && last.kind === next.kind) {
    waiting[waiting.length - 1] = { kind: next.kind, text: last.text + next.text }
  } else if (last?.kind === 'tool_arguments' && next.kind === 'tool_arguments' && last.index === next.index) {
    waiting[waiting.length - 1] = { ...next, text: last.text + next.text }
  } else {
    waiting.push(next)
  }
}

/** A run between submission and its last byte. */
export class Generation {
  readonly #shop: Workshop
  readonly #request: RunRequest
  readonly #prompt: EncodedPrompt
  readonly #answer: Answer
  readonly #place: Place
  readonly #dialect: Dialect
  readonly #format: StreamFormatter
  readonly #parser: AnswerParser
  readonly #grammar: GrammarSession | undefined
  readonly #utf8 = new TextDecoder('utf-8', { ignoreBOM: true })
  readonly #openedAt = Date.now()
  readonly #done = Promise.withResolvers<void>()
  #handle: SequenceHandle | undefined
  #deltas: Delta[] = []
  #counts: RunCounts = NO_COUNTS
  #progressAt = PROGRESS_TOKENS
  #startedAt = 0
  #lastTokensAt = 0
  #isOpen = false
  #isStarted = false
  #finish: FinishReason | undefined
  #shutDown = false
  #failed = false

  constructor(shop: Workshop, request: RunRequest, prompt: EncodedPrompt, answer: Answer, place: Place, how: How) {
    this.#shop = shop
    this.#request = request
    this.#prompt = prompt
    this.#answer = answer
    this.#place = place
    this.#dialect = how.dialect
    this.#format = how.dialect.stream(request.run)
    this.#parser = how.parser
    this.#grammar = how.grammar
  }

  /** Submits and resolves when the last byte is handed over or the receipt of a broken run is durable. Error: refused. */
  async run(): Promise<Result<void>> {
    const { run, accountId, keyId, attempt, cacheSalt } = this.#request
    const { engine, journal } = this.#shop
    try {
      this.#handle = engine.submit(
        {
          tokens: this.#prompt.ids,
          cacheSalt,
          maxTokens: run.maxTokens,
          temperature: run.temperature,
          topP: run.topP,
          seed: BigInt.asUintN(64, BigInt(run.seed)),
          stop: run.stop.map((text) => new TextEncoder().encode(text)),
          masked: this.#grammar !== undefined,
        },
        (events) => this.#take(events),
      )
    } catch (error) {
      return { ok: false, error: refusalOf(error, this.#prompt.ids.length, engine.info.contextLength) }
    }
    this.#obeyGrammar(this.#handle)
    this.#answer.onGone(() => this.#handle?.cancel())
    this.#answer.onDrain(() => this.#flush())
    if (this.#answer.gone) this.#handle.cancel()
    const { requestId, model } = run
    journal.open({ requestId, attempt, accountId, keyId, model, openedAt: this.#openedAt }).then(
      () => {
        this.#isOpen = true
        this.#flush()
      },
      (error) => this.#break(error),
    )
    await this.#done.promise
    return ok(undefined)
  }

  #obeyGrammar(handle: SequenceHandle): void {
    this.#grammar?.start(
      (position, words) => handle.mask(position, words),
      (message) => {
        log('error', 'grammar_failed_run', { request: this.#request.run.requestId, error: message })
        this.#failed = true
        handle.cancel()
      },
    )
  }

  /** The node stops: ends the run, uncharged. */
  shutDown(): void {
    this.#shutDown = true
    this.#handle?.cancel()
  }

  /** All events of one engine step. */
  #take(events: readonly EngineEvent[]): void {
    for (const event of events) {
      if (event.kind === 'start') this.#start(event.promptTokens, event.cachedTokens)
      else if (event.kind === 'tokens') this.#tokens(event.ids)
      else void this.#end(event).catch((error) => this.#break(error))
    }
    if (this.#finish === undefined) this.#flush()
  }

  #start(promptTokens: number, cachedTokens: number): void {
    this.#isStarted = true
    this.#startedAt = performance.now()
    this.#place.started()
    this.#counts = { ...this.#counts, hit: cachedTokens, miss: promptTokens - cachedTokens }
  }

  #tokens(ids: readonly number[]): void {
    this.#grammar?.accept(ids)
    const now = performance.now()
    const { metrics, prefillSpeed, journal, tokenizer } = this.#shop
    if (this.#counts.firstTokenAt === null) {
      metrics.firstToken((Date.now() - this.#openedAt) / 1000)
      prefillSpeed.observe(this.#counts.miss, now - this.#startedAt)
    } else {
      metrics.betweenTokens((now - this.#lastTokensAt) / 1000 / ids.length)
    }
    this.#lastTokensAt = now
    let { output, reasoning } = this.#counts
    for (const id of ids) {
      this.#push(this.#utf8.decode(tokenizer.textBytes[id], { stream: true }))
      output++
      // The tag that ends the reasoning is itself no part of it.
      if (this.#parser.inReasoning) reasoning++
    }
    this.#counts = { ...this.#counts, output, reasoning, firstTokenAt: this.#counts.firstTokenAt ?? Date.now() }
    if (output < this.#progressAt) return
    this.#progressAt = output + PROGRESS_TOKENS
    journal.progress({ requestId: this.#request.run.requestId, attempt: this.#request.attempt }, this.#counts)
  }

  #push(text: string): void {
    if (text !== '') for (const delta of this.#parser.push(text)) joinDelta(this.#deltas, delta)
  }

  async #end(event: EndEvent): Promise<void> {
    this.#push(this.#utf8.decode())
    const { deltas, toolCalls } = this.#parser.end()
    for (const delta of deltas) joinDelta(this.#deltas, delta)
    const ours = (this.#shutDown || this.#failed) && event.reason === 'cancelled'
    let finish: FinishReason = ours ? 'error' : FINISH[event.reason]
    if (finish === 'stop' && toolCalls > 0) finish = 'tool_calls'
    const free = finish === 'error' || !this.#isStarted
    this.#counts = free
      ? NO_COUNTS
      : { ...this.#counts, hit: event.cachedTokens, miss: event.computedTokens, output: event.sampledTokens }
    const { requestId } = this.#request.run
    if (event.reason === 'error') log('error', 'engine_failed_run', { request: requestId, error: event.message })
    const resident = finish === 'error' ? 0 : event.cachedTokens + event.computedTokens
    const { journal, metrics, onClosed } = this.#shop
    const key = { requestId, attempt: this.#request.attempt }
    await journal.close(key, { finish, prefix: this.#residentBlocks(resident), counts: this.#counts })
    this.#place.leave()
    metrics.finished(finish, this.#counts)
    onClosed()
    this.#finish = finish
    this.#flush()
    if (this.#answer.gone) this.#done.resolve()
  }

  /** Text blocks whose tokens all lie in whole pages that were computed or found. */
  #residentBlocks(tokens: number): [string, number][] {
    const keys = this.#request.prefixKeys
    const whole = Math.floor(tokens / KV_PAGE_TOKENS) * KV_PAGE_TOKENS
    if (keys.length === 0 || whole === 0) return []
    const ends = tokensPerBlock(this.#prompt.bytes, keys.length)
    const blocks = keys.map((key, i): [string, number] => [key, ends[i] ?? 0])
    return blocks.filter(([, end]) => end > 0 && end <= whole)
  }

  get #usage(): Usage {
    const { hit, miss, output, reasoning } = this.#counts
    return { hit, miss, output, reasoning }
  }

  /** Hands over what may leave now, in one write. */
  #flush(): void {
    if (!this.#isOpen || this.#answer.gone) return
    if (!this.#isStarted && this.#finish === undefined) return
    if (this.#finish === 'error' || this.#finish === 'cancelled') this.#endBroken()
    else if (this.#request.run.stream) this.#flushStream()
    else if (this.#finish !== undefined) this.#endWhole(this.#finish)
  }

  #flushStream(): void {
    let text = ''
    if (!this.#answer.headSent) {
      this.#sendHead()
      text += this.#format.start({ ...this.#usage, output: 0, reasoning: 0 })
    }
    // A slow reader's text waits here, joined; formatted it would be fifty times the size.
    if (this.#deltas.length > 0 && !this.#answer.isFull) {
      text += this.#format.deltas(this.#deltas)
      this.#deltas = []
    }
    if (this.#finish !== undefined && this.#deltas.length === 0) {
      this.#answer.end(text + this.#format.finish(this.#finish, this.#usage))
      this.#done.resolve()
    } else if (text !== '') {
      this.#answer.write(text)
    }
  }

  #sendHead(): void {
    const { hit, miss } = this.#counts
    const { nodeId } = this.#shop
    const { stream } = this.#request.run
    this.#answer.head({ nodeId, stream, promptTokens: hit + miss, cachedTokens: hit })
  }

  #endWhole(finish: FinishReason): void {
    this.#sendHead()
    this.#answer.end(this.#dialect.whole(this.#request.run, this.#deltas, finish, this.#usage))
    this.#done.resolve()
  }

  /** The engine failed or the node stops. The receipt says zero; a cancel by the reader never gets here. */
  #endBroken(): void {
    const code = this.#shutDown ? 'node_draining' : 'internal_error'
    if (this.#answer.headSent) this.#answer.end(this.#dialect.errorFrame(apiError(code)))
    else this.#answer.refuse(apiError(code, this.#shutDown ? { retryAfterSeconds: 1 } : {}))
    this.#done.resolve()
  }

  /** The journal failed: nothing more may be served. */
  #break(error: unknown): void {
    log('error', 'run_broken', { request: this.#request.run.requestId, error: reasonOf(error) })
    this.#handle?.cancel()
    this.#place.leave()
    this.#answer.break()
    this.#done.resolve()
  }
}

interface How {
  readonly dialect: Dialect
  readonly parser: AnswerParser
  readonly grammar?: GrammarSession
}

const tooLong = (context: number, prompt: string): ApiError =>
  apiError('context_length_exceeded', {
    message: `The model's context is ${context} tokens, one of them for the answer; the prompt has ${prompt}.`,
  })

const refusalOf = (error: unknown, promptTokens: number, context: number): ApiError => {
  if (!(error instanceof EngineError)) throw error
  if (error.code === 'context_too_long') return tooLong(context, String(promptTokens))
  if (error.code === 'bad_argument') return apiError('invalid_request', { message: error.message })
  return apiError('internal_error', { internal: error.message })
}

/** Everything that can be refused before the prompt is tokenized. */
const prepare = ({ run }: RunRequest, shop: Workshop): Result<How> => {
  if (run.model !== shop.model) return fail('model_not_found')
  const dialect = dialectByName(run.dialect)
  if (!dialect) return fail('invalid_request', { message: `This node does not know the dialect ${run.dialect}.` })
  const format = chatFormatByName(run.chatFormat)
  if (!format) return fail('invalid_request', { message: `This node does not know the chat format ${run.chatFormat}.` })
  if (run.prompt === '') return fail('invalid_request', { message: 'The prompt is empty.' })
  const { contextLength } = shop.engine.info
  const least = Math.ceil(run.prompt.length / shop.tokenizer.longestTokenBytes)
  if (least + 1 > contextLength) return { ok: false, error: tooLong(contextLength, `at least ${least}`) }
  const { thinking, stop, requestId } = run
  return ok({ dialect, parser: format.parser({ thinking, stop, requestId }) })
}

/** Serves one verified request. `live` holds the run while it lasts. Error: refused before any work. */
export const generate = async (
  shop: Workshop,
  request: RunRequest,
  answer: Answer,
  live: Set<Generation>,
): Promise<Result<void>> => {
  const prepared = prepare(request, shop)
  if (!prepared.ok) return prepared
  const place = shop.admission.enter()
  if (!place.ok) return place
  let session: GrammarSession | undefined
  try {
    const { prompt: text, grammar } = request.run
    const [prompt, opened] = await Promise.all([
      shop.tokenizer.encode(text),
      grammar ? shop.grammars.open(grammar) : undefined,
    ])
    if (opened?.ok === false) return opened
    session = opened?.value
    const { contextLength } = shop.engine.info
    if (prompt.ids.length + 1 > contextLength) {
      return { ok: false, error: tooLong(contextLength, String(prompt.ids.length)) }
    }
    if (answer.gone) return ok(undefined)
    const how = { ...prepared.value, ...(session ? { grammar: session } : {}) }
    const generation = new Generation(shop, request, prompt, answer, place.value, how)
    live.add(generation)
    try {
      return await generation.run()
    } finally {
      live.delete(generation)
    }
  } finally {
    session?.close()
    place.value.leave()
  }
}
