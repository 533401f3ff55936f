// Token text of DeepSeek-V3.2 -> reasoning, content and tool calls, piece by piece. The result does not depend on where the
// text was split. Text that breaks the call grammar is never lost and never throws: it becomes content.
import type { Delta, Source } from '../dialects/dialect.ts'
import type { AnswerParser, ParserOptions } from './chat_format.ts'
import { BOS, DSML, EOS } from './deepseek_v32_marks.ts'
import { firstMark, heldLength, StopCutter } from './parse.ts'
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
const parseInvoke = (text: string): { name: string; json: string } | undefined => {
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

class Parser implements AnswerParser {
  #state: State
  readonly #stop: StopCutter
  readonly #idSuffix: string
  /** Text not yet understood: shorter than the longest mark but for the push at work. */
  #buffer = ''
  /** Where the buffer begins in all that was pushed. */
  #at = 0
  /** First half of a surrogate pair at the end of a push. */
  #surrogate = ''
  /** Raw text of the block since the last complete call: content, should it turn out malformed. */
  #raw: string[] = []
  #invoke: string[] = []
  #calls = 0
  #deltas: Delta[] = []
  readonly #withSource: boolean

  constructor({ thinking, stop, requestId, withSource = false }: ParserOptions) {
    this.#withSource = withSource
    this.#state = thinking ? 'reasoning' : 'content'
    this.#stop = new StopCutter(stop, SPECIALS)
    this.#idSuffix = requestId.replaceAll('-', '').slice(-12)
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
    if (final) this.#giveUpBlock('')
    const deltas = this.#deltas
    this.#deltas = []
    return deltas
  }

  /** Consumes the buffer up to the next mark; false when it has to wait for more text. */
  #step(final: boolean): boolean {
    switch (this.#state) {
      case 'reasoning':
      case 'content':
      case 'invoke':
        return this.#text(this.#state, final)
      case 'block':
        return this.#block(final)
      case 'after':
        this.#advance(this.#buffer.length - this.#buffer.trimStart().length)
        if (this.#buffer === '') return false
        this.#state = 'content'
        return true
      case 'done':
        this.#advance(this.#buffer.length)
        return false
    }
  }

  /** Takes so much off the buffer's front. */
  #advance(length: number): string {
    const text = this.#buffer.slice(0, length)
    this.#buffer = this.#buffer.slice(length)
    this.#at += length
    return text
  }

  #text(state: keyof typeof MARKS, final: boolean): boolean {
    const found = firstMark(this.#buffer, MARKS[state])
    const held = final ? 0 : heldLength(this.#buffer, MARKS[state])
    const end = found ? found.at : this.#buffer.length - held
    this.#sink(state, this.#advance(end))
    if (!found) return false
    this.#advance(found.mark.length)
    if (state === 'invoke') this.#invokeEnds(found.mark)
    else if (found.mark === EOS) this.#state = 'done'
    else if (found.mark === THINK_END) this.#state = 'content'
    else {
      // Models slip into a call without closing their reasoning; the call counts, and the reasoning ends here.
      this.#raw = [found.mark]
      this.#state = 'block'
    }
    return true
  }

  #block(final: boolean): boolean {
    const rest = this.#buffer.trimStart()
    this.#raw.push(this.#advance(this.#buffer.length - rest.length))
    const next = BLOCK_NEXT.find((mark) => rest.startsWith(mark))
    if (next === undefined && !final && BLOCK_NEXT.some((mark) => mark.startsWith(rest))) return false
    if (next === EOS) this.#giveUpBlock('')
    this.#advance(next?.length ?? 0)
    if (next === INVOKE_OPEN) {
      this.#invoke = [INVOKE_OPEN]
      this.#state = 'invoke'
    } else if (next === CALLS_CLOSE && this.#calls > 0) {
      this.#raw = []
      this.#state = 'after'
    } else if (next === EOS) {
      this.#state = 'done'
    } else {
      this.#giveUpBlock(next ?? '')
    }
    return this.#buffer !== ''
  }

  #invokeEnds(mark: string): void {
    const call = mark === INVOKE_CLOSE ? parseInvoke(this.#invoke.join('') + INVOKE_CLOSE) : undefined
    if (call) {
      const index = this.#calls++
      const id = `call_${String(index).padStart(2, '0')}_${this.#idSuffix}`
      this.#deltas.push({ kind: 'tool_call', index, id, name: call.name })
      this.#deltas.push({ kind: 'tool_arguments', index, text: call.json })
      this.#raw = []
      this.#invoke = []
      this.#state = 'block'
      return
    }
    if (mark === EOS) this.#giveUpBlock('', this.#at - EOS.length)
    else this.#giveUpBlock(mark)
    if (mark === EOS) this.#state = 'done'
  }

  /** What was read of a block since its last complete call, and `mark`, becomes content; it stood before `end`. */
  #giveUpBlock(mark: string, end = this.#at): void {
    if (this.#state !== 'block' && this.#state !== 'invoke') return
    // White space after a complete call is the block's own.
    const raw = this.#raw.join('')
    const text = (raw.trim() === '' ? '' : raw) + this.#invoke.join('') + mark
    this.#raw = []
    this.#invoke = []
    this.#state = 'content'
    this.#sink('content', text, end)
  }

  #sink(state: keyof typeof MARKS, text: string, end = this.#at): void {
    if (text === '') return
    if (state === 'invoke') {
      this.#invoke.push(text)
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

export const deepseekV32Parser = (options: ParserOptions): AnswerParser => new Parser(options)
