// One run from prompt to receipt: tokenize, queue, journal OPEN, stream, journal CLOSE, finish. The order of the last three
// is the promise that billing stands on: no token leaves before OPEN is durable, no finish before CLOSE is.
import type { ChatFormat } from '../schema/chat/chat_format.ts'
import type { Dialect, StreamFormatter, Usage } from '../schema/dialects/dialect.ts'
import { apiError, ok, type Result } from '../schema/errors.ts'
import { KV_PAGE_TOKENS } from '../schema/limits.ts'
import { tokensPerBlock } from '../schema/prefix.ts'
import { choicesOf } from '../schema/prompts.ts'
import type { FinishReason, Run, RunRequest } from '../schema/wire.ts'
import type { Admission, Place } from './admission.ts'
import type { Answer, Head } from './answer.ts'
import { ChoiceText, specOf } from './choice.ts'
import type { Engine, EngineEvent, SampledLogprob, SequenceHandle } from './engine/engine.ts'
import type { GrammarSession, Grammars } from './grammar.ts'
import type { Meter } from './journal.ts'
import { NO_COUNTS, type RunCounts } from './journal_records.ts'
import { log, reasonOf } from './log.ts'
import type { Metrics, PrefillSpeed } from './metrics.ts'
import { type Prepared, refusalOf } from './prepare.ts'
import type { PromptGroup } from './prompt_group.ts'
import type { RunClock } from './run_clock.ts'
import type { Tokenizer } from './tokenizer.ts'

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

type EndEvent = Extract<EngineEvent, { kind: 'end' }>
type StartEvent = Extract<EngineEvent, { kind: 'start' }>

/** A run between submission and its last byte. */
export class Generation {
  readonly #shop: Workshop
  readonly #request: RunRequest
  /** Its prompts. */
  readonly #groups: readonly PromptGroup[]
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
  /** Of each choice that was submitted. */
  readonly #handles = new Map<number, SequenceHandle>()
  #cancelled = false
  #failed = false
  /** The deadline passed before a token came. */
  #overdue = false
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
    groups: readonly PromptGroup[],
    answer: Answer,
    place: Place,
    how: Prepared,
    grammars: readonly GrammarSession[],
    clock: RunClock,
  ) {
    this.#shop = shop
    this.#request = request
    this.#groups = groups
    this.#answer = answer
    this.#place = place
    this.#dialect = how.dialect
    this.#run = how.run
    this.#format = how.dialect.stream(how.run)
    const { textBytes } = shop.tokenizer
    const choice = (_: unknown, i: number) => new ChoiceText(request.run, how.format, textBytes, i)
    this.#choices = Array.from({ length: choicesOf(request.run) }, choice)
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
      return { ok: false, error: refusalOf(error, this.#promptTokens, engine.info.contextLength) }
    }
    for (const { first } of this.#groups.slice(1)) this.#submitMore(first, first + 1)
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
    const { n = 1 } = run
    const group = this.#groupOf(index)
    const spec = specOf(run, group.prompt.ids, this.#request, group.repeats * n + index - group.first)
    const promptLogprobs = group.isScored && index === group.first
    const masked = this.#grammars.length > 0
    const deadlineMs = run.deadlineMs && Math.max(1, Math.round(run.deadlineMs - this.#clock.sinceArrivalMs()))
    const handle = this.#shop.engine.submit({ ...spec, masked, deadlineMs, promptLogprobs }, (events) =>
      this.#take(index, events),
    )
    this.#handles.set(index, handle)
    this.#obeyGrammar(index, handle)
  }

  #groupOf(index: number): PromptGroup {
    return this.#groups[Math.floor(index / (this.#request.run.n ?? 1))] as PromptGroup
  }

  get #promptTokens(): number {
    return this.#groups.reduce((sum, { prompt }) => sum + prompt.ids.length, 0)
  }

  /** The first choice of a prompt has its first tokens: what the prompt is repeated with is known, and its pages are there. */
  #promptDone(group: PromptGroup): void {
    group.isDone = true
    const { n = 1 } = this.#request.run
    if (group.isEchoed) this.#echo(group)
    this.#submitMore(group.first + 1, group.first + n)
  }

  #echo(group: PromptGroup): void {
    const { n = 1 } = this.#request.run
    const { bytes, tokens } = group.echo(this.#shop.tokenizer.textBytes)
    for (const choice of this.#choices.slice(group.first, group.first + n)) choice.begin(bytes, tokens)
  }

  #submitMore(from: number, to: number): void {
    try {
      for (let index = from; index < to && !this.#cancelled; index++) this.#submit(index)
    } catch (error) {
      log('error', 'choice_not_taken', { request: this.#request.run.requestId, error: reasonOf(error) })
      this.#failed = true
      this.#cancel()
    }
  }

  /** No choice goes on, and none begins. */
  #cancel(): void {
    this.#cancelled = true
    for (const handle of this.#handles.values()) handle.cancel()
  }

  /** All events of one engine step for one choice. */
  #take(index: number, events: readonly EngineEvent[]): void {
    for (const event of events) {
      if (event.kind === 'start') this.#start(index, event)
      else if (event.kind === 'prompt') this.#groupOf(index).score(event.logprobs)
      else if (event.kind === 'tokens') this.#tokens(index, event.ids, event.logprobs)
      else this.#endChoice(index, event)
    }
    if (this.#finish === undefined) this.#flush()
  }

  /** The first choice alone speaks for its prompt: that is computed, and paid, once. */
  #start(index: number, event: StartEvent): void {
    const group = this.#groupOf(index)
    if (index > group.first) return
    const { promptTokens, cachedTokens } = event
    this.#isStarted = true
    this.#clock.taken()
    this.#shop.metrics.vllm.admitted(promptTokens, cachedTokens)
    this.#place.started()
    group.started(event)
    this.#counts = { ...this.#counts, ...this.#prefilled }
    const predicted = index === 0 ? (this.#request.predictedTokens ?? 0) : 0
    this.#shop.metrics.prefix.observe(promptTokens, cachedTokens, predicted)
  }

  #tokens(index: number, ids: readonly number[], logprobs?: readonly SampledLogprob[]): void {
    this.#grammars[index]?.accept(ids)
    const { metrics, prefillSpeed, journal } = this.#shop
    const between = this.#clock.tokens(index)
    if (this.#counts.firstTokenAt === null) {
      metrics.firstToken(this.#clock.toFirst)
      if (this.#groups.length === 1) prefillSpeed.observe(this.#counts.miss, this.#clock.prefill * 1000)
    } else if (between !== undefined) {
      metrics.betweenTokens(between, ids.length)
    }
    const group = this.#groupOf(index)
    if (!group.isDone) this.#promptDone(group)
    const choice = this.#choices[index] as ChoiceText
    const before = choice.output
    choice.tokens(ids, logprobs)
    metrics.vllm.sampled(choice.output - before)
    if (choice.isCut) this.#handles.get(index)?.cancel()
    const [output, reasoning] = [this.#sum('output'), this.#sum('reasoning')]
    this.#counts = { ...this.#counts, output, reasoning, firstTokenAt: this.#counts.firstTokenAt ?? Date.now() }
    if (output < this.#progressAt) return
    this.#progressAt = output + PROGRESS_TOKENS
    journal.progress({ requestId: this.#request.run.requestId, attempt: this.#request.attempt }, this.#counts)
  }

  #sum(of: 'output' | 'reasoning'): number {
    return this.#choices.reduce((sum, choice) => sum + choice[of], 0)
  }

  #endChoice(index: number, ended: EndEvent): void {
    const isCut = this.#choices[index]?.isCut && ended.reason !== 'error' && !this.#cancelled
    const event: EndEvent = isCut ? { ...ended, reason: 'stop_string' } : ended
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
    const group = this.#groupOf(index)
    if (index === group.first) group.ended(event)
    if (++this.#ended === this.#handles.size) void this.#end().catch((error) => this.#break(error))
  }

  /** How the run as a whole ended: the first choice's word, unless a choice failed or was cancelled. */
  #finishOfRun(): FinishReason {
    if (this.#overdue) return 'cancelled'
    const cancelled = this.#choices.some((choice) => choice.reason === 'cancelled' || choice.reason === undefined)
    if (this.#failed || (this.#shutDown && cancelled)) return 'error'
    return cancelled ? 'cancelled' : (this.#choices[0]?.finish ?? 'cancelled')
  }

  /** Every choice has ended. */
  async #end(): Promise<void> {
    const finish = this.#finishOfRun()
    const times = this.#clock.times()
    const output = this.#sum('output')
    const prefilled = this.#prefilled
    // A fault of ours is free. A deadline is the client's own, as a cancel is: the prefill until then stays in its cache, and is billed.
    const free = finish === 'error' || !this.#isStarted
    // Behind a head nobody tries another node: the time of the first token tells the edge that this is the end.
    const toldAt = this.#answer.headSent ? (this.#counts.firstTokenAt ?? Date.now()) : null
    this.#counts = free ? { ...NO_COUNTS, firstTokenAt: toldAt } : { ...this.#counts, ...prefilled, output }
    const { requestId } = this.#request.run
    const { engine, journal, metrics, onClosed } = this.#shop
    const isKept = finish !== 'error' && engine.info.reusesPages !== false
    const key = { requestId, attempt: this.#request.attempt }
    await journal.close(key, { finish, prefix: isKept ? this.#residentBlocks() : [], counts: this.#counts })
    this.#place.leave()
    metrics.finished(finish, this.#counts)
    metrics.vllm.ended(finish, times, prefilled.hit + prefilled.miss, output)
    onClosed()
    this.#finish = finish
    this.#flush()
    if (this.#answer.gone) this.#done.resolve()
  }

  /** What all prompts took. */
  get #prefilled(): Pick<RunCounts, 'hit' | 'miss' | 'firstPrompt'> {
    const sum = (of: 'hit' | 'miss'): number => this.#groups.reduce((all, group) => all + group[of], 0)
    const { hit, miss } = this.#groupOf(0)
    const first = this.#request.countsFirstPrompt ? { firstPrompt: { hit, miss } } : {}
    return { hit: sum('hit'), miss: sum('miss'), ...first }
  }

  /** Text blocks of the first prompt whose tokens all lie in whole pages that were computed or found. */
  #residentBlocks(): [string, number][] {
    const keys = this.#request.prefixKeys
    const { prompt, hit, miss } = this.#groupOf(0)
    const whole = Math.floor((hit + miss) / KV_PAGE_TOKENS) * KV_PAGE_TOKENS
    if (keys.length === 0 || whole === 0) return []
    const ends = tokensPerBlock(prompt.bytes, keys.length)
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
      this.#answer.onQuiet(() => this.#format.alive())
      text += this.#format.start({ ...this.#usage, output: 0, reasoning: 0 })
    }
    // A slow reader's text waits in the choices, joined; formatted it would be fifty times the size.
    for (const [i, choice] of this.#choices.entries()) {
      if (choice.hasDeltas && !this.#answer.isFull) text += this.#format.deltas(i, choice.take())
    }
    if (this.#finish !== undefined && !this.#choices.some((choice) => choice.hasDeltas)) {
      const reasons = this.#choices.map((choice) => choice.finish)
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
    return { nodeId, stream, promptTokens: this.#promptTokens, cachedTokens: this.#counts.hit }
  }

  #endWhole(): void {
    this.#answer.head(this.#head)
    const choices = this.#choices.map((choice) => ({
      ...{ deltas: choice.take(), finish: choice.finish, stop: choice.stop },
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
