// The dialect of Anthropic's Messages. A request is translated into a chat request (chat_translation.ts); the answer has Anthropic's
// blocks, events, usage and errors (anthropic_format.ts).
import { rawItems, rawJson } from '../chat/python_json.ts'
import { fail, ok, type Result } from '../errors.ts'
import type { Run } from '../wire.ts'
import { type AnthropicBody, type AnthropicCount, anthropicBodySchema, anthropicCountSchema } from './anthropic_body.ts'
import {
  anthropicError,
  anthropicErrorFrame,
  anthropicStatus,
  anthropicStream,
  anthropicWhole,
} from './anthropic_format.ts'
import { parseAsChat, shapeFault, type Translation } from './chat_translation.ts'
import type { Dialect, ParseContext } from './dialect.ts'
import { isObject, noObject } from './openai_chat_body.ts'
import { readShape } from './read_shape.ts'

type TextPart = { readonly type: 'text'; readonly text: string }
type ChatMessage =
  | { role: 'system'; content: TextPart[] }
  | { role: 'user'; content: TextPart[] }
  | { role: 'tool'; content: string | TextPart[]; tool_call_id: string }
  | { role: 'assistant'; content: TextPart[] | string; reasoning_content: string; tool_calls: object[]; prefix?: true }

/** Messages of a chat, and where the client wrote each. */
class Conversation {
  readonly messages: ChatMessage[] = []
  readonly at: string[] = []

  add(message: ChatMessage, at: string): void {
    this.messages.push(message)
    this.at.push(at)
  }

  /** Neighbouring user messages are one turn, as Anthropic has it. */
  user(parts: TextPart[], at: string): void {
    const last = this.messages.at(-1)
    if (last?.role === 'user') last.content.push(...parts)
    else this.add({ role: 'user', content: parts }, at)
  }
}

const partsOf = (content: string | readonly TextPart[]): TextPart[] =>
  typeof content === 'string' ? [{ type: 'text', text: content }] : content.map(({ text }) => ({ type: 'text', text }))

type Message = AnthropicCount['messages'][number]
type UserMessage = Extract<Message, { role: 'user' }>
type AssistantMessage = Extract<Message, { role: 'assistant' }>
type ToolResult = Extract<Exclude<UserMessage['content'], string>[number], { type: 'tool_result' }>

const resultText = ({ content, is_error }: ToolResult): string => {
  const text = partsOf(content ?? '').map((part) => part.text)
  return `${is_error ? 'Error: ' : ''}${text.join('\n')}`
}

/** Error: invalid_request where a result does not come before the text. */
const addUser = (chat: Conversation, { content }: UserMessage, at: string): Result<void> => {
  if (typeof content === 'string') return ok(chat.user(partsOf(content), at))
  let textAt: number | undefined
  for (const [i, block] of content.entries()) {
    if (block.type === 'text') {
      textAt ??= i
      chat.user(partsOf([block]), `${at}.content.${i}`)
    } else if (textAt === undefined) {
      chat.add({ role: 'tool', content: resultText(block), tool_call_id: block.tool_use_id }, `${at}.content.${i}`)
    } else {
      const param = `${at}.content.${i}`
      return fail('invalid_request', { message: `${param}: tool_result blocks come before text.`, param })
    }
  }
  return ok(undefined)
}

/** `text`: the message as the client wrote it, whose calls keep the order of their keys and numbers that JavaScript would round. */
const addAssistant = (chat: Conversation, { content }: AssistantMessage, at: string, text: () => string): void => {
  const blocks = typeof content === 'string' ? [{ type: 'text' as const, text: content }] : content
  const texts = blocks.filter((block) => block.type === 'text')
  const given = blocks.some(({ type }) => type === 'tool_use') ? rawItems(text(), ['content']) : []
  const calls = blocks.flatMap((block, i) => {
    if (block.type !== 'tool_use') return []
    const json = rawJson(given[i] ?? '', ['input']) ?? JSON.stringify(block.input)
    return [{ id: block.id, type: 'function', function: { name: block.name, arguments: json } }]
  })
  const reasoning = blocks.map((block) => (block.type === 'thinking' ? block.thinking : '')).join('')
  const parts = texts.length > 0 ? partsOf(texts) : ''
  chat.add({ role: 'assistant', content: parts, reasoning_content: reasoning, tool_calls: calls }, at)
}

const conversationOf = (body: AnthropicCount, bodyText: string): Result<Conversation> => {
  const chat = new Conversation()
  let texts: string[] | undefined
  const textAt = (i: number): string => {
    texts ??= rawItems(bodyText, ['messages'])
    return texts[i] ?? ''
  }
  const system = partsOf(body.system ?? [])
  if (system.length > 0) chat.add({ role: 'system', content: system }, 'system')
  for (const [i, message] of body.messages.entries()) {
    if (message.role === 'assistant') addAssistant(chat, message, `messages.${i}`, () => textAt(i))
    else {
      const added = addUser(chat, message, `messages.${i}`)
      if (!added.ok) return added
    }
  }
  // Anthropic goes on with a last assistant message; the chat dialect calls that a prefix. Calls have to be answered first.
  const last = chat.messages.at(-1)
  if (last?.role === 'assistant' && last.tool_calls.length === 0) last.prefix = true
  return ok(chat)
}

const choiceOf = (choice: AnthropicCount['tool_choice']): object => {
  if (!choice) return {}
  const name = choice.type === 'tool' ? { type: 'function', function: { name: choice.name } } : undefined
  const parallel = choice.type !== 'none' && choice.disable_parallel_tool_use ? { parallel_tool_calls: false } : {}
  return { tool_choice: name ?? (choice.type === 'any' ? 'required' : choice.type), ...parallel }
}

const NAMES = {
  'tools.*.function.parameters': 'tools.*.input_schema',
  'tools.*.function': 'tools.*',
  'response_format.json_schema.schema': 'output_config.format.schema',
  stop: 'stop_sequences',
  thinking: 'thinking',
} as const

const translate = (body: AnthropicCount & Partial<AnthropicBody>, bodyText: string): Result<Translation> => {
  const chat = conversationOf(body, bodyText)
  if (!chat.ok) return chat
  const { thinking } = body
  const format = body.output_config?.format
  const toolTexts = body.tools?.length ? rawItems(bodyText, ['tools']) : []
  return ok({
    body: {
      model: body.model,
      messages: chat.value.messages,
      ...(thinking ? { thinking: { type: thinking.type === 'disabled' ? 'disabled' : 'enabled' } } : {}),
      ...choiceOf(body.tool_choice),
      max_tokens: body.max_tokens ?? 1,
      stop: body.stop_sequences,
      stream: body.stream,
      ...{ temperature: body.temperature, top_p: body.top_p, top_k: body.top_k },
      user: body.metadata?.user_id,
    },
    tools: (body.tools ?? []).map(({ name, description, input_schema, strict }, i) => ({
      ...{ name, description, strict, schema: input_schema },
      schemaText: rawJson(toolTexts[i] ?? '', ['input_schema']),
    })),
    ...(format
      ? {
          responseSchema: {
            schema: format.schema,
            schemaText: rawJson(bodyText, ['output_config', 'format', 'schema']),
          },
        }
      : {}),
    messageAt: chat.value.at,
    names: NAMES,
  })
}

const parseWith =
  (schema: typeof anthropicBodySchema | typeof anthropicCountSchema) =>
  (body: unknown, context: ParseContext): Result<Run> => {
    if (!isObject(body)) return noObject
    const parsed = readShape(schema, body)
    if (!parsed.success) return { ok: false, error: shapeFault(parsed.error) }
    const translated = translate(parsed.data, context.bodyText ?? JSON.stringify(body))
    return translated.ok ? parseAsChat('anthropic_messages', translated.value, context) : translated
  }

/** `POST .../count_tokens`: the prompt that such a request would have. */
export const parseAnthropicCount = parseWith(anthropicCountSchema)

export const anthropic: Dialect = {
  name: 'anthropic_messages',
  // Some clients have the version in their base URL, and leave it out of that of another service.
  paths: ['/v1/messages', '/anthropic/v1/messages', '/anthropic/messages'],
  parse: parseWith(anthropicBodySchema),
  stream: anthropicStream,
  whole: anthropicWhole,
  status: anthropicStatus,
  errorBody: anthropicError,
  errorFrame: anthropicErrorFrame,
}
