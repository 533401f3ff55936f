// What a chat format is: how messages become prompt text, and how token text becomes reasoning, content and tool calls.
// To add one: write schema/chat/<name>.ts, add its line to schema/chat/index.ts.
import type { Delta } from '../dialects/dialect.ts'
import type { Result } from '../errors.ts'

export interface ToolCall {
  readonly id: string
  readonly name: string
  /** JSON text, as the client sent it or as the model wrote it. */
  readonly arguments: string
}

/** What is wrong with calls that nothing answers. */
export const NO_RESULTS = 'must be followed by a result for each tool call'

export type Message =
  | { readonly role: 'system' | 'user'; readonly content: string }
  | {
      readonly role: 'assistant'
      readonly content: string
      readonly reasoning?: string
      readonly toolCalls?: readonly ToolCall[]
      /** The last message only: the answer goes on where it ends. */
      readonly prefix?: boolean
    }
  | { readonly role: 'tool'; readonly content: string; readonly toolCallId: string }

export interface Tool {
  readonly name: string
  /** The inner `function` object as JSON text in the client's own key order. */
  readonly json: string
}

export interface Conversation {
  readonly messages: readonly Message[]
  readonly tools: readonly Tool[]
  readonly thinking: boolean
  /** JSON text of the schema that the answer will be held to. */
  readonly responseSchema?: string
}

/** Incremental parser of one answer. Holds back text that may be the start of a tag or a stop string. */
export interface AnswerParser {
  /** `unstopped`: stop strings do not count in this text, nor across its end. */
  push(text: string, unstopped?: boolean): Delta[]
  /**
   * Flushes what was held back; tells how many (complete) tool calls there were, whether the text broke off within one more,
   * whose arguments are no whole JSON then, and the stop string that cut the text.
   */
  end(): { deltas: Delta[]; toolCalls: number; isCallCut: boolean; stop: string | undefined }
  /** A stop string was seen: whatever follows is not part of the answer. */
  readonly stopped: boolean
  /** True while inside the think tags: tokens sampled now are reasoning tokens. */
  readonly inReasoning: boolean
}

export interface ParserOptions {
  /** Start state, told by the last token of the rendered prompt. */
  readonly thinking: boolean
  /** Stop strings to cut from the answer (the engine ended the run at the token that completed one). */
  readonly stop: readonly string[]
  /** No tool may be called: a call's markup is text like any other. */
  readonly noCalls?: boolean
  /** Makes ids of tool calls unique: the request id. */
  readonly requestId: string
  /** Strings that end the answer; a format of its own knows them itself. */
  readonly ends?: readonly string[]
  /** Pieces of text tell where in the pushed text they stood. */
  readonly withSource?: boolean
}

/** What the client demands of an answer's shape; `at` is where the client wrote a schema, for errors. */
export interface AnswerShape {
  readonly thinking: boolean
  /** The answer itself is JSON; `schema: undefined` means any object. */
  readonly response: { readonly schema: unknown; readonly at: string } | undefined
  readonly tools: readonly ToolShape[]
  /** May call tools, must call one or more, or must call the one of that name, once. */
  readonly choice: 'auto' | 'required' | { readonly name: string }
  /** More than one call in an answer. */
  readonly parallel: boolean
}

export interface ToolShape {
  readonly name: string
  readonly schema: unknown
  /** False: where the schema has no grammar, whatever arguments too. */
  readonly strict: boolean
  readonly at: string
}

/** A grammar of an answer's token text. */
export interface AnswerGrammar {
  /** EBNF; character n + 1 stands for `marks[n]`. */
  readonly text: string
  /** Special strings that count only as tokens of their own. */
  readonly marks: readonly string[]
}

export interface ChatFormat {
  readonly name: string
  /** What every prompt begins with. */
  readonly bos: string
  /** Strings that a client's text must not smuggle in as special tokens; the node encodes them as plain text. */
  readonly specialStrings: readonly string[]
  /** Errors: invalid_request with `param` where the conversation cannot be rendered. */
  render(conversation: Conversation): Result<string>
  parser(options: ParserOptions): AnswerParser
  /** Every text of the grammar is one that `parser` takes apart as asked. Errors: invalid_request naming the keyword. */
  grammar(shape: AnswerShape): Result<AnswerGrammar>
}
