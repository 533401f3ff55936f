// What every chat format's grammar of demanded answers needs: faults told at the place where the client wrote the schema.
import { fail, ok, type Result } from '../errors.ts'
import { SchemaFault } from '../grammar/keywords.ts'
import { GrammarTooLarge, type Rules } from '../grammar/rules.ts'
import { GRAMMAR_CHARS_MAX } from '../limits.ts'
import type { AnswerGrammar, AnswerShape } from './chat_format.ts'

/** A fault, told from a schema's root where the client put the schema. */
export class ShapeFault extends Error {
  readonly param: string

  constructor(at: string, message: string) {
    super(message)
    this.param = at
  }
}

/** Runs `work` on the schema at `at`; its faults then name the place in the client's body. */
export const guarded = <T>(at: string, work: () => T): T => {
  try {
    return work()
  } catch (error) {
    if (error instanceof SchemaFault) throw new ShapeFault([at, ...error.path].join('.'), error.message)
    throw error
  }
}

const LARGE = `becomes a grammar of over ${GRAMMAR_CHARS_MAX / 1024} KB`

/** What a schema nests, through references too, the grammar's makers do: one that has no bound of its own ends at the stack's. */
export const isTooDeep = (error: unknown): boolean => error instanceof RangeError && /call stack/.test(error.message)

/** Tools that promise nothing, without their schemas: whatever arguments do. */
const freed = (shape: AnswerShape): AnswerShape => ({
  ...shape,
  tools: shape.tools.map((tool) => (tool.strict ? tool : { ...tool, schema: undefined })),
})

/**
 * The grammar that `write` makes of the shape; of a shape whose whole grammar cannot be, without the schemas of tools that are not
 * strict. Errors: invalid_request naming what in the client's body has none.
 */
export const writtenGrammar = (
  shape: AnswerShape,
  marks: readonly string[],
  write: (shape: AnswerShape) => ReturnType<Rules['write']>,
): Result<AnswerGrammar> => {
  const at = shape.response?.at ?? shape.tools[0]?.at ?? ''
  const refused = (why: string): Result<AnswerGrammar> =>
    shape.tools.some(({ strict, schema }) => !strict && schema !== undefined)
      ? writtenGrammar(freed(shape), marks, write)
      : fail('invalid_request', { message: `${at}: the schema ${why}.`, param: at })
  try {
    const written = write(shape)
    if ('text' in written) return ok({ text: written.text, marks })
    return refused(written.fault === 'large' ? LARGE : '$ref goes round in a circle that no value ends')
  } catch (error) {
    if (error instanceof GrammarTooLarge) return refused(LARGE)
    if (isTooDeep(error)) return refused('goes too deep')
    if (error instanceof ShapeFault)
      return fail('invalid_request', { message: `${error.param}: ${error.message}.`, param: error.param })
    throw error
  }
}
