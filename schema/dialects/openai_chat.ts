// The dialect of OpenAI's chat completions, with DeepSeek's fields (thinking, reasoning_content, cache usage).
// Statuses: 400 where the body is no chat request or its conversation cannot be rendered, 422 for a bad parameter, named.
import type { Message, Tool, ToolCall } from '../chat/chat_format.ts'
import { DEFAULT_CHAT_FORMAT } from '../chat/index.ts'
import { rawItems, rawJson } from '../chat/python_json.ts'
import { endsInThinking } from '../chat/think.ts'
import { fail, ok, type Result } from '../errors.ts'
import type { Run } from '../wire.ts'
import type { Dialect, ParseContext } from './dialect.ts'
import {
  badParameter,
  type ChatBody,
  type ChatMessage,
  callerOf,
  chatBodySchema,
  malformed,
  maxTokensOf,
} from './openai_chat_body.ts'
import { openAiErrorBody, openAiStream, openAiWhole } from './openai_chat_format.ts'
import { answerShape } from './openai_chat_shape.ts'
import { samplingOf } from './openai_sampling.ts'

export { openAiUsage } from './openai_chat_format.ts'

import { readShape } from './read_shape.ts'

const textOf = (content: string | readonly { text: string }[] | null | undefined): string =>
  typeof content === 'string' ? content : (content ?? []).map((part) => part.text).join('\n')

type AssistantMessage = Extract<ChatMessage, { role: 'assistant' }>

const toolCallsOf = (message: AssistantMessage): ToolCall[] =>
  (message.tool_calls ?? []).map((call) => ({
    id: call.id,
    name: call.function.name,
    arguments:
      typeof call.function.arguments === 'string' ? call.function.arguments : JSON.stringify(call.function.arguments),
  }))

const messageOf = (message: ChatMessage): Message => {
  const content = textOf(message.content)
  switch (message.role) {
    case 'system':
    case 'developer':
      return { role: 'system', content }
    case 'user':
      return { role: 'user', content }
    case 'tool':
      return { role: 'tool', content, toolCallId: message.tool_call_id }
    case 'assistant':
      return {
        role: 'assistant',
        content,
        reasoning: message.reasoning_content ?? '',
        toolCalls: toolCallsOf(message),
        ...(message.prefix ? { prefix: true } : {}),
      }
  }
}

/** Declared functions as the client spelled them, out of the body's text: zod would put known keys first. */
const toolsOf = (body: ChatBody, bodyText: () => string): Tool[] => {
  const tools = body.tools ?? []
  if (tools.length === 0 || body.tool_choice === 'none') return []
  const texts = rawItems(bodyText(), ['tools'])
  return tools.map((tool, i) => ({
    name: tool.function.name,
    json: rawJson(texts[i] ?? '', ['function']) ?? JSON.stringify(tool.function),
  }))
}

/** The schema as the client spelled it. */
const responseSchemaOf = (bodyText: string): string | undefined =>
  rawJson(bodyText, ['response_format', 'json_schema', 'schema'])

/** What the client says outright counts first, then the effort it asks for, then what the model's name stands for. */
const isThinking = ({ thinking, reasoning_effort }: ChatBody, context: ParseContext): boolean => {
  if (thinking) return thinking.type === 'enabled'
  if (reasoning_effort) return reasoning_effort !== 'none' && reasoning_effort !== 'minimal'
  return context.thinks ?? false
}

/** A prefix is the start of the one answer, so nothing may follow it, and no grammar may begin behind it. */
const prefixFault = ({ messages, response_format, tool_choice }: ChatBody): string | undefined => {
  const at = messages.findIndex((message) => message.role === 'assistant' && message.prefix)
  if (at < 0) return undefined
  const param = `messages.${at}.prefix`
  if (at < messages.length - 1) return `${param}: only the last message can be a prefix`
  if (response_format && response_format.type !== 'text') return `${param}: does not go with response_format`
  const isForced = tool_choice === 'required' || typeof tool_choice === 'object'
  return isForced && tool_choice ? `${param}: does not go with this tool_choice` : undefined
}

const isForced = ({ tool_choice }: ChatBody): boolean =>
  tool_choice === 'required' || (typeof tool_choice === 'object' && tool_choice !== null)

const runOf = (body: ChatBody, bodyText: () => string, context: ParseContext): Result<Run> => {
  const fault = prefixFault(body)
  if (fault) return fail('invalid_parameter', { message: `${fault}.`, param: fault.slice(0, fault.indexOf(':')) })
  const format = context.format ?? DEFAULT_CHAT_FORMAT
  const messages = body.messages.map(messageOf)
  const tools = toolsOf(body, bodyText)
  const responseSchema = body.response_format?.type === 'json_schema' ? responseSchemaOf(bodyText()) : undefined
  const prompt = format.render({
    ...{ messages, tools, thinking: isThinking(body, context) },
    ...(responseSchema === undefined ? {} : { responseSchema }),
  })
  if (!prompt.ok) return prompt
  const thinking = endsInThinking(prompt.value)
  const shape = answerShape(body, thinking)
  if (!shape.ok) return shape
  const grammar = shape.value && format.grammar(shape.value)
  if (grammar?.ok === false) return grammar
  const stream = body.stream ?? false
  return ok({
    requestId: context.requestId,
    created: context.created,
    model: body.model,
    dialect: openAiChat.name,
    chatFormat: format.name,
    prompt: prompt.value,
    thinking,
    ...(tools.length === 0 ? { noCalls: true } : {}),
    stream,
    includeUsage: stream && (body.stream_options?.include_usage ?? false),
    maxTokens: maxTokensOf(body),
    // A call that is demanded is all of the answer, and no stop string can mean its markup.
    ...samplingOf(isForced(body) ? { ...body, stop: null } : body, context.seed),
    topLogprobs: body.logprobs ? (body.top_logprobs ?? 0) : undefined,
    ...callerOf(body),
    ...(grammar ? { grammar: { text: grammar.value.text, marks: [...grammar.value.marks] } } : {}),
  })
}

const parse = (body: unknown, context: ParseContext): Result<Run> => {
  const error = malformed(body)
  if (error) return { ok: false, error }
  const parsed = readShape(chatBodySchema, body)
  if (!parsed.success) return { ok: false, error: badParameter(parsed.error) }
  return runOf(parsed.data, () => context.bodyText ?? JSON.stringify(body), context)
}

export const openAiChat: Dialect = {
  name: 'openai_chat',
  paths: ['/v1/chat/completions', '/chat/completions', '/beta/chat/completions'],
  parse,
  stream: openAiStream,
  whole: openAiWhole,
  errorBody: openAiErrorBody,
  errorFrame: (error) => `data: ${openAiErrorBody(error)}\n\n`,
}
