// Token text with the tags that most chat templates' models write: `<think>` reasoning and Hermes-style `<tool_call>` JSON, either
// of which may be off. The result does not depend on where the text was split; what breaks the grammar becomes content.
import { AnswerReader, type ParsedCall } from './answer_reader.ts'
import type { AnswerParser, ParserOptions } from './chat_format.ts'
import { heldLength } from './parse.ts'
import { cutObject, isJson, jsonChildren, valueEnd } from './python_json.ts'
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
const parseCall = (text: string): ParsedCall | undefined => {
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

/** A call that breaks off: none while its name is not whole, `undefined` when no call begins so. */
const parseCut = (text: string): { readonly call?: ParsedCall } | undefined => {
  const json = text.slice(0, text.length - heldLength(text, [CALL_CLOSE])).trim()
  if (json === '') return {}
  const done = parseCall(json)
  if (done) return { call: done }
  const whole = cutObject(json)
  if (whole === undefined) return undefined
  const call = parseCall(whole)
  if (!call) return {}
  const [, begun] = /^,\s*"(?:arguments|parameters)"\s*:\s*(\{.*)$/s.exec(json.slice(whole.length - 1)) ?? []
  if (begun !== undefined) return { call: { ...call, json: begun.slice(0, valueEnd(begun, 0)) } }
  return { call: { ...call, json: call.json === '{}' ? '{' : call.json } }
}

class TaggedParser extends AnswerReader {
  #state: State
  readonly #ends: readonly string[]
  readonly #marks: Readonly<Record<TextState, readonly string[]>>
  /** Line breaks that come next belong to a tag. */
  #skips: boolean
  /** The call at work: its opening as it stood, and its text. */
  #opening = ''
  #call: string[] = []

  constructor(options: ParserOptions, tags: Tags) {
    const { thinking, ends = [] } = options
    super(options, [...ends, ...(tags.think ? [THINK, THINK_END] : [])])
    this.#state = thinking ? 'reasoning' : tags.think ? 'start' : 'content'
    this.#skips = thinking
    this.#ends = ends
    const calls = tags.calls ? openings(CALL_OPEN) : []
    this.#marks = {
      reasoning: [...openings(THINK_END), ...calls, ...ends],
      content: [...calls, ...ends],
      call: [CALL_CLOSE, ...ends],
    }
  }

  get inReasoning(): boolean {
    return this.#state === 'reasoning'
  }

  protected giveUp(): void {
    if (this.#state !== 'call') return
    const cut = parseCut(this.#call.join(''))
    if (cut?.call) this.cutCall(cut.call)
    if (!cut) this.#giveUpCall('')
    this.#state = 'done'
  }

  protected step(final: boolean): boolean {
    if (this.#state === 'start') return this.#start(final)
    if (this.#state !== 'done') return this.#text(this.#state, final)
    this.advance(this.buffer.length)
    return false
  }

  #start(final: boolean): boolean {
    const rest = this.buffer.trimStart()
    if (!final && THINK.startsWith(rest) && rest !== THINK) return false
    this.#state = rest.startsWith(THINK) ? 'reasoning' : 'content'
    if (this.#state === 'content') return true
    this.advance(this.buffer.length - rest.length + THINK.length)
    this.#skips = true
    return true
  }

  #text(state: TextState, final: boolean): boolean {
    if (this.#skips) {
      this.advance(/^\n*/.exec(this.buffer)?.[0].length ?? 0)
      if (this.buffer === '') return false
      this.#skips = false
    }
    const { text, mark, end } = this.upTo(this.#marks[state], final)
    if (state === 'call') this.#call.push(text)
    else this.say(state, text, end)
    if (mark === undefined) return false
    this.#markEnds(state, mark)
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
    this.call(call)
    this.#call = []
    this.#state = 'content'
    this.#skips = true
  }

  /** The call's text as it stood becomes content; `behind`: characters read since. */
  #giveUpCall(mark: string, behind = 0): void {
    const text = this.#opening + this.#call.join('') + mark
    this.#call = []
    this.#state = 'content'
    this.say('content', text, this.at - behind)
  }
}

/** `options.ends`: the strings that end the answer. */
export const taggedParser = (options: ParserOptions, tags: Tags): AnswerParser => new TaggedParser(options, tags)

/** Text as it comes: all of it is content. */
export const rawParser = (options: ParserOptions): AnswerParser => taggedParser(options, { think: false, calls: false })
