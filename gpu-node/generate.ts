// One run, from admitted request to closed receipt. Order matters: OPEN is durable before the first token leaves, CLOSE before
// the finish does. A sink is where the answer goes; it may vanish at any time, the receipt is written all the same.

import type { AnswerParser } from '../schema/chat/chat_format.ts'
import { chatFormatByName } from '../schema/chat/index.ts'
import type { Delta, Dialect, StreamFormatter, Usage } from '../schema/dialects/dialect.ts'
import { dialectByName } from '../schema/dialects/index.ts'
import { type ApiError, apiError } from '../schema/errors.ts'
import { KV_PAGE_TOKENS } from '../schema/limits.ts'
import { tokensPerBlock } from '../schema/prefix.ts'
import type { FinishReason, RunRequest } from '../schema/wire.ts'
import { type Engine, EngineError, type EngineEvent, type SequenceHandle } from './engine/engine.ts'
import type { Journal } from './journal.ts'
import type { Metrics } from './metrics.ts'
import type { EncodedPrompt, Tokenizer } from './tokenizer.ts'

/** Tokens between PROGRESS records: what a crash can lose, in the customer's favour. */
const PROGRESS_TOKENS = 64

/** Where an answer goes. Calls after the client left are ignored. */
export interface Sink {
  /** The head of a 200 answer; once, before any write. */
  head(promptTokens: number, cachedTokens: number, stream: boolean): void
  write(text: string): void
  end(text?: string): void
  /** An error instead of a head. */
  fail(error: ApiError): void
}

export interface GenerateContext {
  readonly engine: Engine
  readonly tokenizer: Tokenizer
  readonly journal: Journal
  readonly metrics: Metrics
  readonly nodeId: string
  readonly onClosed: () => void
  readonly onPrefill: (tokens: number, seconds: number) => void
}

type EndEvent = Extract<EngineEvent, { kind: 'end' }>

class Generation {
  readonly #c: GenerateContext
  readonly #request: RunRequest
  readonly #prompt: EncodedPrompt
  readonly #sink: Sink
  readonly #dialect: Dialect
  readonly #formatter: StreamFormatter
  readonly #parser: AnswerParser
  readonly #decoder = new TextDecoder()
  readonly #deltas: Delta[] = []
  readonly #openedAt = Date.now()
  readonly #queue: (readonly EngineEvent[])[] = []
  #pumping = false
  #handle: SequenceHandle | undefined
  #headSent = false
  #hit = 0
  #output = 0
  #reasoning = 0
  #startedAt = 0
  #lastStepAt = 0
  #firstTokenAt: number | null = null
  #done: () => void = () => {}
  /** Settles when the receipt is durable. */
  readonly finished = new Promise<void>((resolve) => {
    this.#done = resolve
  })

  constructor(
    c: GenerateContext,
    request: RunRequest,
    prompt: EncodedPrompt,
    sink: Sink,
    dialect: Dialect,
    parser: AnswerParser,
  ) {
    this.#c = c
    this.#request = request
    this.#prompt = prompt
    this.#sink = sink
    this.#dialect = dialect
    this.#formatter = dialect.stream(request.run)
    this.#parser = parser
  }

  /** Throws EngineError where the engine refuses the sequence. */
  start(): void {
    const { run, cacheSalt } = this.#request
    const spec = {
      tokens: this.#prompt.ids,
      cacheSalt,
      maxTokens: run.maxTokens,
      temperature: run.temperature,
      topP: run.topP,
      seed: BigInt.asUintN(64, BigInt(run.seed)),
      stop: run.stop.map((text) => new TextEncoder().encode(text)),
    }
    this.#handle = this.#c.engine.submit(spec, (events) => {
      this.#queue.push(events)
      if (!this.#pumping) void this.#pump()
    })
  }

  cancel(): void {
    this.#handle?.cancel()
  }

  /** Events in order, one wake-up at a time: journal writes are awaited in between. */
  async #pump(): Promise<void> {
    this.#pumping = true
    for (let events = this.#queue.shift(); events; events = this.#queue.shift()) {
      try {
        for (const event of events) await this.#handleEvent(event)
      } catch (error) {
        // The journal failed (disk full, say): without a durable record no token may leave.
        console.error(
          JSON.stringify({ event: 'run_failed', requestId: this.#request.run.requestId, error: String(error) }),
        )
        this.cancel()
        this.#answerError(apiError('internal_error'))
        this.#done()
      }
    }
    this.#pumping = false
  }

  async #handleEvent(event: EngineEvent): Promise<void> {
    if (event.kind === 'start') return this.#started(event.cachedTokens)
    if (event.kind === 'tokens') return this.#tokens(event.ids)
    return this.#ended(event)
  }

  get #miss(): number {
    return this.#prompt.ids.length - this.#hit
  }

  #usage(miss: number): Usage {
    return { hit: this.#hit, miss, output: this.#output, reasoning: this.#reasoning }
  }

  get #identity() {
    const { run, attempt, accountId, keyId } = this.#request
    return {
      requestId: run.requestId,
      attempt,
      accountId,
      keyId,
      nodeId: this.#c.nodeId,
      model: run.model,
      openedAt: this.#openedAt,
    }
  }

  async #started(cachedTokens: number): Promise<void> {
    this.#hit = cachedTokens
    this.#startedAt = performance.now()
    // Until tokens flow a crash is charged nothing: prefill counts are zero in OPEN.
    await this.#c.journal.openRun({ ...this.#identity, hitTokens: 0, missTokens: 0 })
    if (!this.#request.run.stream) return
    this.#sendHead()
    this.#sink.write(this.#formatter.start(this.#usage(this.#miss)))
  }

  #sendHead(): void {
    this.#headSent = true
    this.#sink.head(this.#prompt.ids.length, this.#hit, this.#request.run.stream)
  }

  #tokens(ids: readonly number[]): void {
    this.#clockStep()
    const deltas: Delta[] = []
    for (const id of ids) {
      if (this.#parser.inReasoning) this.#reasoning++
      const text = this.#decoder.decode(this.#c.tokenizer.textBytes[id], { stream: true })
      deltas.push(...this.#parser.push(text))
      if (++this.#output % PROGRESS_TOKENS === 0) this.#recordProgress()
    }
    this.#deliver(deltas)
  }

  #clockStep(): void {
    const now = performance.now()
    if (this.#firstTokenAt === null) {
      this.#firstTokenAt = Date.now()
      this.#c.metrics.ttft.observe((this.#firstTokenAt - this.#openedAt) / 1000)
      this.#c.onPrefill(this.#miss, (now - this.#startedAt) / 1000)
      this.#recordProgress()
    } else {
      this.#c.metrics.itl.observe((now - this.#lastStepAt) / 1000)
    }
    this.#lastStepAt = now
  }

  #recordProgress(): void {
    const { requestId, attempt } = this.#identity
    this.#c.journal.progress({
      ...{ requestId, attempt, hitTokens: this.#hit, missTokens: this.#miss },
      ...{ outputTokens: this.#output, reasoningTokens: this.#reasoning, firstTokenAt: this.#firstTokenAt },
    })
  }

  #deliver(deltas: readonly Delta[]): void {
    if (!this.#request.run.stream) this.#deltas.push(...deltas)
    else if (deltas.length > 0) this.#sink.write(this.#formatter.deltas(deltas))
  }

  async #ended(end: EndEvent): Promise<void> {
    const tail = this.#parser.push(this.#decoder.decode())
    const { deltas, toolCalls } = this.#parser.end()
    const failed = end.reason === 'error'
    const finish = this.#finishOf(end, toolCalls)
    // An engine fault costs nothing; a cancel costs what was really computed and sampled.
    const counts = failed ? { hitTokens: 0, missTokens: 0, outputTokens: 0, reasoningTokens: 0 } : this.#countsOf(end)
    const receipt = await this.#c.journal.close({
      ...this.#identity,
      ...counts,
      finish,
      firstTokenAt: this.#firstTokenAt,
      closedAt: Math.max(Date.now(), this.#openedAt),
      prefix: failed ? [] : this.#residentBlocks(counts.hitTokens + counts.missTokens),
    })
    this.#countMetrics(finish, counts)
    this.#c.onClosed()
    if (failed) {
      console.error(JSON.stringify({ event: 'engine_error', requestId: receipt.requestId, message: end.message }))
      this.#answerError(apiError('internal_error'))
    } else if (finish !== 'cancelled') {
      this.#answer([...tail, ...deltas], finish)
    } else {
      this.#sink.end()
    }
    this.#done()
  }

  #finishOf(end: EndEvent, toolCalls: number): FinishReason {
    if (end.reason === 'error' || end.reason === 'cancelled' || end.reason === 'length') return end.reason
    return toolCalls > 0 ? 'tool_calls' : 'stop'
  }

  /** A run that was never started (cancelled in the queue) counts nothing, its cached tokens included. */
  #countsOf(end: EndEvent) {
    const started = end.computedTokens > 0
    return {
      hitTokens: started ? end.cachedTokens : 0,
      missTokens: end.computedTokens,
      outputTokens: end.sampledTokens,
      reasoningTokens: this.#reasoning,
    }
  }

  #countMetrics(finish: FinishReason, counts: { hitTokens: number; missTokens: number; outputTokens: number }): void {
    this.#c.metrics.runs.inc({ finish })
    this.#c.metrics.tokens.inc({ kind: 'hit' }, counts.hitTokens)
    this.#c.metrics.tokens.inc({ kind: 'miss' }, counts.missTokens)
    this.#c.metrics.tokens.inc({ kind: 'output' }, counts.outputTokens)
  }

  /** Prompt text blocks whose tokens all lie in full pages: what the next run can reuse. */
  #residentBlocks(computed: number): [string, number][] {
    const resident = Math.floor(computed / KV_PAGE_TOKENS) * KV_PAGE_TOKENS
    const keys = this.#request.prefixKeys
    const ends = tokensPerBlock(this.#prompt.bytes, keys.length)
    return keys.flatMap((key, i): [string, number][] => {
      const tokens = ends[i] ?? 0
      return tokens > 0 && tokens <= resident ? [[key, tokens]] : []
    })
  }

  #answer(deltas: readonly Delta[], finish: FinishReason): void {
    const { run } = this.#request
    this.#deliver(deltas)
    const usage = this.#usage(this.#miss)
    if (run.stream) {
      this.#sink.end(this.#formatter.finish(finish, usage))
      return
    }
    this.#sendHead()
    this.#sink.end(this.#dialect.whole(run, this.#deltas, finish, usage))
  }

  #answerError(error: ApiError): void {
    if (this.#headSent) this.#sink.end(this.#dialect.errorFrame(error))
    else this.#sink.fail(error)
  }
}

export interface RunningRun {
  cancel(): void
  readonly finished: Promise<void>
}

const errorOf = (error: EngineError): ApiError =>
  error.code === 'context_too_long'
    ? apiError('context_length_exceeded', { message: error.message, param: 'messages' })
    : apiError('internal_error', { internal: error.message })

/** Starts a run; undefined when it was refused, which the sink was told. */
export const generate = async (
  c: GenerateContext,
  request: RunRequest,
  sink: Sink,
): Promise<RunningRun | undefined> => {
  const { run } = request
  const dialect = dialectByName(run.dialect)
  const format = chatFormatByName(run.chatFormat)
  if (!dialect || !format) {
    sink.fail(apiError('node_failed', { message: `This node knows no ${dialect ? run.chatFormat : run.dialect}.` }))
    return undefined
  }
  const parser = format.parser({ thinking: run.thinking, stop: run.stop, requestId: run.requestId })
  const generation = new Generation(c, request, await c.tokenizer.encode(run.prompt), sink, dialect, parser)
  try {
    generation.start()
    return generation
  } catch (error) {
    if (!(error instanceof EngineError)) throw error
    sink.fail(errorOf(error))
    return undefined
  }
}
