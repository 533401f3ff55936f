// One of the answers to a prompt while it is made: token ids to text, text to deltas, deltas with the tokens behind them.
import type { AnswerParser, ChatFormat } from '../schema/chat/chat_format.ts'
import type { Delta, SampledToken } from '../schema/dialects/dialect.ts'
import type { FinishReason, Run, RunRequest } from '../schema/wire.ts'
import type { EndReason, SampledLogprob, SequenceSpec } from './engine/engine.ts'
import { TokenLog } from './token_log.ts'

const M64 = (1n << 64n) - 1n

/** A seed for each choice; the first has the run's own, so that one choice is the first of several. */
export const seedOf = (run: Run, choice: number): bigint => {
  const seed = BigInt.asUintN(64, BigInt(run.seed))
  if (choice === 0) return seed
  // The engine adds multiples of one constant to a seed for its positions: mixing keeps two choices off one path.
  let z = (seed + BigInt(choice) * 0xd1342543de82ef95n) & M64
  z = ((z ^ (z >> 32n)) * 0xd6e8feb86659fd93n) & M64
  z = ((z ^ (z >> 32n)) * 0xd6e8feb86659fd93n) & M64
  return z ^ (z >> 32n)
}

/** Whose pages it may share, and with whom it shares the engine. */
export type Owner = Pick<RunRequest, 'cacheSalt' | 'accountId'>

/** What the engine is asked for a choice. */
export const specOf = (run: Run, tokens: Int32Array, of: Owner, choice: number): SequenceSpec => ({
  ...{ tokens, cacheSalt: of.cacheSalt, account: of.accountId, priority: run.priority },
  // Behind a prompt that is computed the engine samples a token, whoever wants it.
  ...{ maxTokens: Math.max(1, run.maxTokens), temperature: run.temperature, topP: run.topP },
  seed: seedOf(run, choice),
  stop: run.stop.map((text) => new TextEncoder().encode(text)),
  ...{ topK: run.topK, minP: run.minP, logitBias: run.logitBias, topLogprobs: run.topLogprobs },
  ...{ frequencyPenalty: run.frequencyPenalty, presencePenalty: run.presencePenalty },
  ...{ repetitionPenalty: run.repetitionPenalty, minTokens: run.minTokens, ignoreEos: run.ignoreEos },
})

/** Adds a delta to those that wait, joined with the last where both continue one text. */
export const joinDelta = (waiting: Delta[], next: Delta): void => {
  const last = waiting.at(-1)
  if (last && (next.kind === 'content' || next.kind === 'reasoning') && last.kind === next.kind) {
    const logprobs = next.logprobs ? { logprobs: [...(last.logprobs ?? []), ...next.logprobs] } : {}
    waiting[waiting.length - 1] = { kind: next.kind, text: last.text + next.text, ...logprobs }
  } else if (last?.kind === 'tool_arguments' && next.kind === 'tool_arguments' && last.index === next.index) {
    waiting[waiting.length - 1] = { ...next, text: last.text + next.text }
  } else {
    waiting.push(next)
  }
}

/** A token with its text. */
export const sampledToken = (
  textBytes: readonly Uint8Array[],
  id: number,
  { logprob, top }: SampledLogprob,
): SampledToken => {
  const bytesOf = (of: number): Uint8Array => textBytes[of] ?? new Uint8Array()
  return { bytes: bytesOf(id), logprob, top: top.map((one) => ({ bytes: bytesOf(one.id), logprob: one.logprob })) }
}

const FINISH: Readonly<Record<EndReason, FinishReason>> = {
  stop_token: 'stop',
  stop_string: 'stop',
  length: 'length',
  cancelled: 'cancelled',
  // The reader gets what there is, as at max_tokens.
  deadline: 'length',
  error: 'error',
}

export class ChoiceText {
  readonly #parser: AnswerParser
  readonly #textBytes: readonly Uint8Array[]
  readonly #utf8 = new TextDecoder('utf-8', { ignoreBOM: true })
  readonly #log: TokenLog | undefined
  readonly #minTokens: number
  readonly #isEmpty: boolean
  /** Handed on by `take`. */
  #deltas: Delta[] = []
  /** Tokens sampled, and those of them inside the think tags. */
  output = 0
  reasoning = 0
  toolCalls = 0
  #isCallCut = false
  /** The stop string that ended it. */
  stop: string | undefined
  /** Why the engine ended it. */
  reason: EndReason | undefined

  constructor(run: Run, format: Pick<ChatFormat, 'parser'>, textBytes: readonly Uint8Array[], index: number) {
    const withSource = run.topLogprobs !== undefined
    const { thinking, stop, noCalls = false } = run
    // Ids of tool calls must differ between choices too.
    const requestId = index === 0 ? run.requestId : `${run.requestId}${index.toString(16)}`
    this.#parser = format.parser({ thinking, stop, noCalls, requestId, withSource })
    this.#textBytes = textBytes
    this.#log = withSource ? new TokenLog() : undefined
    this.#minTokens = run.minTokens ?? 0
    this.#isEmpty = run.maxTokens === 0
  }

  /** Its text ended at a stop string, also at one in the text of special tokens, where the engine matches none. */
  get isCut(): boolean {
    return this.#parser.stopped
  }

  /** As its reader is told. */
  get finish(): FinishReason {
    const finish = FINISH[this.reason ?? 'cancelled']
    return finish === 'stop' && this.toolCalls > 0 && !this.#isCallCut ? 'tool_calls' : finish
  }

  get hasDeltas(): boolean {
    return this.#deltas.length > 0
  }

  take(): Delta[] {
    const deltas = this.#deltas
    this.#deltas = []
    return deltas
  }

  /** What the answer begins with, before any token of its own: these may end a character that it begins. */
  begin(bytes: Uint8Array, logprobs?: readonly SampledToken[]): void {
    const text = this.#utf8.decode(bytes, { stream: true })
    joinDelta(this.#deltas, { kind: 'content', text, ...(logprobs ? { logprobs } : {}) })
  }

  tokens(ids: readonly number[], logprobs?: readonly SampledLogprob[]): void {
    if (this.#isEmpty) return
    for (const [i, id] of ids.entries()) {
      // What is sampled before the engine hears of it is not the reader's.
      if (this.isCut) return
      this.output++
      const text = this.#utf8.decode(this.#textBytes[id], { stream: true })
      const logprob = logprobs?.[i]
      if (logprob) this.#log?.add(text.length, sampledToken(this.#textBytes, id, logprob))
      if (text !== '') this.#add(this.#parser.push(text, this.output <= this.#minTokens))
      // The tag that ends the reasoning is itself no part of it.
      if (this.#parser.inReasoning) this.reasoning++
    }
  }

  end(reason: EndReason, sampledTokens: number): void {
    this.reason = this.#isEmpty && FINISH[reason] === 'stop' ? 'length' : reason
    this.output = this.isCut || this.#isEmpty ? this.output : sampledTokens
    const rest = this.#utf8.decode()
    if (rest !== '') this.#add(this.#parser.push(rest))
    const { deltas, toolCalls, isCallCut, stop } = this.#parser.end()
    this.#add(deltas)
    this.toolCalls = toolCalls
    this.#isCallCut = isCallCut
    this.stop = stop
  }

  #add(deltas: readonly Delta[]): void {
    for (const delta of deltas) joinDelta(this.#deltas, this.#withTokens(delta))
  }

  #withTokens(delta: Delta): Delta {
    if (!this.#log || !('source' in delta) || !delta.source) return delta
    return { kind: delta.kind, text: delta.text, logprobs: this.#log.take(delta.source) }
  }
}
