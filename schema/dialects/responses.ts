// The dialect of OpenAI's Responses, stateless. A request is translated into a chat request (chat_translation.ts); the answer is a list
// of output items, or the typed events that build it (responses_format.ts).
import type { z } from 'zod'
import { rawItems, rawJson } from '../chat/python_json.ts'
import { ok, type Result } from '../errors.ts'
import type { Run } from '../wire.ts'
import { parseAsChat, shapeFault, type Translation } from './chat_translation.ts'
import type { Dialect, ParseContext } from './dialect.ts'
import { isObject, noObject } from './openai_chat_body.ts'
import { openAiErrorBody } from './openai_chat_format.ts'
import { readShape } from './read_shape.ts'
import { type ResponsesBody, type ResponsesItem, responsesBodySchema, responsesCountSchema } from './responses_body.ts'
import { responsesErrorFrame, responsesStream, responsesWhole } from './responses_format.ts'

type Assistant = { role: 'assistant'; content: string; reasoning_content: string; tool_calls: object[] }
type ChatMessage =
  | { role: 'system' | 'developer' | 'user'; content: string }
  | { role: 'tool'; content: string; tool_call_id: string }
  | Assistant

type Content = Extract<ResponsesItem, { role: unknown }>['content']
const textOf = (content: Content): string =>
  typeof content === 'string' ? content : content.map(({ text }) => text).join('\n')

/** Chat messages out of items: what the model said between two turns of others is one message. */
class Conversation {
  readonly messages: ChatMessage[] = []
  readonly at: string[] = []

  add(message: ChatMessage, at: string): void {
    this.messages.push(message)
    this.at.push(at)
  }

  assistant(at: string): Assistant {
    const last = this.messages.at(-1)
    if (last?.role === 'assistant') return last
    const message: Assistant = { role: 'assistant', content: '', reasoning_content: '', tool_calls: [] }
    this.add(message, at)
    return message
  }

  item(item: ResponsesItem, at: string): void {
    if (item.type === 'function_call') {
      const call = { name: item.name, arguments: item.arguments }
      this.assistant(at).tool_calls.push({ id: item.call_id, type: 'function', function: call })
    } else if (item.type === 'function_call_output') {
      this.add({ role: 'tool', content: textOf(item.output), tool_call_id: item.call_id }, at)
    } else if (item.type === 'reasoning') {
      const parts = item.content?.length ? item.content : (item.summary ?? [])
      this.assistant(at).reasoning_content += parts.map(({ text }) => text).join('\n')
    } else if (item.role === 'assistant') {
      this.assistant(at).content += textOf(item.content)
    } else {
      this.add({ role: item.role, content: textOf(item.content) }, at)
    }
  }
}

const conversationOf = ({ instructions, input }: Asked): Conversation => {
  const chat = new Conversation()
  if (instructions) chat.add({ role: 'system', content: instructions }, 'instructions')
  if (typeof input === 'string') chat.add({ role: 'user', content: input }, 'input')
  else for (const [i, item] of input.entries()) chat.item(item, `input.${i}`)
  return chat
}

type Asked = Pick<ResponsesBody, 'model' | 'input'> & Partial<ResponsesBody>

const NAMES = {
  'tools.*.function': 'tools.*',
  'response_format.json_schema': 'text.format',
  response_format: 'text.format',
  max_tokens: 'max_output_tokens',
  reasoning_effort: 'reasoning.effort',
}

const wantsLogprobs = ({ include, top_logprobs }: Partial<ResponsesBody>): boolean =>
  (include?.includes('message.output_text.logprobs') ?? false) || (top_logprobs ?? 0) > 0

const translate = (body: Asked, bodyText: string): Translation => {
  const chat = conversationOf(body)
  const { tool_choice: choice, reasoning, text } = body
  const named = typeof choice === 'object' && choice ? { type: 'function', function: { name: choice.name } } : choice
  const format = text?.format
  const toolTexts = body.tools?.length ? rawItems(bodyText, ['tools']) : []
  return {
    body: {
      model: body.model,
      messages: chat.messages,
      reasoning_effort: reasoning?.effort,
      ...{ tool_choice: named, parallel_tool_calls: body.parallel_tool_calls, max_tokens: body.max_output_tokens },
      ...(wantsLogprobs(body) ? { logprobs: true, top_logprobs: body.top_logprobs ?? 0 } : {}),
      ...(format?.type === 'json_object' ? { response_format: { type: 'json_object' } } : {}),
      ...{ temperature: body.temperature, top_p: body.top_p, stream: body.stream },
      ...{ user: body.user ?? body.safety_identifier, prompt_cache_key: body.prompt_cache_key },
    },
    tools: (body.tools ?? []).map(({ name, description, parameters, strict }, i) => ({
      ...{ name, description, strict, schema: parameters ?? undefined },
      schemaText: rawJson(toolTexts[i] ?? '', ['parameters']),
    })),
    ...(format?.type === 'json_schema'
      ? {
          responseSchema: {
            schema: format.schema,
            schemaText: rawJson(bodyText, ['text', 'format', 'schema']),
            name: format.name,
          },
        }
      : {}),
    messageAt: chat.at,
    names: NAMES,
  }
}

/** The fields of a request that its answer repeats. */
const echoOf = (body: ResponsesBody): object => ({
  instructions: body.instructions ?? null,
  max_output_tokens: body.max_output_tokens ?? null,
  max_tool_calls: body.max_tool_calls ?? null,
  metadata: body.metadata ?? {},
  parallel_tool_calls: body.parallel_tool_calls ?? true,
  previous_response_id: null,
  prompt_cache_key: body.prompt_cache_key ?? null,
  reasoning: { effort: body.reasoning?.effort ?? null, summary: body.reasoning?.summary ?? null },
  safety_identifier: body.safety_identifier ?? null,
  service_tier: 'default',
  store: false,
  temperature: body.temperature ?? 1,
  text: { format: body.text?.format ?? { type: 'text' }, verbosity: 'medium' },
  tool_choice: body.tool_choice ?? 'auto',
  tools: (body.tools ?? []).map(({ type, name, description, parameters, strict }) => ({
    ...{ type, name, description: description ?? null, parameters: parameters ?? null, strict: strict ?? false },
  })),
  top_logprobs: body.top_logprobs ?? 0,
  top_p: body.top_p ?? 1,
  truncation: 'disabled',
  ...(body.user ? { user: body.user } : {}),
})

const read = <T>(schema: z.ZodType<T>, body: unknown): Result<T> => {
  if (!isObject(body)) return noObject
  const parsed = readShape(schema, body)
  return parsed.success ? ok(parsed.data) : { ok: false, error: shapeFault(parsed.error) }
}

const parse = (body: unknown, context: ParseContext): Result<Run> => {
  const asked = read(responsesBodySchema, body)
  if (!asked.ok) return asked
  const translation = translate(asked.value, context.bodyText ?? JSON.stringify(body))
  const run = parseAsChat(responses.name, translation, context)
  return run.ok ? ok({ ...run.value, echo: JSON.stringify(echoOf(asked.value)) }) : run
}

/** `POST /v1/responses/input_tokens`: the prompt that such a request would have. */
export const parseResponsesCount = (body: unknown, context: ParseContext): Result<Run> => {
  const asked = read(responsesCountSchema, body)
  if (!asked.ok) return asked
  return parseAsChat(responses.name, translate(asked.value, context.bodyText ?? JSON.stringify(body)), context)
}

export const responses: Dialect = {
  name: 'openai_responses',
  paths: ['/v1/responses', '/responses'],
  parse,
  stream: responsesStream,
  whole: responsesWhole,
  errorBody: openAiErrorBody,
  errorFrame: responsesErrorFrame,
}
