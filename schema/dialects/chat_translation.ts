// Other vendors' requests as chat requests: each says the same conversation in its own words, so they share the chat dialect's checks,
// rendering and grammar. What a client reads in an error is its own naming again.

import type { z } from 'zod'
import { type ApiError, apiError, type Result } from '../errors.ts'
import type { Run } from '../wire.ts'
import type { ParseContext } from './dialect.ts'
import { openAiChat } from './openai_chat.ts'
import { badParameter } from './openai_chat_body.ts'

/** A declared function; `schemaText` is its JSON as the client spelled it. */
export interface TranslatedTool {
  readonly name: string
  readonly description?: string | null | undefined
  readonly schema: unknown
  readonly schemaText?: string | undefined
  readonly strict?: boolean | null | undefined
}

export interface Translation {
  /** A chat request but for `tools` and a response schema. */
  readonly body: Readonly<Record<string, unknown>>
  readonly tools: readonly TranslatedTool[]
  readonly responseSchema?: {
    readonly schema: unknown
    readonly schemaText?: string | undefined
    readonly name?: string
  }
  /** Where the client wrote each of `body.messages`. */
  readonly messageAt: readonly string[]
  /** Chat parameter -> the client's; the longest that fits a path's start counts. `*` is an index. */
  readonly names: Readonly<Record<string, string>>
}

const functionOf = ({ name, description, schema, strict }: TranslatedTool): object => ({
  name,
  ...(description === undefined || description === null ? {} : { description }),
  parameters: schema,
  ...(strict === undefined || strict === null ? {} : { strict }),
})

const withText = (json: object, key: string, value: unknown, text: string | undefined): string => {
  const { [key]: _, ...rest } = json as Record<string, unknown>
  const members = JSON.stringify(rest).slice(1, -1)
  return `{${members}${members === '' ? '' : ','}${JSON.stringify(key)}:${text ?? JSON.stringify(value)}}`
}

/** The chat body twice: as values, and as text that keeps the client's spelling of schemas. */
const bodies = ({ body, tools, responseSchema }: Translation): { body: object; bodyText: string } => {
  const functions = tools.map((tool) => ({ type: 'function', function: functionOf(tool) }))
  const format = responseSchema && {
    type: 'json_schema',
    json_schema: { name: responseSchema.name ?? 'answer', schema: responseSchema.schema },
  }
  const texts = tools.map((tool) => {
    const { strict: _, ...rest } = functionOf(tool) as { strict?: boolean }
    const text =
      tool.schema === undefined ? JSON.stringify(rest) : withText(rest, 'parameters', tool.schema, tool.schemaText)
    return `{"type":"function","function":${text}}`
  })
  const parts = [JSON.stringify(body).slice(1, -1)]
  if (tools.length > 0) parts.push(`"tools":[${texts.join(',')}]`)
  if (responseSchema) {
    const { schema, schemaText } = responseSchema
    parts.push(`"response_format":{"json_schema":{"schema":${schemaText ?? JSON.stringify(schema)}}}`)
  }
  return {
    body: {
      ...body,
      ...(tools.length > 0 ? { tools: functions } : {}),
      ...(format ? { response_format: format } : {}),
    },
    bodyText: `{${parts.filter((part) => part !== '').join(',')}}`,
  }
}

/** A chat parameter's path in the client's naming. */
const renamed = (param: string, { messageAt, names }: Translation): string => {
  const [top, index, ...rest] = param.split('.')
  if (top === 'messages' && index !== undefined) {
    // What lies inside a message is named otherwise there; the message is what both sides know.
    return messageAt[Number(index)] ?? 'messages'
  }
  const keys = [top, ...(index === undefined ? [] : [/^\d+$/.test(index) ? '*' : index]), ...rest]
  for (let n = keys.length; n > 0; n--) {
    const found = names[keys.slice(0, n).join('.')]
    if (found !== undefined) return [found.replace('*', index ?? ''), ...keys.slice(n)].join('.')
  }
  return param
}

const inClientsWords = (error: ApiError, translation: Translation): ApiError => {
  if (error.param === undefined) return error
  const param = renamed(error.param, translation)
  return { ...error, param, message: error.message.replaceAll(error.param, param) }
}

/** The run of a translated request, to be answered in `dialect`. Errors: the chat dialect's, with the client's parameters. */
export const parseAsChat = (dialect: string, translation: Translation, context: ParseContext): Result<Run> => {
  const { body, bodyText } = bodies(translation)
  const run = openAiChat.parse(body, { ...context, bodyText })
  if (!run.ok) return { ok: false, error: inClientsWords(run.error, translation) }
  return { ok: true, value: { ...run.value, dialect } }
}

/** What is wrong with a body's shape; a field that the shape does not know is named itself. */
export const shapeFault = (error: z.ZodError): ApiError => {
  const fault = badParameter(error)
  const unknown = /^(.*): Unrecognized keys?: "([^"]+)"/.exec(fault.message)
  if (!unknown) return fault
  const param = [unknown[1], unknown[2]].filter((part) => part).join('.')
  return apiError('invalid_parameter', { message: `${param}: this field is not supported.`, param })
}
