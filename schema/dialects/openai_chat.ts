// The dialect of OpenAI's chat completions, with DeepSeek's fields (thinking, reasoning_content, cache usage).
// Statuses: 400 where the body is no chat request or its conversation cannot be rendered, 422 for a bad parameter, named.
import type { Message, Tool, ToolCall } from '../chat/chat_format.ts'
import { DEFAULT_CHAT_FORMAT } from '../chat/index.ts'
import { jsonChildren } from '../chat/python_json.ts'
import { ok, type Result } from '../errors.ts'
import type { Run } from '../wire.ts'
import type { Dialect, ParseContext } from './dialect.ts'
import {
  badParameter,
  type ChatBody,
  type ChatMessage,
  chatBodySchema,
  isObject,
  malformed,
  maxTokensOf,
  unsupported,
} from './openai_chat_body.ts'
import { openAiErrorBody, openAiStream, openAiWhole } from './openai_chat_format.ts'
import { answerShape } from './openai_chat_shape.ts'

export { openAiUsage } from './openai_chat_format.ts'

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
      }
  }
}

const child = (text: string | undefined, key: string): string | undefined =>
  text === undefined ? undefined : jsonChildren(text)?.find((entry) => entry.key === key)?.text

/** Declared functions as the client spelled them, out of the body's text: zod would put known keys first. */
const toolsOf = (body: ChatBody, bodyText: () => string): Tool[] => {
  const tools = body.tools ?? []
  if (tools.length === 0 || body.tool_choice === 'none') return []
  const texts = jsonChildren(child(bodyText(), 'tools') ?? '') ?? []
  return tools.map((tool, i) => ({
    name: tool.function.name,
    json: child(texts[i]?.text, 'function') ?? JSON.stringify(tool.function),
  }))
}

/** The schema as the client spelled it. */
const responseSchemaOf = (bodyText: string): string | undefined =>
  child(child(child(bodyText, 'response_format'), 'json_schema'), 'schema')

/** `undefined` where the value changes nothing. */
const unless = <T>(value: T | null | undefined, neutral: T): T | undefined =>
  value === null || value === neutral ? undefined : value

const FLEX_PRIORITY = -1

const samplingOf = (body: ChatBody, seed: string) => ({
  temperature: body.temperature ?? 1,
  topP: body.top_p ?? 1,
  seed: body.seed === undefined || body.seed === null ? seed : BigInt.asUintN(64, BigInt(body.seed)).toString(),
  stop: typeof body.stop === 'string' ? [body.stop] : (body.stop ?? []),
  n: unless(body.n, 1),
  topK: (body.top_k ?? 0) > 0 ? (body.top_k ?? undefined) : undefined,
  minP: unless(body.min_p, 0),
  frequencyPenalty: unless(body.frequency_penalty, 0),
  presencePenalty: unless(body.presence_penalty, 0),
  repetitionPenalty: unless(body.repetition_penalty, 1),
  logitBias: Object.keys(body.logit_bias ?? {}).length > 0 ? (body.logit_bias ?? undefined) : undefined,
  minTokens: unless(body.min_tokens, 0),
  ignoreEos: unless(body.ignore_eos, false),
  topLogprobs: body.logprobs ? (body.top_logprobs ?? 0) : undefined,
  priority: body.service_tier === 'flex' ? FLEX_PRIORITY : undefined,
  deadlineMs: body.deadline_ms ?? undefined,
})

const runOf = (body: ChatBody, bodyText: () => string, context: ParseContext): Result<Run> => {
  const thinking = body.thinking?.type === 'enabled'
  const messages = body.messages.map(messageOf)
  const shape = answerShape(body)
  if (!shape.ok) return shape
  const grammar = shape.value && DEFAULT_CHAT_FORMAT.grammar(shape.value)
  if (grammar?.ok === false) return grammar
  const responseSchema = body.response_format?.type === 'json_schema' ? responseSchemaOf(bodyText()) : undefined
  const prompt = DEFAULT_CHAT_FORMAT.render({
    ...{ messages, tools: toolsOf(body, bodyText), thinking },
    ...(responseSchema === undefined ? {} : { responseSchema }),
  })
  if (!prompt.ok) return prompt
  const stream = body.stream ?? false
  return ok({
    requestId: context.requestId,
    created: context.created,
    model: body.model,
    dialect: openAiChat.name,
    chatFormat: DEFAULT_CHAT_FORMAT.name,
    prompt: prompt.value,
    thinking,
    stream,
    includeUsage: stream && (body.stream_options?.include_usage ?? false),
    maxTokens: maxTokensOf(body),
    ...samplingOf(body, context.seed),
    ...(grammar ? { grammar: { text: grammar.value.text, marks: [...grammar.value.marks] } } : {}),
  })
}

const parse = (body: unknown, context: ParseContext): Result<Run> => {
  const error = malformed(body) ?? (isObject(body) ? unsupported(body) : undefined)
  if (error) return { ok: false, error }
  const parsed = chatBodySchema.safeParse(body)
  if (!parsed.success) return { ok: false, error: badParameter(parsed.error) }
  return runOf(parsed.data, () => context.bodyText ?? JSON.stringify(body), context)
}

export const openAiChat: Dialect = {
  name: 'openai_chat',
  paths: ['/v1/chat/completions', '/chat/completions'],
  parse,
  stream: openAiStream,
  whole: openAiWhole,
  errorBody: openAiErrorBody,
  errorFrame: (error) => `data: ${openAiErrorBody(error)}\n\n`,
}
