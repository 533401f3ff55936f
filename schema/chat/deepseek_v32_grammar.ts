// The grammar of a DeepSeek-V3.2 answer whose shape is demanded: reasoning, then JSON or tool calls. Arguments that are
// strings stand raw between the tags of their parameter, all others as JSON.
import type { Result } from '../errors.ts'
import { SchemaGrammar } from '../grammar/json_schema.ts'
import { anyObject, anyString, anyValue } from '../grammar/json_text.ts'
import { isSchema, type Schema, SchemaFault } from '../grammar/keywords.ts'
import {
  alt,
  copies,
  EMPTY,
  GrammarTooLarge,
  noneOf,
  oneOf,
  optional,
  type Piece,
  Rules,
  seq,
  star,
  TextBudget,
  text,
} from '../grammar/rules.ts'
import type { AnswerGrammar, AnswerShape, ToolShape } from './chat_format.ts'
import { DSML } from './deepseek_v32_marks.ts'
import { guarded, isTooDeep, ShapeFault, writtenGrammar } from './shape_fault.ts'
import { THINK_END } from './think.ts'

/** Stand for the tokens of DSML and THINK_END: no text of a model holds these characters, nor does JSON. */
const DSML_MARK = '\u0001'
const THINK_END_MARK = '\u0002'
const MARKS = [DSML, THINK_END] as const

const OPEN = `<${DSML_MARK}`
const CLOSE = `</${DSML_MARK}`
/** What a parameter's name can hold between its quotes. */
const isName = (name: string): boolean => name !== '' && [...name].every((char) => char >= ' ' && char !== '"')
const freeName = (): Piece => copies(oneOf('a-zA-Z0-9_-'), 1, 64)

const parameter = (name: Piece, isString: boolean, value: Piece): Piece =>
  seq(text(`${OPEN}parameter name="`), name, text(`" string="${isString}">`), value, text(`${CLOSE}parameter>\n`))

class Writer {
  readonly #rules: Rules
  /** Of the tools that need no grammar: what is tried for them is bounded together. */
  readonly #tried = new TextBudget()

  constructor(budget?: TextBudget) {
    this.#rules = new Rules(budget)
  }

  #value(
    grammar: SchemaGrammar,
    schema: unknown,
    path: readonly string[],
  ): { raw: Piece | undefined; json: Piece | undefined } {
    return { raw: grammar.value(schema, path, 'raw strings'), json: grammar.value(schema, path, 'no strings') }
  }

  /** One parameter of a call; undefined where no value fits its schema. */
  #parameter(grammar: SchemaGrammar, name: string, schema: unknown, path: readonly string[]): Piece | undefined {
    if (!isName(name)) throw new SchemaFault(path, '', 'has a name that a tool call cannot spell')
    const { raw, json } = this.#value(grammar, schema, path)
    const ways = [raw && parameter(text(name), true, raw), json && parameter(text(name), false, json)]
    const real = ways.filter((way) => way !== undefined)
    return real.length === 0 ? undefined : this.#rules.add(() => alt(...real))
  }

  #anyParameters(): Piece {
    return this.#rules.shared('any parameters', () =>
      star(
        alt(
          parameter(freeName(), true, anyString(this.#rules, 'raw')),
          parameter(freeName(), false, anyValue(this.#rules, false)),
        ),
      ),
    )
  }

  /** The parameters of an object schema, in its order. */
  parameters({ schema: root, strict, at }: ToolShape, id: string): Piece {
    if (!strict && !hasGrammar({ name: id, schema: root, strict: true, at }, this.#tried)) return this.#anyParameters()
    const fault = (message: string): never => {
      throw new ShapeFault(at, message)
    }
    if (!isSchema(root)) return fault('must be a schema of an object')
    const schema: Schema = root
    const { type, properties = {}, required = [], additionalProperties } = schema
    if (type !== undefined && type !== 'object') return fault('must be a schema of type object')
    // A grammar cannot see to it that free names differ, and a name that comes twice makes no call.
    if (schema.properties === undefined && (additionalProperties ?? true) === true)
      throw new ShapeFault(`${at}.properties`, 'is needed in a strict tool')
    const grammar = new SchemaGrammar(this.#rules, schema, id)
    // What this level does not write itself is refused as anywhere: the whole is compiled once as plain JSON.
    const whole = guarded(at, () =>
      grammar.value(schema.type === undefined ? { ...schema, type: 'object' } : schema, []),
    )
    if (!whole || !isSchema(properties) || !Array.isArray(required)) return fault('fits no value')
    const undeclared = [...new Set(required)].filter((name) => !Object.hasOwn(properties, String(name)))
    const all = [...Object.entries(properties).map(([name, part]) => ({ name, part, path: ['properties', name] }))]
    for (const name of undeclared)
      all.push({ name: String(name), part: additionalProperties ?? true, path: ['additionalProperties'] })
    const pieces = all.map(({ name, part, path }) => {
      const piece = guarded(at, () => this.#parameter(grammar, name, part, path))
      if (!piece && required.includes(name)) return fault(`fits no value: ${name}`)
      return piece ? (required.includes(name) ? piece : optional(piece)) : EMPTY
    })
    return seq(...pieces)
  }

  /** A whole block of calls. */
  calls(shape: AnswerShape): Piece {
    const { choice } = shape
    const tools = typeof choice === 'object' ? shape.tools.filter(({ name }) => name === choice.name) : shape.tools
    const ways = tools.map((tool, i) =>
      seq(text(`${OPEN}invoke name="${tool.name}">\n`), this.parameters(tool, `tool ${i}`), text(`${CLOSE}invoke>\n`)),
    )
    const call = this.#rules.add(() => alt(...ways))
    const one = typeof choice === 'object' || !shape.parallel
    return seq(text(`${OPEN}function_calls>\n`), call, one ? EMPTY : star(call), text(`${CLOSE}function_calls>`))
  }

  response({ schema, at }: NonNullable<AnswerShape['response']>): Piece {
    if (schema === undefined) return anyObject(this.#rules)
    const piece = guarded(at, () => new SchemaGrammar(this.#rules, schema, 'response').value(schema, []))
    if (!piece) throw new ShapeFault(at, 'fits no value')
    return piece
  }

  answer(shape: AnswerShape): Piece {
    const { thinking, response, tools, choice } = shape
    const calls = tools.length > 0 ? this.calls(shape) : undefined
    const block = calls && seq(text('\n\n'), calls)
    const reasoning = thinking ? seq(star(noneOf(`${DSML_MARK}${THINK_END_MARK}`)), text(THINK_END_MARK)) : EMPTY
    if (calls && block && choice !== 'auto') return seq(reasoning, block)
    if (response) return seq(reasoning, block ? alt(this.response(response), block) : this.response(response))
    return seq(reasoning, star(noneOf(DSML_MARK)), calls ? optional(calls) : EMPTY)
  }

  write(root: Piece): ReturnType<Rules['write']> {
    return this.#rules.write(root)
  }
}

const hasGrammar = (tool: ToolShape, budget: TextBudget): boolean => {
  const scratch = new Writer(budget)
  try {
    return 'text' in scratch.write(scratch.parameters(tool, ''))
  } catch (error) {
    if (error instanceof ShapeFault || error instanceof GrammarTooLarge || isTooDeep(error)) return false
    throw error
  }
}

export const deepseekV32Grammar = (shape: AnswerShape): Result<AnswerGrammar> => {
  return writtenGrammar(shape, MARKS, (wanted) => {
    const writer = new Writer()
    return writer.write(writer.answer(wanted))
  })
}
