// Bytes of an answer in OpenAI's chat shape with DeepSeek's additions. Field order is fixed: the strings are built around
// the text, so that a streamed token costs one JSON.stringify.
import { createHash } from 'node:crypto'
import type { ApiError } from '../errors.ts'
import { ERRORS } from '../errors.ts'
import type { FinishReason, Run } from '../wire.ts'
import {
  type Choice,
  type Delta,
  KEEP_ALIVE,
  type SampledToken,
  type StreamFormatter,
  type TokenLogprob,
  type Usage,
} from './dialect.ts'

/** Usage in both dialects' fields, zeros included. */
export const openAiUsage = (usage: Usage) => {
  const prompt = usage.hit + usage.miss
  return {
    prompt_tokens: prompt,
    completion_tokens: usage.output,
    total_tokens: prompt + usage.output,
    prompt_tokens_details: { cached_tokens: usage.hit },
    completion_tokens_details: { reasoning_tokens: usage.reasoning },
    prompt_cache_hit_tokens: usage.hit,
    prompt_cache_miss_tokens: usage.miss,
  }
}

/** The last three end a run without an answer; DeepSeek's word for them is the only one clients know. */
export const FINISH: Readonly<Record<FinishReason, string>> = {
  stop: 'stop',
  length: 'length',
  tool_calls: 'tool_calls',
  cancelled: 'insufficient_system_resource',
  error: 'insufficient_system_resource',
  node_lost: 'insufficient_system_resource',
}

/** Names what, besides the prompt, decides an answer: same seed and fingerprint, same tokens. */
export const fingerprintOf = (...parts: readonly string[]): string =>
  `fp_${createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 10)}`

/** `{"id":...,` up to and without `"choices"`. */
export const openAiHead = (run: Run, object: string): string =>
  JSON.stringify({
    id: run.requestId,
    object,
    created: run.created,
    model: run.shownModel ?? run.model,
    system_fingerprint: run.fingerprint ?? fingerprintOf(run.model, run.chatFormat),
  }).slice(0, -1)

const callHead = (delta: Extract<Delta, { kind: 'tool_call' }>): string =>
  JSON.stringify({
    index: delta.index,
    id: delta.id,
    type: 'function',
    function: { name: delta.name, arguments: '' },
  })

/** What OpenAI writes for a token too unlikely to tell. */
export const LOGPROB_LEAST = -9999
const decoder = new TextDecoder('utf-8', { fatal: false, ignoreBOM: true })

/** A token that is part of a character has a replacement character as its text; its bytes tell. */
const tokenJson = ({ bytes, logprob }: TokenLogprob) => ({
  token: decoder.decode(bytes),
  logprob: Math.max(logprob, LOGPROB_LEAST),
  bytes: Array.from(bytes),
})

export const sampledJson = (token: SampledToken) => ({ ...tokenJson(token), top_logprobs: token.top.map(tokenJson) })

/** OpenAI's shape, and DeepSeek's second list beside it. */
const logprobsJson = (delta: Delta): string => {
  if ((delta.kind !== 'content' && delta.kind !== 'reasoning') || !delta.logprobs) return 'null'
  const tokens = delta.logprobs.map(sampledJson)
  if (delta.kind === 'content') return JSON.stringify({ content: tokens, refusal: null })
  return JSON.stringify({ content: null, refusal: null, reasoning_content: tokens })
}

/**
 * Where a stream tells its usage: in a chunk of its own, as OpenAI has it, for who asks for one, else on its last choice's last chunk, as
 * DeepSeek has it. Never in both, since there are clients that add up.
 */
export const streamUsage = (run: Pick<Run, 'includeUsage'>) => {
  const none = run.includeUsage ? ',"usage":null' : ''
  return {
    none,
    onLast: (usage: Usage): string => (run.includeUsage ? none : `,"usage":${JSON.stringify(openAiUsage(usage))}`),
    /** `start`: a chunk's text before its choices. */
    chunk: (start: string, usage: Usage): string =>
      run.includeUsage ? `${start}[],"usage":${JSON.stringify(openAiUsage(usage))}}\n\n` : '',
  }
}

export const openAiStream = (run: Run): StreamFormatter => {
  const start = `data: ${openAiHead(run, 'chat.completion.chunk')},"choices":`
  const total = streamUsage(run)
  const open = (choice: number): string => `${start}[{"index":${choice},"delta":{`
  const close = (logprobs: string): string => `},"logprobs":${logprobs},"finish_reason":null}]${total.none}}\n\n`
  const role = run.thinking ? '"content":null,"reasoning_content":""' : '"content":""'
  const content = run.thinking ? '"reasoning_content":null,"content":' : '"content":'
  const inner = (delta: Delta): string => {
    switch (delta.kind) {
      case 'content':
        return content + JSON.stringify(delta.text)
      case 'reasoning':
        return `"content":null,"reasoning_content":${JSON.stringify(delta.text)}`
      case 'tool_call':
        return `"tool_calls":[${callHead(delta)}]`
      case 'tool_arguments':
        return `"tool_calls":[{"index":${delta.index},"function":{"arguments":${JSON.stringify(delta.text)}}}]`
    }
  }
  return {
    start: () =>
      Array.from({ length: run.n ?? 1 }, (_, i) => `${open(i)}"role":"assistant",${role}${close('null')}`).join(''),
    alive: () => KEEP_ALIVE,
    deltas: (choice, deltas) =>
      deltas.map((delta) => open(choice) + inner(delta) + close(logprobsJson(delta))).join(''),
    finish: (reasons, usage) => {
      const end = `${content}""},"logprobs":null,"finish_reason":`
      const told = (i: number): string => (i === reasons.length - 1 ? total.onLast(usage) : total.none)
      const lasts = reasons.map((reason, i) => `${open(i)}${end}"${FINISH[reason]}"}]${told(i)}}\n\n`)
      return `${lasts.join('')}${total.chunk(start, usage)}data: [DONE]\n\n`
    },
  }
}

const joined = (deltas: readonly Delta[], kind: 'content' | 'reasoning'): string =>
  deltas.map((delta) => (delta.kind === kind ? delta.text : '')).join('')

const toolCalls = (deltas: readonly Delta[]) =>
  deltas
    .filter((delta) => delta.kind === 'tool_call')
    .map((call) => ({
      id: call.id,
      type: 'function',
      function: {
        name: call.name,
        arguments: deltas
          .map((delta) => (delta.kind === 'tool_arguments' && delta.index === call.index ? delta.text : ''))
          .join(''),
      },
    }))

const tokensOf = (deltas: readonly Delta[], kind: 'content' | 'reasoning') =>
  deltas.flatMap((delta) => (delta.kind === kind ? (delta.logprobs ?? []) : [])).map(sampledJson)

const wholeLogprobs = (run: Run, deltas: readonly Delta[]) => {
  if (run.topLogprobs === undefined) return null
  const content = { content: tokensOf(deltas, 'content'), refusal: null }
  return run.thinking ? { ...content, reasoning_content: tokensOf(deltas, 'reasoning') } : content
}

const wholeChoice = (run: Run, index: number, { deltas, finish }: Choice) => {
  const content = joined(deltas, 'content')
  const calls = toolCalls(deltas)
  const reasoning = joined(deltas, 'reasoning')
  const message = {
    role: 'assistant',
    content: content === '' && calls.length > 0 ? null : content,
    refusal: null,
    ...(run.thinking || reasoning !== '' ? { reasoning_content: reasoning } : {}),
    ...(calls.length > 0 ? { tool_calls: calls } : {}),
  }
  return { index, message, logprobs: wholeLogprobs(run, deltas), finish_reason: FINISH[finish] }
}

export const openAiWhole = (run: Run, choices: readonly Choice[], usage: Usage): string => {
  const written = choices.map((choice, i) => wholeChoice(run, i, choice))
  const rest = JSON.stringify({ choices: written, usage: openAiUsage(usage) })
  return `${openAiHead(run, 'chat.completion')},${rest.slice(1)}`
}

export const openAiErrorBody = (error: ApiError): string =>
  JSON.stringify({
    error: { message: error.message, type: ERRORS[error.code].type, param: error.param ?? null, code: error.code },
  })
