// What response_format, tool_choice, strict and parallel_tool_calls ask of an answer's shape, in the chat format's terms.
import type { AnswerShape, ToolShape } from '../chat/chat_format.ts'
import { fail, ok, type Result } from '../errors.ts'
import type { ChatBody } from './openai_chat_body.ts'

const toolShapes = (body: ChatBody): ToolShape[] =>
  (body.tools ?? []).map(({ function: { name, parameters, strict } }, i) => ({
    name,
    // As OpenAI has it: without parameters a function takes none.
    schema: parameters ?? { type: 'object', properties: {}, additionalProperties: false },
    strict: strict ?? false,
    at: `tools.${i}.function.parameters`,
  }))

const responseOf = (body: ChatBody): AnswerShape['response'] => {
  const format = body.response_format
  if (format?.type === 'json_object') return { schema: undefined, at: 'response_format' }
  if (format?.type !== 'json_schema') return undefined
  return { schema: format.json_schema.schema, at: 'response_format.json_schema.schema' }
}

/** `thinking`: the answer begins with reasoning. undefined: the answer is free. Errors: invalid_parameter where tool_choice names no tool. */
export const answerShape = (body: ChatBody, thinking: boolean): Result<AnswerShape | undefined> => {
  const asked = body.tool_choice ?? 'auto'
  const tools = asked === 'none' ? [] : toolShapes(body)
  const choice = typeof asked === 'object' ? { name: asked.function.name } : asked === 'required' ? asked : 'auto'
  const isKnown = typeof choice === 'object' ? tools.some(({ name }) => name === choice.name) : tools.length > 0
  if (choice !== 'auto' && !isKnown) {
    const message = 'tool_choice: there is no such tool among tools.'
    return fail('invalid_parameter', { message, param: 'tool_choice' })
  }
  const response = responseOf(body)
  const parallel = body.parallel_tool_calls ?? true
  const isFree =
    !response && choice === 'auto' && !tools.some(({ strict }) => strict) && (parallel || tools.length === 0)
  if (isFree) return ok(undefined)
  return ok({ thinking, response, tools, choice, parallel })
}
