// Bytes of an answer as Anthropic's Messages: content blocks, the events that build them, usage with cached tokens apart, errors.
import { createHash } from 'node:crypto'
import { argumentsObject } from '../chat/call_arguments.ts'
import { type ApiError, type ErrorCode, statusOf } from '../errors.ts'
import type { FinishReason, Run } from '../wire.ts'
import type { Choice, Delta, StreamFormatter, Usage } from './dialect.ts'

const usageJson = ({ hit, miss, output }: Usage) => ({
  input_tokens: miss,
  cache_creation_input_tokens: 0,
  cache_read_input_tokens: hit,
  output_tokens: output,
})

/** In a message; an event at the end has the counts alone. */
const messageUsage = (usage: Usage) => ({
  ...usageJson(usage),
  cache_creation: { ephemeral_5m_input_tokens: 0, ephemeral_1h_input_tokens: 0 },
  output_tokens_details: { thinking_tokens: usage.reasoning },
  server_tool_use: null,
  service_tier: 'standard',
  inference_geo: null,
  speed: 'standard',
})

const STOP: Readonly<Record<FinishReason, string>> = {
  stop: 'end_turn',
  length: 'max_tokens',
  tool_calls: 'tool_use',
  // Runs that end so are errors; the words are for a reader of a kept answer.
  cancelled: 'end_turn',
  error: 'end_turn',
  node_lost: 'end_turn',
}

const stopOf = (reason: FinishReason, stop: string | undefined) => ({
  stop_reason: reason === 'stop' && stop !== undefined ? 'stop_sequence' : STOP[reason],
  stop_sequence: reason === 'stop' ? (stop ?? null) : null,
})

const messageOf = (run: Run, content: readonly object[], stop: object, usage: Usage) => ({
  id: `msg_${run.requestId}`,
  type: 'message',
  role: 'assistant',
  model: run.shownModel ?? run.model,
  content,
  ...stop,
  stop_details: null,
  container: null,
  diagnostics: null,
  usage: messageUsage(usage),
})

/** Says that the thinking is whole; it is no secret, and a node takes thinking back without it too. */
const signatureOf = (thinking: string): string => createHash('sha256').update(thinking).digest('base64')

const event = (type: string, rest: object): string => `event: ${type}\ndata: ${JSON.stringify({ type, ...rest })}\n\n`

type Open = { readonly kind: 'thinking' | 'text' | 'tool_use'; readonly index: number; text: string }

const EMPTY = {
  thinking: { type: 'thinking', thinking: '', signature: '' },
  text: { type: 'text', text: '', citations: null },
} as const

/** Keeps track of the block that is open. */
class Blocks {
  #open: Open | undefined
  #count = 0

  #begin(kind: Open['kind'], block: object): string {
    const ended = this.end()
    this.#open = { kind, index: this.#count++, text: '' }
    return ended + event('content_block_start', { index: this.#open.index, content_block: block })
  }

  #delta(delta: object): string {
    return event('content_block_delta', { index: this.#open?.index ?? 0, delta })
  }

  #text(kind: 'thinking' | 'text', text: string): string {
    const begun = this.#open?.kind === kind ? '' : this.#begin(kind, EMPTY[kind])
    if (this.#open) this.#open.text += kind === 'thinking' ? text : ''
    return (
      begun + this.#delta(kind === 'text' ? { type: 'text_delta', text } : { type: 'thinking_delta', thinking: text })
    )
  }

  add(delta: Delta): string {
    switch (delta.kind) {
      case 'reasoning':
        return this.#text('thinking', delta.text)
      case 'content':
        return this.#text('text', delta.text)
      case 'tool_call':
        return this.#begin('tool_use', { ...toolUse(delta), input: {} })
      case 'tool_arguments':
        return this.#delta({ type: 'input_json_delta', partial_json: delta.text })
    }
  }

  end(): string {
    const open = this.#open
    if (!open) return ''
    this.#open = undefined
    const signature = signatureOf(open.text)
    const signed = event('content_block_delta', { index: open.index, delta: { type: 'signature_delta', signature } })
    return (open.kind === 'thinking' ? signed : '') + event('content_block_stop', { index: open.index })
  }
}

const toolUse = ({ id, name }: Extract<Delta, { kind: 'tool_call' }>) => ({
  type: 'tool_use',
  id,
  name,
  caller: { type: 'direct' },
})

export const anthropicStream = (run: Run): StreamFormatter => {
  const blocks = new Blocks()
  return {
    start: (usage) =>
      event('message_start', { message: messageOf(run, [], { stop_reason: null, stop_sequence: null }, usage) }) +
      event('ping', {}),
    alive: () => event('ping', {}),
    deltas: (_choice, deltas) => deltas.map((delta) => blocks.add(delta)).join(''),
    finish: ([reason = 'stop'], usage, [stop] = []) =>
      blocks.end() +
      event('message_delta', {
        delta: { ...stopOf(reason, stop), stop_details: null, container: null },
        usage: {
          ...usageJson(usage),
          output_tokens_details: { thinking_tokens: usage.reasoning },
          server_tool_use: null,
        },
      }) +
      event('message_stop', {}),
  }
}

/** Blocks as JSON texts: the input of a call is the model's own, with numbers that JavaScript would round; of a cut one what is whole. */
const contentOf = (deltas: readonly Delta[]): string[] => {
  const content: string[] = []
  let text = ''
  for (const [i, delta] of deltas.entries()) {
    if (delta.kind === 'tool_call') {
      const isOurs = (one: Delta) => one.kind === 'tool_arguments' && one.index === delta.index
      const json = deltas.map((one) => (isOurs(one) && 'text' in one ? one.text : '')).join('')
      content.push(`${JSON.stringify(toolUse(delta)).slice(0, -1)},"input":${argumentsObject(json) ?? '{}'}}`)
    }
    if (delta.kind !== 'reasoning' && delta.kind !== 'content') continue
    text += delta.text
    if (deltas[i + 1]?.kind === delta.kind) continue
    const thinking = { type: 'thinking', thinking: text, signature: signatureOf(text) }
    content.push(JSON.stringify(delta.kind === 'reasoning' ? thinking : { type: 'text', text, citations: null }))
    text = ''
  }
  return content
}

export const anthropicWhole = (run: Run, choices: readonly Choice[], usage: Usage): string => {
  const { deltas = [], finish = 'stop', stop } = choices[0] ?? {}
  const message = JSON.stringify(messageOf(run, [], stopOf(finish, stop), usage))
  return message.replace('"content":[]', () => `"content":[${contentOf(deltas).join(',')}]`)
}

/** Anthropic has 400 for every fault in a request, and 529 where others have 503. */
export const anthropicStatus = (code: ErrorCode): number => {
  const status = statusOf(code)
  if (code === 'invalid_parameter' || code === 'context_length_exceeded') return 400
  return status === 503 ? 529 : status
}

const TYPES: Readonly<Record<number, string>> = {
  401: 'authentication_error',
  402: 'billing_error',
  403: 'permission_error',
  404: 'not_found_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
  504: 'timeout_error',
  529: 'overloaded_error',
}

/** What makes Anthropic's client send the conversation again, whole and without a thread. */
const NO_THREADS = { error_code: 'thread_unsupported_request', unsupported: ['thread'] }

export const anthropicError = (error: ApiError): string => {
  const status = anthropicStatus(error.code)
  const type = TYPES[status] ?? (status >= 500 ? 'api_error' : 'invalid_request_error')
  const details = error.param === 'thread' ? { details: NO_THREADS } : {}
  return JSON.stringify({ type: 'error', error: { type, message: error.message, ...details } })
}

export const anthropicErrorFrame = (error: ApiError): string => `event: error\ndata: ${anthropicError(error)}\n\n`
