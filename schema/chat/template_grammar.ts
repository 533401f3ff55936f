// The grammar of an answer whose shape is demanded, for models with a chat template: reasoning, then JSON or Hermes-style calls.
import type { Result } from '../errors.ts'
import { SchemaGrammar } from '../grammar/json_schema.ts'
import { anyObject } from '../grammar/json_text.ts'
import { isSchema } from '../grammar/keywords.ts'
import { alt, copies, EMPTY, noneOf, optional, type Piece, Rules, seq, star, text } from '../grammar/rules.ts'
import type { AnswerGrammar, AnswerShape, ToolShape } from './chat_format.ts'
import { guarded, ShapeFault, writtenGrammar } from './shape_fault.ts'
import { CALL_CLOSE, CALL_OPEN } from './tagged_parser.ts'
import { THINK_END } from './think.ts'

/** Line breaks that such models put between the parts of an answer. */
const BREAKS = copies(text('\n'), 0, 2)

class Writer {
  readonly rules = new Rules()
  /** Tags that are tokens of their own in this model's vocabulary: character n + 1 stands for the n-th. */
  readonly marks: readonly string[]

  constructor(specials: readonly string[]) {
    this.marks = [THINK_END, CALL_OPEN, CALL_CLOSE].filter((tag) => specials.includes(tag))
  }

  /** The tag as the grammar spells it. */
  #tag(tag: string): string {
    const at = this.marks.indexOf(tag)
    return at < 0 ? tag : String.fromCharCode(at + 1)
  }

  /** Any text up to `tag`: that takes a tag which no other text can spell. */
  #before(tag: string, at: string): Piece {
    if (!this.marks.includes(tag)) throw new ShapeFault(at, `needs a model whose ${tag} is a token of its own`)
    return star(noneOf(this.#tag(tag)))
  }

  #arguments({ schema, strict, at }: ToolShape, id: string): Piece {
    const whole = isSchema(schema) && schema.type === undefined ? { ...schema, type: 'object' } : schema
    try {
      const piece = guarded(at, () => new SchemaGrammar(this.rules, whole, id).value(whole, []))
      if (!isSchema(whole) || whole.type !== 'object' || !piece)
        throw new ShapeFault(at, 'must be a schema of an object')
      return piece
    } catch (error) {
      if (strict || !(error instanceof ShapeFault)) throw error
      return anyObject(this.rules)
    }
  }

  #calls({ tools, choice, parallel }: AnswerShape): Piece {
    const wanted = typeof choice === 'object' ? tools.filter(({ name }) => name === choice.name) : tools
    const ways = wanted.map((tool, i) =>
      seq(
        text(`${this.#tag(CALL_OPEN)}\n{"name": ${JSON.stringify(tool.name)}, "arguments": `),
        this.#arguments(tool, `tool ${i}`),
        text(`}\n${this.#tag(CALL_CLOSE)}`),
      ),
    )
    const call = this.rules.add(() => alt(...ways))
    return typeof choice === 'object' || !parallel ? call : seq(call, star(seq(text('\n'), call)))
  }

  #response({ schema, at }: NonNullable<AnswerShape['response']>): Piece {
    if (schema === undefined) return anyObject(this.rules)
    const piece = guarded(at, () => new SchemaGrammar(this.rules, schema, 'response').value(schema, []))
    if (!piece) throw new ShapeFault(at, 'fits no value')
    return piece
  }

  answer(shape: AnswerShape): Piece {
    const { thinking, response, tools, choice } = shape
    const at = response?.at ?? tools[0]?.at ?? ''
    const calls = tools.length > 0 ? this.#calls(shape) : undefined
    const reasoning = thinking ? seq(this.#before(THINK_END, at), text(this.#tag(THINK_END)), BREAKS) : EMPTY
    if (calls && choice !== 'auto') return seq(reasoning, calls)
    if (response) return seq(reasoning, calls ? alt(this.#response(response), calls) : this.#response(response))
    return seq(reasoning, this.#before(CALL_OPEN, at), calls ? optional(calls) : EMPTY)
  }
}

/** `specials`: the strings that are tokens of their own. */
export const templateGrammar = (shape: AnswerShape, specials: readonly string[]): Result<AnswerGrammar> => {
  const { marks } = new Writer(specials)
  return writtenGrammar(shape, marks, (wanted) => {
    const writer = new Writer(specials)
    return writer.rules.write(writer.answer(wanted))
  })
}
