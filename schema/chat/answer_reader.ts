// What answer parsers share: pieces of text come in, cut at a stop string and never between the halves of a character; deltas go out,
// neighbours of one kind as one. What the text means is the parser's own.
import type { Delta, Source } from '../dialects/dialect.ts'
import type { AnswerParser, ParserOptions } from './chat_format.ts'
import { firstMark, heldLength, StopCutter } from './parse.ts'

export interface ParsedCall {
  readonly name: string
  /** Arguments as JSON text. */
  readonly json: string
}

export abstract class AnswerReader implements AnswerParser {
  /** Text not yet understood: shorter than the longest mark but for the push at work. */
  protected buffer = ''
  /** Where the buffer begins in all that was pushed. */
  protected at = 0
  protected calls = 0
  #isCut = false
  readonly #stop: StopCutter
  readonly #idSuffix: string
  readonly #withSource: boolean
  /** First half of a surrogate pair at the end of a push. */
  #surrogate = ''
  #deltas: Delta[] = []

  /** `specials`: strings inside which no stop string is matched. */
  constructor({ stop, requestId, withSource = false }: ParserOptions, specials: readonly string[]) {
    this.#stop = new StopCutter(stop, specials)
    this.#idSuffix = requestId.replaceAll('-', '').slice(-12)
    this.#withSource = withSource
  }

  abstract get inReasoning(): boolean

  /** Consumes the buffer up to the next mark; false when it has to wait for more text. */
  protected abstract step(final: boolean): boolean

  /** Nothing follows: of a call that is not whole there is what was written of it. */
  protected abstract giveUp(): void

  get stopped(): boolean {
    return this.#stop.stopped
  }

  push(text: string, unstopped = false): Delta[] {
    const whole = this.#surrogate + text
    const halved = /[\ud800-\udbff]$/.test(whole)
    this.#surrogate = halved ? whole.slice(-1) : ''
    const next = halved ? whole.slice(0, -1) : whole
    this.buffer += unstopped ? this.#stop.pass(next) : this.#stop.push(next)
    return this.#drain(false)
  }

  end(): ReturnType<AnswerParser['end']> {
    this.buffer += this.#stop.push(this.#surrogate) + this.#stop.end()
    this.#surrogate = ''
    const deltas = this.#drain(true)
    return { deltas, toolCalls: this.calls, isCallCut: this.#isCut, stop: this.#stop.matched }
  }

  #drain(final: boolean): Delta[] {
    while (this.step(final));
    if (final) this.giveUp()
    const deltas = this.#deltas
    this.#deltas = []
    return deltas
  }

  /** Takes so much off the buffer's front. */
  protected advance(length: number): string {
    const text = this.buffer.slice(0, length)
    this.buffer = this.buffer.slice(length)
    this.at += length
    return text
  }

  /** The text before the first of `marks`, without what may be the start of one, and the mark behind it, if it is there. */
  protected upTo(marks: readonly string[], final: boolean): { text: string; mark: string | undefined; end: number } {
    const found = firstMark(this.buffer, marks)
    const held = final ? 0 : heldLength(this.buffer, marks)
    const text = this.advance(found ? found.at : this.buffer.length - held)
    const end = this.at
    if (found) this.advance(found.mark.length)
    return { text, mark: found?.mark, end }
  }

  protected say(kind: 'reasoning' | 'content', text: string, end = this.at): void {
    if (text === '') return
    const last = this.#deltas.at(-1)
    const joins = last?.kind === kind
    const begin = (joins ? last.source?.[0] : undefined) ?? end - text.length
    const source: { source?: Source } = this.#withSource ? { source: [begin, end] } : {}
    if (joins) this.#deltas[this.#deltas.length - 1] = { kind, text: last.text + text, ...source }
    else this.#deltas.push({ kind, text, ...source })
  }

  protected call(call: ParsedCall): void {
    this.#callDeltas(call)
    this.calls++
  }

  /** The end of the text cuts the call off, and its arguments. */
  protected cutCall(call: ParsedCall): void {
    this.#callDeltas(call)
    this.#isCut = true
  }

  #callDeltas({ name, json }: ParsedCall): void {
    const index = this.calls
    const id = `call_${String(index).padStart(2, '0')}_${this.#idSuffix}`
    this.#deltas.push({ kind: 'tool_call', index, id, name })
    this.#deltas.push({ kind: 'tool_arguments', index, text: json })
  }
}
