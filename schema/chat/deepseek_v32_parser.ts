// Token text of DeepSeek-V3.2 -> reasoning, content and tool calls, piece by piece. The result does not depend on where the
// text was split. Text that breaks the call grammar is never lost and never throws: it becomes content. A call that breaks off where the
// text does is a call as far as it got.
import { AnswerReader, type ParsedCall } from './answer_reader.ts'
import type { AnswerParser, ParserOptions } from './chat_format.ts'
import { BOS, DSML, EOS } from './deepseek_v32_marks.ts'
import { heldLength } from './parse.ts'
import { isJson } from './python_json.ts'
import { THINK, THINK_END } from './think.ts'

const CALLS_OPEN = `<${DSML}function_calls>`
const CALLS_CLOSE = `</${DSML}function_calls>`
const INVOKE_OPEN = `<${DSML}invoke name="`
const INVOKE_CLOSE = `</${DSML}invoke>`
/** The blank line before a call block belongs to the block. */
const CALLS_OPENINGS = [`\n\n${CALLS_OPEN}`, `\n${CALLS_OPEN}`, CALLS_OPEN]

const INVOKE_HEAD = new RegExp(`^${INVOKE_OPEN}([^"]+)">\\s*`)
const PARAMETER_OPEN = `<${DSML}parameter name="`
const PARAMETER_CLOSE = `</${DSML}parameter>`
const PARAMETER = new RegExp(`${PARAMETER_OPEN}([^"]+)" string="(true|false)">([^]*?)${PARAMETER_CLOSE}\\s*`, 'y')
const CUT_PARAMETER = new RegExp(`^${PARAMETER_OPEN}([^"]+)" string="(true|false)">([^]*)$`)
const CUT_NAME = new RegExp(`^${PARAMETER_OPEN}[^"]*("[^]*)?$`)

/** Special strings a model can write; stop strings are not matched inside them. */
const SPECIALS = [BOS, EOS, THINK, THINK_END, DSML]

type State = 'reasoning' | 'content' | 'block' | 'invoke' | 'after' | 'done'

/** Marks that end a stretch of text, by state. */
const MARKS = {
  reasoning: [THINK_END, EOS, ...CALLS_OPENINGS],
  content: [EOS, ...CALLS_OPENINGS],
  invoke: [INVOKE_CLOSE, CALLS_CLOSE, EOS],
} as const satisfies Partial<Record<State, readonly string[]>>

/** The same where no tool may be called. */
const TEXT_MARKS = { ...MARKS, reasoning: [THINK_END, EOS], content: [EOS] } as const

/** Length of an opening that the end of `text` cuts off, as far as its token tells it from prose. */
const openingAt = (text: string): number => {
  const held = heldLength(text, CALLS_OPENINGS)
  return text.slice(text.length - held).includes(DSML) ? held : 0
}

/** Where a block stands between two calls. */
const BLOCK_NEXT = [INVOKE_OPEN, CALLS_CLOSE, EOS]

interface Invoke {
  readonly name: string
  /** Of the parameters that are whole: name as JSON, value as JSON. */
  readonly members: ReadonlyMap<string, string>
  /** What stands behind them. */
  readonly rest: string
}

/** `text` begins with a whole opening tag; `undefined` when it does not, or a parameter breaks the grammar. */
const readInvoke = (text: string): Invoke | undefined => {
  const [head, name] = INVOKE_HEAD.exec(text) ?? []
  if (head === undefined || name === undefined) return undefined
  const members = new Map<string, string>()
  let end = head.length
  PARAMETER.lastIndex = end
  for (let match = PARAMETER.exec(text); match; match = PARAMETER.exec(text)) {
    const [whole, key = '', isString, value = ''] = match
    if (members.has(key) || value.includes(DSML)) return undefined
    members.set(key, isString === 'false' && isJson(value) ? value.trim() : JSON.stringify(value))
    end += whole.length
  }
  return { name, members, rest: text.slice(end) }
}

const objectJson = (members: ReadonlyMap<string, string>): string =>
  `{${[...members].map(([key, value]) => `${JSON.stringify(key)}: ${value}`).join(', ')}`

/** A whole `<｜DSML｜invoke>` element -> name and arguments as JSON text; `undefined` when it breaks the grammar. */
const parseInvoke = (text: string): ParsedCall | undefined => {
  const { name, members, rest } = readInvoke(text) ?? {}
  if (name === undefined || !members || rest !== INVOKE_CLOSE) return undefined
  return { name, json: `${objectJson(members)}}` }
}

/** Whether `text` is the start of what may follow in an invoke, with nothing of a value. */
const isBegun = (text: string): boolean => {
  if ([PARAMETER_OPEN, INVOKE_CLOSE].some((mark) => mark.startsWith(text))) return true
  const [is, behindName = '"'] = CUT_NAME.exec(text) ?? []
  return is !== undefined && ['" string="true">', '" string="false">'].some((mark) => mark.startsWith(behindName))
}

/** An invoke that breaks off: no call while its name is not whole, `undefined` when no call begins so. */
const parseCut = (text: string): { readonly call?: ParsedCall } | undefined => {
  if (/^[^"]*"?$/.test(text.slice(INVOKE_OPEN.length))) return {}
  const { name, members, rest = '' } = readInvoke(text) ?? {}
  if (name === undefined || !members) return undefined
  const json = objectJson(members)
  if (isBegun(rest)) return { call: { name, json } }
  const [is, key = '', isString, written = ''] = CUT_PARAMETER.exec(rest) ?? []
  const value = written.slice(0, written.length - heldLength(written, [PARAMETER_CLOSE]))
  if (is === undefined || members.has(key) || value.includes(DSML)) return undefined
  const begun = isString === 'true' ? JSON.stringify(value).slice(0, -1) : value.trimStart()
  return { call: { name, json: `${json}${members.size > 0 ? ', ' : ''}${JSON.stringify(key)}: ${begun}` } }
}

class Parser extends AnswerReader {
  #state: State
  readonly #noCalls: boolean
  /** Raw text of the block since the last complete call: content, should it turn out malformed. */
  #raw: string[] = []
  #invoke: string[] = []

  constructor(options: ParserOptions) {
    super(options, SPECIALS)
    this.#noCalls = options.noCalls ?? false
    this.#state = options.thinking ? 'reasoning' : 'content'
  }

  get inReasoning(): boolean {
    return this.#state === 'reasoning'
  }

  protected giveUp(): void {
    const cut = this.#state === 'invoke' ? parseCut(this.#invoke.join('')) : undefined
    if (cut?.call) this.cutCall(cut.call)
    if (!cut) this.#giveUpBlock('')
    this.#state = 'done'
  }

  protected step(final: boolean): boolean {
    switch (this.#state) {
      case 'reasoning':
      case 'content':
      case 'invoke':
        return this.#text(this.#state, final)
      case 'block':
        return this.#block(final)
      case 'after':
        this.advance(this.buffer.length - this.buffer.trimStart().length)
        if (this.buffer === '') return false
        this.#state = 'content'
        return true
      case 'done':
        this.advance(this.buffer.length)
        return false
    }
  }

  #text(state: keyof typeof MARKS, final: boolean): boolean {
    const { text, mark, end } = this.upTo((this.#noCalls ? TEXT_MARKS : MARKS)[state], final)
    if (state === 'invoke') this.#invoke.push(text)
    else {
      const opened = final && mark === undefined && !this.#noCalls ? openingAt(text) : 0
      this.say(state, text.slice(0, text.length - opened), end - opened)
    }
    if (mark === undefined) return false
    if (state === 'invoke') this.#invokeEnds(mark)
    else if (mark === EOS) this.#state = 'done'
    else if (mark === THINK_END) this.#state = 'content'
    else {
      // Models slip into a call without closing their reasoning; the call counts, and the reasoning ends here.
      this.#raw = [mark]
      this.#state = 'block'
    }
    return true
  }

  #block(final: boolean): boolean {
    const rest = this.buffer.trimStart()
    this.#raw.push(this.advance(this.buffer.length - rest.length))
    const next = BLOCK_NEXT.find((mark) => rest.startsWith(mark))
    if (next === undefined && BLOCK_NEXT.some((mark) => mark.startsWith(rest))) {
      if (final) this.#state = 'done'
      return false
    }
    if (next === EOS) this.#giveUpBlock('')
    this.advance(next?.length ?? 0)
    if (next === INVOKE_OPEN) {
      this.#invoke = [INVOKE_OPEN]
      this.#state = 'invoke'
    } else if (next === CALLS_CLOSE && this.calls > 0) {
      this.#raw = []
      this.#state = 'after'
    } else if (next === EOS) {
      this.#state = 'done'
    } else {
      this.#giveUpBlock(next ?? '')
    }
    return this.buffer !== ''
  }

  #invokeEnds(mark: string): void {
    const call = mark === INVOKE_CLOSE ? parseInvoke(this.#invoke.join('') + INVOKE_CLOSE) : undefined
    if (call) {
      this.call(call)
      this.#raw = []
      this.#invoke = []
      this.#state = 'block'
      return
    }
    if (mark === EOS) this.#giveUpBlock('', this.at - EOS.length)
    else this.#giveUpBlock(mark)
    if (mark === EOS) this.#state = 'done'
  }

  /** What was read of a block since its last complete call, and `mark`, becomes content; it stood before `end`. */
  #giveUpBlock(mark: string, end = this.at): void {
    if (this.#state !== 'block' && this.#state !== 'invoke') return
    // White space after a complete call is the block's own.
    const raw = this.#raw.join('')
    const text = (raw.trim() === '' ? '' : raw) + this.#invoke.join('') + mark
    this.#raw = []
    this.#invoke = []
    this.#state = 'content'
    this.say('content', text, end)
  }
}

export const deepseekV32Parser = (options: ParserOptions): AnswerParser => new Parser(options)
