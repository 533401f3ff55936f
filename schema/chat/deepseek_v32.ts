// DeepSeek-V3.2's chat format (December 2025, DSML tool calls): messages -> prompt text. The way back is in
// deepseek_v32_parser.ts. The tool preamble is Sparrow's own and the one its embedded model was trained with.
import { fail, ok, type Result } from '../errors.ts'
import { argumentsObject } from './call_arguments.ts'
import {
  type ChatFormat,
  type Conversation,
  type Message,
  NO_RESULTS,
  type Tool,
  type ToolCall,
} from './chat_format.ts'
import { deepseekV32Grammar } from './deepseek_v32_grammar.ts'
import { BOS, DSML, EOS } from './deepseek_v32_marks.ts'
import { deepseekV32Parser } from './deepseek_v32_parser.ts'
import { jsonChildren, pythonJson } from './python_json.ts'
import { THINK, THINK_END } from './think.ts'

const USER = '<｜User｜>'
const ASSISTANT = '<｜Assistant｜>'

/** `{functions}` stands for the declared functions, one JSON a line. Kept equal to gpu-node/model/train/tool_preamble.txt. */
export const TOOL_PREAMBLE = `## Tools

You have access to these tools. To call one, write:

<｜DSML｜function_calls>
<｜DSML｜invoke name="NAME">
<｜DSML｜parameter name="KEY" string="true|false">VALUE</｜DSML｜parameter>
</｜DSML｜invoke>
</｜DSML｜function_calls>

string="true" is raw text, string="false" is JSON.

<functions>
{functions}
</functions>
`

/** Added tokens of the family's tokenizers that text can spell. Those not listed (placeholders) all open with `<｜` too. */
const SPECIAL_STRINGS = [
  ...[BOS, EOS, '<｜▁pad▁｜>', USER, ASSISTANT, THINK, THINK_END, DSML, '<|EOT|>'],
  ...['<｜search▁begin｜>', '<｜search▁end｜>', '<｜fim▁hole｜>', '<｜fim▁begin｜>', '<｜fim▁end｜>'],
  ...['<｜tool▁calls▁begin｜>', '<｜tool▁calls▁end｜>', '<｜tool▁call▁begin｜>', '<｜tool▁call▁end｜>'],
  ...['<｜tool▁outputs▁begin｜>', '<｜tool▁outputs▁end｜>', '<｜tool▁output▁begin｜>', '<｜tool▁output▁end｜>'],
  '<｜tool▁sep｜>',
]

const SPECIAL_START = /[<｜](?=(?<=<)｜|(?<=<)\/?think>|(?<=<)\|EOT\|>|(?<=｜)DSML｜)/g
const WORD_JOINER = '\u2060'

/**
 * Client text with every special string broken by a word joiner (U+2060, no width) after its first character, so that
 * the tokenizer reads plain text: `<think>` stays legible, but is never the token. All other text is left as it is.
 * No special string holds a joiner, so none can span one; the template puts none where text could complete it.
 */
export const plainText = (text: string): string => text.toWellFormed().replace(SPECIAL_START, `$&${WORD_JOINER}`)

const toolSection = (tools: readonly Tool[]): string => {
  const lines = tools.map((tool) => plainText(pythonJson(tool.json) ?? tool.json))
  return TOOL_PREAMBLE.replace('{functions}', () => lines.join('\n'))
}

/** As DeepSeek's own encoder words it. */
const responseSection = (schema: string): string =>
  `## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n${plainText(pythonJson(schema) ?? schema)}`

/** One `<｜DSML｜invoke>`; `undefined` when the arguments are no JSON object. */
const renderCall = (call: ToolCall): string | undefined => {
  const members = jsonChildren(argumentsObject(call.arguments) ?? '')
  if (!members) return undefined
  const lines = members.map(({ key, text: json }) => {
    const isString = json.startsWith('"')
    const value = isString ? String(JSON.parse(json)) : (pythonJson(json) ?? json)
    return `<${DSML}parameter name="${plainText(key)}" string="${isString}">${plainText(value)}</${DSML}parameter>\n`
  })
  return `<${DSML}invoke name="${plainText(call.name)}">\n${lines.join('')}</${DSML}invoke>\n`
}

/** Results in the order of the calls they answer (the format carries no ids), or the index of the one that answers none. */
const orderResults = (
  calls: readonly ToolCall[],
  results: readonly { content: string; toolCallId: string }[],
): readonly string[] | number => {
  const ordered: (string | undefined)[] = calls.map(() => undefined)
  for (const [i, result] of results.entries()) {
    const slot = calls.findIndex((call, j) => call.id === result.toolCallId && ordered[j] === undefined)
    if (slot < 0) return i
    ordered[slot] = result.content
  }
  return ordered.filter((text) => text !== undefined)
}

type Assistant = Extract<Message, { role: 'assistant' }>
type Fault = { readonly message: string; readonly param: string }

/** Writes turns one after the other. `last` is the index of the last user turn: from there on reasoning is kept. */
class Writer {
  readonly parts: string[] = []
  readonly #thinking: boolean
  readonly #last: number
  /** True while the prompt ends in an open assistant turn. */
  open = false
  #calls: readonly ToolCall[] = []

  constructor(thinking: boolean, last: number) {
    this.#thinking = thinking
    this.#last = last
  }

  #tag(index: number): string {
    this.open = true
    return this.#thinking && index >= this.#last ? THINK : THINK_END
  }

  /** Calls of the assistant message at work that no result answers yet. */
  get isWaiting(): boolean {
    return this.#calls.length > 0
  }

  user(index: number, text: string): void {
    this.parts.push(USER, plainText(text), ASSISTANT, this.#tag(index))
    this.#calls = []
  }

  /** Opens an assistant turn where no user or tool turn did. */
  openAssistant(index: number): void {
    if (!this.open) this.parts.push(ASSISTANT, this.#tag(index))
  }

  assistant(index: number, message: Assistant): Fault | undefined {
    this.openAssistant(index)
    if (message.prefix) return this.#prefix(index, message)
    this.open = false
    this.#calls = message.toolCalls ?? []
    if (this.#thinking && index >= this.#last) this.parts.push(plainText(message.reasoning ?? ''), THINK_END)
    this.parts.push(plainText(message.content))
    if (this.#calls.length > 0) {
      const calls = this.#calls.map(renderCall)
      const bad = calls.indexOf(undefined)
      if (bad >= 0) return { message: 'must be a JSON object', param: `tool_calls.${bad}.function.arguments` }
      this.parts.push(`\n\n<${DSML}function_calls>\n${calls.join('')}</${DSML}function_calls>`)
    }
    this.parts.push(EOS)
    return undefined
  }

  /** The start of an answer that goes on; reasoning without content goes on as reasoning. */
  #prefix(index: number, { reasoning = '', content }: Assistant): undefined {
    if (!this.#thinking || index < this.#last) this.parts.push(plainText(content))
    else this.parts.push(plainText(reasoning), ...(content === '' ? [] : [THINK_END, plainText(content)]))
  }

  /** All results of one turn; a fault's `param` starts with the result's position in `results`. */
  tools(index: number, results: readonly Extract<Message, { role: 'tool' }>[]): Fault | undefined {
    const ordered = orderResults(this.#calls, results)
    if (typeof ordered === 'number')
      return { message: 'answers no tool call of the assistant message before it', param: `${ordered}.tool_call_id` }
    if (ordered.length < this.#calls.length) return { message: NO_RESULTS, param: String(results.length - 1) }
    const lines = ordered.map((text) => `\n<result>${plainText(text)}</result>`)
    this.parts.push('\n\n<function_results>', ...lines, '\n</function_results>\n\n', this.#tag(index))
    this.#calls = []
    return undefined
  }
}

const notRendered = (fault: Fault) =>
  fail('invalid_request', { message: `${fault.param}: ${fault.message}.`, param: fault.param })

const renderTurns = (writer: Writer, messages: readonly Message[], first: number): Fault | undefined => {
  for (let i = first; i < messages.length; i++) {
    const message = messages[i]
    if (!message) break
    if (message.role !== 'tool' && writer.isWaiting) return { message: NO_RESULTS, param: `messages.${i - 1}` }
    if (message.role === 'assistant') {
      const fault = writer.assistant(i, message)
      if (fault) return { ...fault, param: `messages.${i}.${fault.param}` }
    } else if (message.role === 'tool') {
      const results = [message]
      for (let next = messages[i + 1]; next?.role === 'tool'; next = messages[i + results.length]) results.push(next)
      const fault = writer.tools(i, results)
      const [at = '0', ...rest] = fault?.param.split('.') ?? []
      if (fault) return { ...fault, param: ['messages', i + Number(at), ...rest].join('.') }
      i += results.length - 1
    } else {
      writer.user(i, message.content)
    }
  }
  return undefined
}

/**
 * Rules beyond DeepSeek's encoder, for what it leaves undefined: leading system messages are joined by a blank line; a
 * later one is a turn of its own, like a user's, so that the prompt before it stays cached; an assistant turn is opened
 * where nothing opened it; reasoning missing inside a tool loop is empty.
 */
const render = ({ messages, tools, thinking, responseSchema }: Conversation): Result<string> => {
  const firstTurn = messages.findIndex((message) => message.role !== 'system')
  const first = firstTurn < 0 ? messages.length : firstTurn
  const system = messages.slice(0, first).map((message) => plainText(message.content))
  if (tools.length > 0) system.splice(0, system.length, `${system.join('\n\n')}\n\n${toolSection(tools)}`)
  if (responseSchema !== undefined)
    system.splice(0, system.length, [...system, responseSection(responseSchema)].join('\n\n'))
  const last = messages.findLastIndex((message) => message.role === 'user' || message.role === 'system')
  const writer = new Writer(thinking, last)
  const fault = renderTurns(writer, messages, first)
  if (fault) return notRendered(fault)
  if (messages.at(-1)?.role === 'assistant' && !writer.open)
    return notRendered({
      message: writer.isWaiting ? NO_RESULTS : 'the last message must be of role user or tool, or a prefix',
      param: `messages.${messages.length - 1}`,
    })
  writer.openAssistant(messages.length)
  return ok([BOS, system.join('\n\n'), ...writer.parts].join(''))
}

export const deepseekV32: ChatFormat = {
  name: 'deepseek_v32',
  bos: BOS,
  specialStrings: SPECIAL_STRINGS,
  render,
  parser: deepseekV32Parser,
  grammar: deepseekV32Grammar,
}
