// The chat format of a checkpoint that brings a Jinja template: prompts by that template, answers by the tags that such models write.
// The template is code of whoever made the checkpoint: the library interprets it, without access to anything but its arguments.

import { Template } from '@huggingface/jinja'
import { fail, ok, type Result } from '../errors.ts'
import { parseJson } from '../text.ts'
import { argumentsObject } from './call_arguments.ts'
import { type ChatFormat, type Conversation, type Message, NO_RESULTS } from './chat_format.ts'
import { CALL_CLOSE, CALL_OPEN, taggedParser } from './tagged_parser.ts'
import { templateGrammar } from './template_grammar.ts'
import { type TemplateSource, templateName } from './template_source.ts'
import { endsInThinking, THINK, THINK_END } from './think.ts'

const WORD_JOINER = '\u2060'
const escapeRegExp = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')

/** Client text in which every special string is broken by a character of no width, so that it is never the token. */
const breaker = (specials: readonly string[]): ((text: string) => string) => {
  const longestFirst = [...new Set([...specials, THINK, THINK_END, CALL_OPEN, CALL_CLOSE])]
    .filter((text) => text.trim() !== '')
    .sort((a, b) => b.length - a.length)
  const pattern = new RegExp(longestFirst.map(escapeRegExp).join('|'), 'g')
  const broken = (found: string): string => {
    const first = String.fromCodePoint(found.codePointAt(0) ?? 0)
    return first + WORD_JOINER + found.slice(first.length)
  }
  return (text) => {
    let plain = text.toWellFormed()
    // Breaking one may leave another inside it.
    for (let i = 0; i < 8 && plain.search(pattern) >= 0; i++) plain = plain.replace(pattern, broken)
    return plain
  }
}

type Plain = (text: string) => string

const deeply = (value: unknown, plain: Plain): unknown => {
  if (typeof value === 'string') return plain(value)
  if (Array.isArray(value)) return value.map((item) => deeply(item, plain))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [plain(key), deeply(inner, plain)]))
}

/** A message in the shape that templates expect; undefined where a call's arguments are no JSON object. */
const messageFor = (message: Message, plain: Plain): object | undefined => {
  const content = plain(message.content)
  if (message.role === 'tool') return { role: 'tool', content, tool_call_id: plain(message.toolCallId) }
  if (message.role !== 'assistant') return { role: message.role, content }
  const calls = (message.toolCalls ?? []).map(({ id, name, arguments: json }) => {
    const args = parseJson(argumentsObject(json) ?? '')
    return { id: plain(id), type: 'function', function: { name: plain(name), arguments: deeply(args, plain) }, args }
  })
  if (calls.some(({ args }) => args === undefined)) return undefined
  return {
    role: 'assistant',
    content,
    ...(message.reasoning ? { reasoning_content: plain(message.reasoning) } : {}),
    ...(calls.length > 0 ? { tool_calls: calls.map(({ args: _, ...call }) => call) } : {}),
  }
}

const refused = (param: string, message: string) => fail('invalid_request', { message: `${param}: ${message}.`, param })

/** With the schema that the answer is held to told in a system message, as no template does by itself. */
const withSchema = (messages: readonly Message[], schema: string | undefined): readonly Message[] => {
  if (schema === undefined) return messages
  const text = `Answer with JSON that follows this schema:\n${schema}`
  const [first, ...rest] = messages
  if (first?.role !== 'system') return [{ role: 'system', content: text }, ...messages]
  return [{ role: 'system', content: `${first.content}\n\n${text}` }, ...rest]
}

/** What a client began of the answer goes behind the prompt. */
const prefixText = (prompt: string, last: Message | undefined, plain: Plain): string => {
  if (last?.role !== 'assistant') return ''
  const content = plain(last.content)
  if (!endsInThinking(prompt)) return content
  return plain(last.reasoning ?? '') + (content === '' ? '' : `${THINK_END}${content}`)
}

const renderWith =
  (template: Template, { bos, eos }: TemplateSource, plain: Plain) =>
  ({ messages, tools, thinking, responseSchema }: Conversation): Result<string> => {
    const last = messages.at(-1)
    const isPrefix = last?.role === 'assistant' && last.prefix === true
    const param = `messages.${messages.length - 1}`
    if (last?.role === 'assistant' && !isPrefix) {
      const isWaiting = (last.toolCalls ?? []).length > 0
      return refused(param, isWaiting ? NO_RESULTS : 'the last message must be of role user or tool, or a prefix')
    }
    const shown = withSchema(isPrefix ? messages.slice(0, -1) : messages, responseSchema)
    const written = shown.map((message) => messageFor(message, plain))
    const bad = written.indexOf(undefined)
    if (bad >= 0) return refused(`messages.${bad}.tool_calls`, 'arguments must be a JSON object')
    const functions = tools.map(({ json }) => ({ type: 'function', function: deeply(parseJson(json), plain) }))
    try {
      const prompt = template.render({
        messages: written,
        ...(functions.length > 0 ? { tools: functions } : {}),
        ...{ add_generation_prompt: true, bos_token: bos, eos_token: eos },
        ...{ thinking, enable_thinking: thinking },
      })
      return ok(prompt + (isPrefix ? prefixText(prompt, last, plain) : ''))
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      return refused('messages', `the model's chat template does not take them: ${why.slice(0, 300)}`)
    }
  }

/** Throws where the template cannot be read. */
export const templateFormat = (source: TemplateSource): ChatFormat => {
  const template = new Template(source.template)
  const plain = breaker(source.specials)
  return {
    name: templateName(source),
    bos: source.bos,
    specialStrings: source.specials,
    render: renderWith(template, source, plain),
    parser: (options) => taggedParser(options, { think: true, calls: !options.noCalls }),
    grammar: (shape) => templateGrammar(shape, source.specials),
  }
}
