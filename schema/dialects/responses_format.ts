// Bytes of an answer as OpenAI's Responses: output items, the typed events that build them, usage, the error event.
import { type ApiError, ERRORS } from '../errors.ts'
import type { FinishReason, Run } from '../wire.ts'
import type { Choice, Delta, StreamFormatter, Usage } from './dialect.ts'
import { sampledJson } from './openai_chat_format.ts'

const usageJson = ({ hit, miss, output, reasoning }: Usage) => ({
  input_tokens: hit + miss,
  input_tokens_details: { cached_tokens: hit, cache_write_tokens: 0 },
  output_tokens: output,
  output_tokens_details: { reasoning_tokens: reasoning },
  total_tokens: hit + miss + output,
})

type Logprobs = ReturnType<typeof sampledJson>[]
type Status = 'in_progress' | 'completed' | 'incomplete'
type Call = Extract<Delta, { kind: 'tool_call' }>
type Item =
  | { readonly kind: 'reasoning'; readonly id: string; text: string }
  | { readonly kind: 'content'; readonly id: string; text: string; readonly logprobs: Logprobs }
  | { readonly kind: 'call'; readonly id: string; text: string; readonly call: Call }

const outputText = (text: string, logprobs: Logprobs) => ({ type: 'output_text', text, annotations: [], logprobs })
const reasoningText = (text: string) => ({ type: 'reasoning_text', text })
const summaryText = (text: string) => ({ type: 'summary_text', text })

/** Output items and events of one answer, in order. */
class Output {
  readonly items: object[] = []
  readonly #run: Run
  /** The client asked for a summary: the reasoning itself is given as that. */
  readonly #asSummary: boolean
  #sequence = 0
  #open: Item | undefined

  constructor(run: Run, echo: Echo) {
    this.#run = run
    this.#asSummary = Boolean(echo.reasoning?.summary)
  }

  event(type: string, rest: object): string {
    return `event: ${type}\ndata: ${JSON.stringify({ type, sequence_number: this.#sequence++, ...rest })}\n\n`
  }

  add(delta: Delta): string {
    if (delta.kind === 'tool_call') return this.#begin({ kind: 'call', id: this.#id('fc'), text: '', call: delta })
    if (delta.kind === 'tool_arguments') return this.#more(delta.text, 'function_call_arguments.delta', {})
    const begun = this.#open?.kind === delta.kind ? '' : this.#beginText(delta.kind)
    if (delta.kind === 'content') {
      const logprobs = (delta.logprobs ?? []).map(sampledJson)
      if (this.#open?.kind === 'content') this.#open.logprobs.push(...logprobs)
      return begun + this.#more(delta.text, 'output_text.delta', { content_index: 0, logprobs })
    }
    if (this.#asSummary) return begun + this.#more(delta.text, 'reasoning_summary_text.delta', { summary_index: 0 })
    return begun + this.#more(delta.text, 'reasoning_text.delta', { content_index: 0 })
  }

  #id(prefix: string): string {
    return `${prefix}_${this.#run.requestId}_${this.items.length + (this.#open ? 1 : 0)}`
  }

  /** Where events of the open item belong. */
  get #place(): object {
    return { item_id: this.#open?.id, output_index: this.items.length }
  }

  #more(delta: string, type: string, rest: object): string {
    if (this.#open) this.#open.text += delta
    return this.event(`response.${type}`, { ...this.#place, ...rest, delta })
  }

  #beginText(kind: 'content' | 'reasoning'): string {
    if (kind === 'content') return this.#begin({ kind, id: this.#id('msg'), text: '', logprobs: [] })
    return this.#begin({ kind, id: this.#id('rs'), text: '' })
  }

  #begin(item: Item): string {
    const ended = this.end('completed')
    this.#open = item
    const added = this.event('response.output_item.added', {
      ...{ output_index: this.items.length, item: this.#json(item, 'in_progress') },
    })
    return ended + added + this.#part(item, 'added', '')
  }

  /** The event that opens or closes the one part of an item; a call has none. */
  #part(item: Item, what: 'added' | 'done', text: string): string {
    if (item.kind === 'call') return ''
    if (item.kind === 'reasoning' && this.#asSummary) {
      const part = summaryText(text)
      return this.event(`response.reasoning_summary_part.${what}`, { ...this.#place, summary_index: 0, part })
    }
    const part = item.kind === 'content' ? outputText(text, text === '' ? [] : item.logprobs) : reasoningText(text)
    return this.event(`response.content_part.${what}`, { ...this.#place, content_index: 0, part })
  }

  #textDone(item: Item): string {
    const { text } = item
    if (item.kind === 'call') {
      const done = { ...this.#place, arguments: text, name: item.call.name }
      return this.event('response.function_call_arguments.done', done)
    }
    if (item.kind === 'content') {
      const done = { ...this.#place, content_index: 0, text, logprobs: item.logprobs }
      return this.event('response.output_text.done', done)
    }
    if (this.#asSummary) {
      return this.event('response.reasoning_summary_text.done', { ...this.#place, summary_index: 0, text })
    }
    return this.event('response.reasoning_text.done', { ...this.#place, content_index: 0, text })
  }

  /** Closes the open item. */
  end(status: Status): string {
    const item = this.#open
    if (!item) return ''
    const json = this.#json(item, status)
    const texts = this.#textDone(item) + this.#part(item, 'done', item.text)
    const done = this.event('response.output_item.done', { output_index: this.items.length, item: json })
    this.items.push(json)
    this.#open = undefined
    return texts + done
  }

  #json(item: Item, status: Status): object {
    const { id, text } = item
    const isBegun = status !== 'in_progress'
    switch (item.kind) {
      case 'reasoning': {
        const summary = isBegun && this.#asSummary ? [summaryText(text)] : []
        const content = isBegun && !this.#asSummary ? [reasoningText(text)] : []
        return { id, type: 'reasoning', summary, content, encrypted_content: null, status }
      }
      case 'content':
        return {
          ...{ id, type: 'message', status, role: 'assistant' },
          content: isBegun ? [outputText(text, item.logprobs)] : [],
        }
      case 'call':
        return { id, type: 'function_call', status, call_id: item.call.id, name: item.call.name, arguments: text }
    }
  }
}

type Echo = { readonly reasoning?: { readonly summary?: string | null } }

/** What the edge gave along (responses.ts): the request's fields that the answer repeats. */
const echoOf = (run: Run): Echo => JSON.parse(run.echo ?? '{}') as Echo

const responseOf = (run: Run, echo: Echo, status: Status, output: readonly object[], usage?: Usage) => ({
  id: `resp_${run.requestId}`,
  object: 'response',
  created_at: run.created,
  status,
  background: false,
  error: null,
  incomplete_details: status === 'incomplete' ? { reason: 'max_output_tokens' } : null,
  model: run.shownModel ?? run.model,
  output,
  ...echo,
  ...(usage ? { usage: usageJson(usage) } : {}),
})

const statusOf = (reason: FinishReason | undefined): 'completed' | 'incomplete' =>
  reason === 'length' ? 'incomplete' : 'completed'

export const responsesStream = (run: Run): StreamFormatter => {
  const echo = echoOf(run)
  const output = new Output(run, echo)
  const begun = { response: responseOf(run, echo, 'in_progress', []) }
  return {
    start: () => output.event('response.created', begun) + output.event('response.in_progress', begun),
    // Undocumented, but what OpenAI sends: clients with a timer of their own do not count comments.
    alive: () => output.event('keepalive', {}),
    deltas: (_choice, deltas) => deltas.map((delta) => output.add(delta)).join(''),
    finish: ([reason], usage) => {
      const status = statusOf(reason)
      const ended = output.end(status)
      return (
        ended + output.event(`response.${status}`, { response: responseOf(run, echo, status, output.items, usage) })
      )
    },
  }
}

export const responsesWhole = (run: Run, choices: readonly Choice[], usage: Usage): string => {
  const echo = echoOf(run)
  const output = new Output(run, echo)
  const { deltas = [], finish } = choices[0] ?? {}
  const status = statusOf(finish)
  for (const delta of deltas) output.add(delta)
  output.end(status)
  return JSON.stringify(responseOf(run, echo, status, output.items, usage))
}

/** As published, and with the `error` object that makes OpenAI's own client throw. Its place in the stream is not known here. */
export const responsesErrorFrame = (error: ApiError): string => {
  const { message, code } = error
  const param = error.param ?? null
  const body = { message, type: ERRORS[code].type, param, code }
  return `event: error\ndata: ${JSON.stringify({ type: 'error', code, message, param, sequence_number: 0, error: body })}\n\n`
}
