// Bytes of an answer in OpenAI's chat shape with DeepSeek's additions. Field order is fixed: the strings are built around
// the text, so that a streamed token costs one JSON.stringify.
import { createHash } from 'node:crypto'
import type { ApiError } from '../errors.ts'
import { ERRORS } from '../errors.ts'
import type { FinishReason, Run } from '../wire.ts'
import type { Delta, StreamFormatter, Usage } from './dialect.ts'

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
const FINISH: Readonly<Record<FinishReason, string>> = {
  stop: 'stop',
  length: 'length',
  tool_calls: 'tool_calls',
  cancelled: 'insufficient_system_resource',
  error: 'insufficient_system_resource',
  node_lost: 'insufficient_system_resource',
}

/** Names what, besides the prompt, decides an answer: same seed and fingerprint, same tokens. */
const fingerprint = (run: Run): string =>
  `fp_${createHash('sha256')
    .update(JSON.stringify([run.model, run.chatFormat]))
    .digest('hex')
    .slice(0, 10)}`

/** `{"id":...,` up to and without `"choices"`. */
const head = (run: Run, object: string): string =>
  JSON.stringify({
    id: run.requestId,
    object,
    created: run.created,
    model: run.model,
    system_fingerprint: fingerprint(run),
  }).slice(0, -1)

const callHead = (delta: Extract<Delta, { kind: 'tool_call' }>): string =>
  JSON.stringify({
    index: delta.index,
    id: delta.id,
    type: 'function',
    function: { name: delta.name, arguments: '' },
  })

export const openAiStream = (run: Run): StreamFormatter => {
  const start = `data: ${head(run, 'chat.completion.chunk')},"choices":`
  const usageNull = run.includeUsage ? ',"usage":null' : ''
  const open = `${start}[{"index":0,"delta":{`
  const close = `},"logprobs":null,"finish_reason":null}]${usageNull}}\n\n`
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
      `${open}"role":"assistant",${run.thinking ? '"content":null,"reasoning_content":""' : '"content":""'}${close}`,
    deltas: (deltas) => deltas.map((delta) => open + inner(delta) + close).join(''),
    finish: (reason, usage) => {
      const last = `${open}${content}""},"logprobs":null,"finish_reason":"${FINISH[reason]}"}]${usageNull}}\n\n`
      const total = run.includeUsage ? `${start}[],"usage":${JSON.stringify(openAiUsage(usage))}}\n\n` : ''
      return `${last}${total}data: [DONE]\n\n`
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

export const openAiWhole = (run: Run, deltas: readonly Delta[], reason: FinishReason, usage: Usage): string => {
  const content = joined(deltas, 'content')
  const calls = toolCalls(deltas)
  const message = {
    role: 'assistant',
    content: content === '' && calls.length > 0 ? null : content,
    ...(run.thinking ? { reasoning_content: joined(deltas, 'reasoning') } : {}),
    ...(calls.length > 0 ? { tool_calls: calls } : {}),
  }
  const choices = [{ index: 0, message, logprobs: null, finish_reason: FINISH[reason] }]
  const rest = JSON.stringify({ choices, usage: openAiUsage(usage) })
  return `${head(run, 'chat.completion')},${rest.slice(1)}`
}

export const openAiErrorBody = (error: ApiError): string =>
  JSON.stringify({
    error: { message: error.message, type: ERRORS[error.code].type, param: error.param ?? null, code: error.code },
  })
