// Token text of DeepSeek-V3.2 -> reasoning, content and tool calls, piece by piece. The result does not depend on where the
// text was split. Text that breaks the call grammar is never lost and never throws: it becomes content.
import { AnswerReader, type ParsedCall } from './answer_reader.ts'
import type { AnswerParser, ParserOptions } from './chat_format.ts'
import { BOS, DSML, EOS } from './deepseek_v32_marks.ts'
import { isJson } from './python_json.ts'
import { THINK, THINK_END } from './think.ts'

const CALLS_OPEN = `<${DSML}function_calls>`
const CALLS_CLOSE = `</${DSML}function_calls>`
const INVOKE_OPEN = `<${DSML}invoke name="`
const INVOKE_CLOSE = `</${DSML}invoke>`
/** The blank line before a call block belongs to the block. */
const CALLS_OPENINGS = [`\n\n${CALLS_OPEN}`, `\n${CALLS_OPEN}`, CALLS_OPEN]

const INVOKE = new RegExp(`^${INVOKE_OPEN}([^"]+)">\\s*([^]*)${INVOKE_CLOSE}$`)
const PARAMETER = new RegExp(
  `<${DSML}parameter name="([^"]+)" string="(true|false)">([^]*?)</${DSML}parameter>\\s*`,
  'y',
)

/** Special strings a model can write; stop strings are not matched inside them. */
const SPECIALS = [BOS, EOS, THINK, THINK_END, DSML]

type State = 'reasoning' | 'content' | 'block' | 'invoke' | 'after' | 'done'

/** Marks that end a stretch of text, by state. */
const MARKS = {
  reasoning: [THINK_END, EOS, ...CALLS_OPENINGS],
  content: [EOS, ...CALLS_OPENINGS],
  invoke: [INVOKE_CLOSE, CALLS_CLOSE, EOS],
} as const satisfies Partial<Record<State, readonly string[]>>

/** Where a block stands between two calls. */
const BLOCK_NEXT = [INVOKE_OPEN, CALLS_CLOSE, EOS]

/** A whole `<｜DSML｜invoke>` element -> name and arguments as JSON text; `undefined` when it breaks the grammar. */
const parseInvoke = (text: string): ParsedCall | undefined => {
  const [, name, body] = INVOKE.exec(text) ?? []
  if (name === undefined || body === undefined) return undefined
  const members = new Map<string, string>()
  PARAMETER.lastIndex = 0
  let end = 0
  for (let match = PARAMETER.exec(body); match; match = PARAMETER.exec(body)) {
    const [whole, key = '', isString, value = ''] = match
    if (members.has(key) || value.includes(DSML)) return undefined
    members.set(key, isString === 'false' && isJson(value) ? value.trim() : JSON.stringify(value))
    end += whole.length
  }
  if (end !== body.length) return undefined
  return { name, json: `{${[...members].map(([key, value]) => `${JSON.stringify(key)}: ${value}`).join(', ')}}` }
}

class Parser extends AnswerReader {
  #state: State
  /** Raw text of the block since the last complete call: content, should it turn out malformed. */
  #raw: string[] = []
  #invoke: string[] = []

  constructor(options: ParserOptions) {
    super(options, SPECIALS)
    this.#state = options.thinking ? 'reasoning' : 'content'
  }

  get inReasoning(): boolean {
    return this.#state === 'reasoning'
  }

  protected giveUp(): void {
    this.#giveUpBlock('')
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
    const { text, mark, end } = this.upTo(MARKS[state], final)
    if (state === 'invoke') this.#invoke.push(text)
    else this.say(state, text, end)
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
    if (next === undefined && !final && BLOCK_NEXT.some((mark) => mark.startsWith(rest))) return false
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
