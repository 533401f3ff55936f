// One prompt of a run and the answers to it: what its prefill cost, which of its choices is submitted when, and what of it they repeat.
import type { SampledToken } from '../schema/dialects/dialect.ts'
import { isScored, promptsOf, type RunPrompt } from '../schema/prompts.ts'
import type { Run } from '../schema/wire.ts'
import { sampledToken } from './choice.ts'
import type { EngineEvent, SampledLogprob } from './engine/engine.ts'
import type { EncodedPrompt } from './tokenizer.ts'

/** What each answer begins with. */
export interface Echo {
  readonly bytes: Uint8Array
  /** Where log-probabilities are asked for. */
  readonly tokens?: readonly SampledToken[]
}

export class PromptGroup {
  readonly prompt: EncodedPrompt
  /** Index of its first choice in the run: that one computes the prompt, the others find it in the cache. */
  readonly first: number
  /** The engine tells the log-probabilities of the prompt's tokens. */
  readonly isScored: boolean
  /** Equal prompts before it in the run: its answers must differ from theirs. */
  readonly repeats: number
  /** What the prompt took, as far as it is known. */
  hit = 0
  miss = 0
  /** Its first choice has had its first tokens. */
  isDone = false
  readonly #given: RunPrompt
  readonly #scores: SampledLogprob[] = []

  constructor(run: Run, given: RunPrompt, prompt: EncodedPrompt, first: number, repeats: number) {
    this.#given = given
    this.prompt = prompt
    this.first = first
    this.repeats = repeats
    this.isScored = isScored(run, given)
  }

  get isEchoed(): boolean {
    return this.#given.echoText !== undefined || this.#given.echoTokens === true
  }

  started({ promptTokens, cachedTokens }: Extract<EngineEvent, { kind: 'start' }>): void {
    this.hit = cachedTokens
    this.miss = promptTokens - cachedTokens
  }

  ended({ cachedTokens, computedTokens }: Extract<EngineEvent, { kind: 'end' }>): void {
    this.hit = cachedTokens
    this.miss = computedTokens
  }

  score(logprobs: readonly SampledLogprob[]): void {
    this.#scores.push(...logprobs)
  }

  /** Once the prompt is scored, where it is to be. The format's first token is no part of what the client sent. */
  echo(textBytes: readonly Uint8Array[]): Echo {
    const { prompt, echoText } = this.#given
    const ids = Array.from(this.prompt.ids)
    const ownBytes = Buffer.byteLength(prompt) - Buffer.byteLength(echoText ?? prompt)
    let from = 0
    for (let at = 0; at < ownBytes; from++) at += this.prompt.bytes[from] ?? ownBytes
    const bytes =
      echoText === undefined ? Buffer.concat(ids.map((id) => textBytes[id] ?? new Uint8Array())) : Buffer.from(echoText)
    if (!this.isScored) return { bytes }
    const tokens = ids.slice(from).map((id, i): SampledToken => {
      const logprob = i === 0 ? undefined : this.#scores[from + i - 1]
      if (logprob) return sampledToken(textBytes, id, logprob)
      return { bytes: textBytes[id] ?? new Uint8Array(), logprob: 0, top: [], unscored: true }
    })
    return { bytes, tokens }
  }
}

/** Of a run whose prompts are encoded, in order. */
export const promptGroups = (run: Run, encoded: readonly EncodedPrompt[]): PromptGroup[] => {
  const seen = new Map<string, number>()
  return encoded.map((prompt, p) => {
    const key = prompt.ids.join()
    const repeats = seen.get(key) ?? 0
    seen.set(key, repeats + 1)
    return new PromptGroup(run, promptsOf(run)[p] ?? run, prompt, p * (run.n ?? 1), repeats)
  })
}
