// Token text with the tags that most chat templates' models write: `<think>` reasoning and Hermes-style `<tool_call>` JSON, either
// of which may be off. The result does not depend on where the text was split; what breaks the grammar becomes content.
import type { Delta, Source } from '../dialects/dialect.ts'
import type { AnswerParser, ParserOptions } from './chat_format.ts'
import { firstMark, heldLength, StopCutter } from './parse.ts'
import { isJson, jsonChildren } from './python_json.ts'
import { THINK, THINK_END } from './think.ts'

export const CALL_OPEN = '<tool_call>'
export const CALL_CLOSE = '</tool_call>'

/** Line breaks around a tag are the template's own. */
const openings = (tag: string): string[] => [`\n\n${tag}`, `\n${tag}`, tag]

type TextState = 'reasoning' | 'content' | 'call'
type State = 'start' | TextState | 'done'

export interface Tags {
  /** Whether think tags are reasoning, and tool_call tags are calls. */
  readonly think: boolean
  readonly calls: boolean
}

/** `{"name": ..., "arguments": {...}}`, arguments as the model spelled them; `undefined` when it is no such call. */
const parseCall = (text: string): { name: string; json: string } | undefined => {
  const json = text.trim()
  if (!json.startsWith('{') || !isJson(json)) return undefined
  const members = jsonChildren(json) ?? []
  const member = (key: string): string | undefined => members.find((one) => one.key === key)?.text
  const name: unknown = JSON.parse(member('name') ?? 'null')
  const given = member('arguments') ?? member('parameters') ?? '{}'
  const args = given.startsWith('"') ? String(JSON.parse(given)).trim() : given
  if (typeof name !== 'string' || name === '' || !args.startsWith('{') || !isJson(args)) return undefined
  return { name, json: args }
}

class TaggedParser implements AnswerParser {
  #state: State
  readonly #ends: readonly string[]
  readonly #marks: Readonly<Record<TextState, readonly string[]>>
  readonly #stop: StopCutter
  readonly #idSuffix: string
  readonly #withSource: boolean
  #buffer = ''
  /** Where the buffer begins in all that was pushed. */
  #at = 0
  #surrogate = ''
  /** Line breaks that come next belong to a tag. */
  #skips: boolean
  /** The call at work: its opening as it stood, and its text. */
  #opening = ''
  #call: string[] = []
  #calls = 0
  #deltas: Delta[] = []

  constructor({ thinking, stop, requestId, ends = [], withSource = false }: ParserOptions, tags: Tags) {
    this.#state = thinking ? 'reasoning' : tags.think ? 'start' : 'content'
    this.#skips = thinking
    this.#ends = ends
    const calls = tags.calls ? openings(CALL_OPEN) : []
    this.#marks = {
      reasoning: [...openings(THINK_END), ...calls, ...ends],
      content: [...calls, ...ends],
      call: [CALL_CLOSE, ...ends],
    }
    this.#stop = new StopCutter(stop, [...ends, ...(tags.think ? [THINK, THINK_END] : [])])
    this.#idSuffix = requestId.replaceAll('-', '').slice(-12)
    this.#withSource = withSource
  }

  get inReasoning(): boolean {
    return this.#state === 'reasoning'
  }

  push(text: string, unstopped = false): Delta[] {
    const whole = this.#surrogate + text
    const halved = /[\ud800-\udbff]$/.test(whole)
    this.#surrogate = halved ? whole.slice(-1) : ''
    const next = halved ? whole.slice(0, -1) : whole
    this.#buffer += unstopped ? this.#stop.pass(next) : this.#stop.push(next)
    return this.#drain(false)
  }

  end(): ReturnType<AnswerParser['end']> {
    this.#buffer += this.#stop.push(this.#surrogate) + this.#stop.end()
    this.#surrogate = ''
    return { deltas: this.#drain(true), toolCalls: this.#calls, stop: this.#stop.matched }
  }

  #drain(final: boolean): Delta[] {
    while (this.#step(final));
    if (final && this.#state === 'call') this.#giveUpCall('')
    const deltas = this.#deltas
    this.#deltas = []
    return deltas
  }

  /** Consumes the buffer up to the next mark; false when it has to wait for more text. */
  #step(final: boolean): boolean {
    if (this.#state === 'start') return this.#start(final)
    if (this.#state !== 'done') return this.#text(this.#state, final)
    this.#advance(this.#buffer.length)
    return false
  }

  #start(final: boolean): boolean {
    const rest = this.#buffer.trimStart()
    if (!final && THINK.startsWith(rest) && rest !== THINK) return false
    this.#state = rest.startsWith(THINK) ? 'reasoning' : 'content'
    if (this.#state === 'content') return true
    this.#advance(this.#buffer.length - rest.length + THINK.length)
    this.#skips = true
    return true
  }

  /** Takes so much off the buffer's front. */
  #advance(length: number): string {
    const text = this.#buffer.slice(0, length)
    this.#buffer = this.#buffer.slice(length)
    this.#at += length
    return text
  }

  #text(state: TextState, final: boolean): boolean {
    if (this.#skips) {
      this.#advance(/^\n*/.exec(this.#buffer)?.[0].length ?? 0)
      if (this.#buffer === '') return false
      this.#skips = false
    }
    const found = firstMark(this.#buffer, this.#marks[state])
    const held = final ? 0 : heldLength(this.#buffer, this.#marks[state])
    this.#sink(state, this.#advance(found ? found.at : this.#buffer.length - held))
    if (!found) return false
    this.#advance(found.mark.length)
    this.#markEnds(state, found.mark)
    return true
  }

  #markEnds(state: TextState, mark: string): void {
    if (state === 'call') {
      this.#callEnds(mark)
    } else if (this.#ends.includes(mark)) {
      this.#state = 'done'
    } else if (mark.endsWith(CALL_OPEN)) {
      this.#opening = mark
      this.#skips = false
      this.#state = 'call'
    } else {
      this.#state = 'content'
      this.#skips = true
    }
  }

  #callEnds(mark: string): void {
    const call = mark === CALL_CLOSE ? parseCall(this.#call.join('')) : undefined
    if (!call) {
      const isEnd = mark !== CALL_CLOSE
      this.#giveUpCall(isEnd ? '' : mark, isEnd ? mark.length : 0)
      if (isEnd) this.#state = 'done'
      return
    }
    const index = this.#calls++
    const id = `call_${String(index).padStart(2, '0')}_${this.#idSuffix}`
    this.#deltas.push({ kind: 'tool_call', index, id, name: call.name })
    this.#deltas.push({ kind: 'tool_arguments', index, text: call.json })
    this.#call = []
    this.#state = 'content'
    this.#skips = true
  }

  /** The call's text as it stood becomes content; `behind`: characters read since. */
  #giveUpCall(mark: string, behind = 0): void {
    const text = this.#opening + this.#call.join('') + mark
    this.#call = []
    this.#state = 'content'
    this.#sink('content', text, this.#at - behind)
  }

  #sink(state: TextState, text: string, end = this.#at): void {
    if (text === '') return
    if (state === 'call') {
      this.#call.push(text)
      return
    }
    const last = this.#deltas.at(-1)
    const joins = last?.kind === state
    const begin = (joins ? last.source?.[0] : undefined) ?? end - text.length
    const source: { source?: Source } = this.#withSource ? { source: [begin, end] } : {}
    if (joins) this.#deltas[this.#deltas.length - 1] = { kind: state, text: last.text + text, ...source }
    else this.#deltas.push({ kind: state, text, ...source })
  }
}

/** `options.ends`: the strings that end the answer. */
export const taggedParser = (options: ParserOptions, tags: Tags): AnswerParser => new TaggedParser(options, tags)

/** Text as it comes: all of it is content. */
export const rawParser = (options: ParserOptions): AnswerParser => taggedParser(options, { think: false, calls: false })
