// Bytes of an answer in OpenAI's text completion shape.
import { choicesOf } from '../prompts.ts'
import type { Run } from '../wire.ts'
import { type Choice, type Delta, KEEP_ALIVE, type SampledToken, type StreamFormatter, type Usage } from './dialect.ts'
import { FINISH, LOGPROB_LEAST, openAiHead, openAiUsage, streamUsage } from './openai_chat_format.ts'

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** As OpenAI writes it: a token that is part of a character is spelled in bytes. */
const tokenText = (bytes: Uint8Array): string => {
  try {
    return strict.decode(bytes)
  } catch {
    return `bytes:${Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}`
  }
}

const newDecoder = () => new TextDecoder('utf-8', { fatal: false, ignoreBOM: true })

/** Whether these bytes end in a character that is not whole. */
const isOpen = (bytes: readonly number[]): boolean =>
  [1, 2, 3].some(
    (n) => n <= bytes.length && newDecoder().decode(Uint8Array.from(bytes.slice(-n)), { stream: true }) === '',
  )

/** Counts characters as Python does, and as the text has them: where bytes are no UTF-8 it has replacement characters. */
class Characters {
  readonly #decoder = newDecoder()
  #whole = 0
  #last: number[] = []
  /** Those that begin in the bytes so far. */
  begun = 0

  add(bytes: Uint8Array): void {
    this.#whole += [...this.#decoder.decode(bytes, { stream: true })].length
    this.#last = [...this.#last, ...bytes.subarray(-3)].slice(-3)
    this.begun = this.#whole + (isOpen(this.#last) ? 1 : 0)
  }
}

/** The four parallel lists of one stretch of text, which goes on behind `before`. */
const logprobLists = (tokens: readonly SampledToken[], before: Characters) => {
  const lists = {
    tokens: [] as string[],
    token_logprobs: [] as (number | null)[],
    top_logprobs: [] as (Record<string, number> | null)[],
    text_offset: [] as number[],
  }
  for (const token of tokens) {
    lists.tokens.push(tokenText(token.bytes))
    lists.token_logprobs.push(token.unscored ? null : Math.max(token.logprob, LOGPROB_LEAST))
    const all = [token, ...token.top].map(({ bytes, logprob }) => [tokenText(bytes), Math.max(logprob, LOGPROB_LEAST)])
    lists.top_logprobs.push(token.unscored ? null : (Object.fromEntries(all) as Record<string, number>))
    lists.text_offset.push(before.begun)
    before.add(token.bytes)
  }
  return lists
}

const tokensOf = (deltas: readonly Delta[]): SampledToken[] =>
  deltas.flatMap((delta) => (delta.kind === 'content' ? (delta.logprobs ?? []) : []))

const textOf = (deltas: readonly Delta[]): string =>
  deltas.map((delta) => (delta.kind === 'content' ? delta.text : '')).join('')

const HEAD = 'text_completion'

export const completionStream = (run: Run): StreamFormatter => {
  const start = `data: ${openAiHead(run, HEAD)},"choices":`
  const total = streamUsage(run)
  const before = Array.from({ length: choicesOf(run) }, () => new Characters())
  const chunk = (index: number, text: string, logprobs: unknown, finish: string | null, told = total.none): string => {
    const choice = JSON.stringify({ text, index, logprobs, finish_reason: finish })
    return `${start}[${choice}]${told}}\n\n`
  }
  return {
    start: () => '',
    alive: () => KEEP_ALIVE,
    deltas: (index, deltas) => {
      if (run.topLogprobs === undefined) return chunk(index, textOf(deltas), null, null)
      return chunk(index, textOf(deltas), logprobLists(tokensOf(deltas), before[index] ?? new Characters()), null)
    },
    finish: (reasons, usage) => {
      const told = (i: number): string => (i === reasons.length - 1 ? total.onLast(usage) : total.none)
      const lasts = reasons.map((reason, i) => chunk(i, '', null, FINISH[reason], told(i)))
      return `${lasts.join('')}${total.chunk(start, usage)}data: [DONE]\n\n`
    },
  }
}

export const completionWhole = (run: Run, choices: readonly Choice[], usage: Usage): string => {
  const written = choices.map(({ deltas, finish }, index) => ({
    text: textOf(deltas),
    index,
    logprobs: run.topLogprobs === undefined ? null : logprobLists(tokensOf(deltas), new Characters()),
    finish_reason: FINISH[finish],
  }))
  return `${openAiHead(run, HEAD)},${JSON.stringify({ choices: written, usage: openAiUsage(usage) }).slice(1)}`
}
