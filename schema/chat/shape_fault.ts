// What every chat format's grammar of demanded answers needs: faults told at the place where the client wrote the schema.
import { fail, ok, type Result } from '../errors.ts'
import { SchemaFault } from '../grammar/keywords.ts'
import type { Rules } from '../grammar/rules.ts'
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

/** The grammar that `write` makes. Errors: invalid_request naming what in the client's body has none. */
export const writtenGrammar = (
  shape: AnswerShape,
  marks: readonly string[],
  write: () => ReturnType<Rules['write']>,
): Result<AnswerGrammar> => {
  const at = shape.response?.at ?? shape.tools[0]?.at ?? ''
  try {
    const written = write()
    if ('text' in written) return ok({ text: written.text, marks })
    const why =
      written.fault === 'large'
        ? `becomes a grammar of over ${GRAMMAR_CHARS_MAX / 1024} KB`
        : '$ref goes round in a circle that no value ends'
    return fail('invalid_request', { message: `${at}: the schema ${why}.`, param: at })
  } catch (error) {
    if (error instanceof ShapeFault)
      return fail('invalid_request', { message: `${error.param}: ${error.message}.`, param: error.param })
    throw error
  }
}
