// One run from prompt to receipt: tokenize, queue, journal OPEN, stream, journal CLOSE, finish. The order of the last three
// is the promise that billing stands on: no token leaves before OPEN is durable, no finish before CLOSE is.
import type { ChatFormat } from '../schema/chat/chat_format.ts'
import type { Dialect, StreamFormatter, Usage } from '../schema/dialects/dialect.ts'
import { apiError, ok, type Result } from '../schema/errors.ts'
import { KV_PAGE_TOKENS } from '../schema/limits.ts'
import { tokensPerBlock } from '../schema/prefix.ts'
import type { FinishReason, Run, RunRequest } from '../schema/wire.ts'
import type { Admission, Place } from './admission.ts'
import type { Answer, Head } from './answer.ts'
import { ChoiceText, specOf } from './choice.ts'
import type { EndReason, Engine, EngineEvent, SampledLogprob, SequenceHandle } from './engine/engine.ts'
import type { GrammarSession, Grammars } from './grammar.ts'
import type { Meter } from './journal.ts'
import { NO_COUNTS, type RunCounts } from './journal_records.ts'
import { log, reasonOf } from './log.ts'
import type { Metrics, PrefillSpeed } from './metrics.ts'
import { givenPrompt, type Prepared, prepare, refusalOf, tooLong } from './prepare.ts'
import { RunClock } from './run_clock.ts'
import type { EncodedPrompt, Tokenizer } from './tokenizer.ts'

/** What every run needs of its node. */
export interface Workshop {
  readonly nodeId: string
  readonly model: string
  readonly chatFormat: ChatFormat
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
  // The reader gets what there is, as at max_tokens.
  deadline: 'length',
  error: 'error',
}

type EndEvent = Extract<EngineEvent, { kind: 'end' }>

/** A run between submission and its last byte. */
export class Generation {
  readonly #shop: Workshop
  readonly #request: RunRequest
  readonly #prompt: EncodedPrompt
  readonly #answer: Answer
  readonly #place: Place
  readonly #dialect: Dialect
  /** As the client is told of it. */
  readonly #run: Run
  readonly #format: StreamFormatter
  readonly #choices: readonly ChoiceText[]
  /** One a choice, where the answer is held to a grammar. */
  readonly #grammars: readonly GrammarSession[]
  readonly #openedAt = Date.now()
  readonly #clock: RunClock
  readonly #done = Promise.withResolvers<void>()
  readonly #handles: SequenceHandle[] = []
  #cancelled = false
  #failed = false
  /** The deadline passed before a token came. */
  #overdue = false
  /** The first choice's end: what the prompt cost. */
  #prefilled: EndEvent | undefined
  #ended = 0
  #counts: RunCounts = NO_COUNTS
  #progressAt = PROGRESS_TOKENS
  #isOpen = false
  #isStarted = false
  #hasBegun = false
  #finish: FinishReason | undefined
  #shutDown = false

  constructor(
    shop: Workshop,
    request: RunRequest,
    prompt: EncodedPrompt,
    answer: Answer,
    place: Place,
    how: Prepared,
    grammars: readonly GrammarSession[],
    clock: RunClock,
  ) {
    this.#shop = shop
    this.#request = request
    this.#prompt = prompt
    this.#answer = answer
    this.#place = place
    this.#dialect = how.dialect
    this.#run = how.run
    this.#format = how.dialect.stream(how.run)
    const { n = 1 } = request.run
    const { textBytes } = shop.tokenizer
    this.#choices = Array.from({ length: n }, (_, i) => new ChoiceText(request.run, how.format, textBytes, i))
    this.#grammars = grammars
    this.#clock = clock
  }

  /** Submits and resolves when the last byte is handed over or the receipt of a broken run is durable. Error: refused. */
  async run(): Promise<Result<void>> {
    const { run, accountId, keyId, attempt } = this.#request
    const { engine, journal } = this.#shop
    try {
      this.#submit(0)
    } catch (error) {
      return { ok: false, error: refusalOf(error, this.#prompt.ids.length, engine.info.contextLength) }
    }
    this.#answer.onGone(() => this.#cancel())
    this.#answer.onDrain(() => this.#flush())
    if (this.#answer.gone) this.#cancel()
    if (run.stream) this.#answer.queued(this.#head)
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

  #obeyGrammar(index: number, handle: SequenceHandle): void {
    this.#grammars[index]?.start(
      (position, words) => handle.mask(position, words),
      (message) => {
        log('error', 'grammar_failed_run', { request: this.#request.run.requestId, error: message })
        this.#failed = true
        this.#cancel()
      },
    )
  }

  /** The node stops: ends the run, uncharged. */
  shutDown(): void {
    this.#shutDown = true
    this.#cancel()
  }

  #submit(index: number): void {
    const { run } = this.#request
    const spec = specOf(run, this.#prompt.ids, this.#request, index)
    const masked = this.#grammars.length > 0
    const deadlineMs = run.deadlineMs && Math.max(1, Math.round(run.deadlineMs - this.#clock.sinceArrivalMs()))
    const handle = this.#shop.engine.submit({ ...spec, masked, deadlineMs }, (events) => this.#take(index, events))
    this.#handles.push(handle)
    this.#obeyGrammar(index, handle)
  }

  /** The prompt's pages are there now: the other choices find all but the last in the cache. */
  #submitOthers(): void {
    try {
      while (!this.#cancelled && this.#handles.length < this.#choices.length) this.#submit(this.#handles.length)
    } catch (error) {
      log('error', 'choice_not_taken', { request: this.#request.run.requestId, error: reasonOf(error) })
      this.#failed = true
      this.#cancel()
    }
  }

  /** No choice goes on, and none begins. */
  #cancel(): void {
    this.#cancelled = true
    for (const handle of this.#handles) handle.cancel()
  }

  /** All events of one engine step for one choice. */
  #take(index: number, events: readonly EngineEvent[]): void {
    for (const event of events) {
      if (event.kind === 'start') this.#start(index, event.promptTokens, event.cachedTokens)
      else if (event.kind === 'tokens') this.#tokens(index, event.ids, event.logprobs)
      else this.#endChoice(index, event)
    }
    if (this.#finish === undefined) this.#flush()
  }

  /** The first choice alone speaks for the prompt: it is computed, and paid, once. */
  #start(index: number, promptTokens: number, cachedTokens: number): void {
    if (index > 0) return
    this.#isStarted = true
    this.#clock.taken()
    this.#shop.metrics.vllm.admitted(promptTokens, cachedTokens)
    this.#place.started()
    this.#counts = { ...this.#counts, hit: cachedTokens, miss: promptTokens - cachedTokens }
    this.#shop.metrics.prefix.observe(promptTokens, cachedTokens, this.#request.predictedTokens ?? 0)
  }

  #tokens(index: number, ids: readonly number[], logprobs?: readonly SampledLogprob[]): void {
    this.#grammars[index]?.accept(ids)
    const { metrics, prefillSpeed, journal } = this.#shop
    const between = this.#clock.tokens(index)
    metrics.vllm.sampled(ids.length)
    if (this.#counts.firstTokenAt === null) {
      metrics.firstToken(this.#clock.toFirst)
      prefillSpeed.observe(this.#counts.miss, this.#clock.prefill * 1000)
    } else if (between !== undefined) {
      metrics.betweenTokens(between, ids.length)
    }
    this.#choices[index]?.tokens(ids, logprobs)
    if (this.#handles.length < this.#choices.length) this.#submitOthers()
    const [output, reasoning] = [this.#sum('output'), this.#sum('reasoning')]
    this.#counts = { ...this.#counts, output, reasoning, firstTokenAt: this.#counts.firstTokenAt ?? Date.now() }
    if (output < this.#progressAt) return
    this.#progressAt = output + PROGRESS_TOKENS
    journal.progress({ requestId: this.#request.run.requestId, attempt: this.#request.attempt }, this.#counts)
  }

  #sum(of: 'output' | 'reasoning'): number {
    return this.#choices.reduce((sum, choice) => sum + choice[of], 0)
  }

  #endChoice(index: number, event: EndEvent): void {
    this.#choices[index]?.end(event.reason, event.sampledTokens)
    const { requestId } = this.#request.run
    if (event.reason === 'error') {
      log('error', 'engine_failed_run', { request: requestId, error: event.message })
      this.#failed = true
      this.#cancel()
    }
    if (event.reason === 'cancelled') this.#cancel()
    if (event.reason === 'deadline' && this.#sum('output') === 0) {
      this.#overdue = true
      this.#cancel()
    }
    if (index === 0) this.#prefilled = event
    if (++this.#ended === this.#handles.length) void this.#end().catch((error) => this.#break(error))
  }

  /** How the run as a whole ended: the first choice's word, unless a choice failed or was cancelled. */
  #finishOfRun(): FinishReason {
    if (this.#overdue) return 'cancelled'
    const cancelled = this.#choices.some((choice) => choice.reason === 'cancelled' || choice.reason === undefined)
    if (this.#failed || (this.#shutDown && cancelled)) return 'error'
    return cancelled ? 'cancelled' : this.#finishOf(this.#choices[0])
  }

  #finishOf(choice: ChoiceText | undefined): FinishReason {
    const finish = FINISH[choice?.reason ?? 'cancelled']
    return finish === 'stop' && (choice?.toolCalls ?? 0) > 0 ? 'tool_calls' : finish
  }

  /** Every choice has ended. */
  async #end(): Promise<void> {
    const finish = this.#finishOfRun()
    const times = this.#clock.times()
    const { cachedTokens = 0, computedTokens = 0 } = this.#prefilled ?? {}
    const output = this.#sum('output')
    // An error in place of an answer is free; behind a head the prefill was told, and is billed as any cancelled one.
    const unanswered = this.#overdue && !this.#answer.headSent
    const free = finish === 'error' || unanswered || !this.#isStarted
    this.#counts = free ? NO_COUNTS : { ...this.#counts, hit: cachedTokens, miss: computedTokens, output }
    const { requestId } = this.#request.run
    const { engine, journal, metrics, onClosed } = this.#shop
    const isKept = finish !== 'error' && engine.info.reusesPages !== false
    const resident = isKept ? cachedTokens + computedTokens : 0
    const key = { requestId, attempt: this.#request.attempt }
    await journal.close(key, { finish, prefix: this.#residentBlocks(resident), counts: this.#counts })
    this.#place.leave()
    metrics.finished(finish, this.#counts)
    metrics.vllm.ended(finish, times, cachedTokens + computedTokens, output)
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
    else if (this.#finish !== undefined) this.#endWhole()
  }

  #flushStream(): void {
    let text = ''
    if (!this.#answer.headSent) this.#answer.head(this.#head)
    if (!this.#hasBegun) {
      this.#hasBegun = true
      text += this.#format.start({ ...this.#usage, output: 0, reasoning: 0 })
    }
    // A slow reader's text waits in the choices, joined; formatted it would be fifty times the size.
    for (const [i, choice] of this.#choices.entries()) {
      if (choice.hasDeltas && !this.#answer.isFull) text += this.#format.deltas(i, choice.take())
    }
    if (this.#finish !== undefined && !this.#choices.some((choice) => choice.hasDeltas)) {
      const reasons = this.#choices.map((choice) => this.#finishOf(choice))
      const stops = this.#choices.map((choice) => choice.stop)
      this.#answer.end(text + this.#format.finish(reasons, this.#usage, stops))
      this.#done.resolve()
    } else if (text !== '') {
      this.#answer.write(text)
    }
  }

  get #head(): Head {
    const { nodeId } = this.#shop
    const { stream } = this.#request.run
    return { nodeId, stream, promptTokens: this.#prompt.ids.length, cachedTokens: this.#counts.hit }
  }

  #endWhole(): void {
    this.#answer.head(this.#head)
    const choices = this.#choices.map((choice) => ({
      ...{ deltas: choice.take(), finish: this.#finishOf(choice), stop: choice.stop },
    }))
    this.#answer.end(this.#dialect.whole(this.#run, choices, this.#usage))
    this.#done.resolve()
  }

  /** The engine failed, the node stops or the deadline passed; a cancel by the reader never gets here. */
  #endBroken(): void {
    const code = this.#shutDown ? 'node_draining' : this.#overdue ? 'deadline_exceeded' : 'internal_error'
    if (this.#answer.headSent) this.#answer.end(this.#dialect.errorFrame(apiError(code)))
    else this.#answer.refuse(apiError(code, this.#shutDown ? { retryAfterSeconds: 1 } : {}))
    this.#done.resolve()
  }

  /** The journal failed: nothing more may be served. */
  #break(error: unknown): void {
    log('error', 'run_broken', { request: this.#request.run.requestId, error: reasonOf(error) })
    this.#cancel()
    this.#place.leave()
    this.#answer.break()
    this.#done.resolve()
  }
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
  const clock = new RunClock()
  const place = shop.admission.enter(request.accountId)
  if (!place.ok) return place
  const grammars: GrammarSession[] = []
  try {
    const { prompt: text, promptTokens, grammar, n = 1 } = request.run
    const [prompt, ...opened] = await Promise.all([
      promptTokens ? givenPrompt(promptTokens, shop.tokenizer) : shop.tokenizer.encode(text),
      ...(grammar ? Array.from({ length: n }, () => shop.grammars.open(grammar)) : []),
    ])
    for (const session of opened) if (session.ok) grammars.push(session.value)
    const refused = opened.find((session) => !session.ok)
    if (refused?.ok === false) return refused
    const { contextLength } = shop.engine.info
    if (prompt.ids.length + 1 > contextLength) {
      return { ok: false, error: tooLong(contextLength, String(prompt.ids.length)) }
    }
    if (answer.gone) return ok(undefined)
    // What was still being read when the time to drain ran out never began.
    if (shop.admission.closed) return { ok: false, error: apiError('node_draining', { retryAfterSeconds: 1 }) }
    const generation = new Generation(shop, request, prompt, answer, place.value, prepared.value, grammars, clock)
    live.add(generation)
    try {
      return await generation.run()
    } finally {
      live.delete(generation)
    }
  } finally {
    for (const session of grammars) session.close()
    place.value.leave()
  }
}
