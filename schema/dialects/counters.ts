// The registry of endpoints that only count tokens: one entry each. They are answered by a node, which owns the tokenizer, and are free.
import type { Result } from '../errors.ts'
import type { TokenizeAnswer } from '../wire.ts'
import { anthropic, parseAnthropicCount } from './anthropic.ts'
import type { Dialect, ParseContext } from './dialect.ts'
import { openAiChat } from './openai_chat.ts'
import { parseResponsesCount, responses } from './responses.ts'
import { type Counted, parseTokenize } from './tokenize.ts'

export interface Counter {
  readonly paths: readonly string[]
  /** Whose errors it answers with. */
  readonly dialect: Pick<Dialect, 'errorBody' | 'status'>
  /** Whether the answer needs the ids too. */
  readonly withIds: boolean
  parse(body: unknown, context: ParseContext): Result<Counted>
  answer(counted: TokenizeAnswer): object
}

export const messageCounter: Counter = {
  paths: ['/v1/messages/count_tokens', '/anthropic/v1/messages/count_tokens', '/anthropic/messages/count_tokens'],
  dialect: anthropic,
  withIds: false,
  parse: parseAnthropicCount,
  answer: ({ count }) => ({ input_tokens: count }),
}

export const responseCounter: Counter = {
  paths: ['/v1/responses/input_tokens', '/responses/input_tokens'],
  dialect: responses,
  withIds: false,
  parse: parseResponsesCount,
  answer: ({ count }) => ({ object: 'response.input_tokens', input_tokens: count }),
}

export const tokenizer: Counter = {
  paths: ['/v1/tokenize', '/tokenize'],
  dialect: openAiChat,
  withIds: true,
  parse: parseTokenize,
  answer: ({ count, contextTokens, ids }) => ({ count, max_model_len: contextTokens, tokens: ids }),
}

export const COUNTERS: readonly Counter[] = [messageCounter, responseCounter, tokenizer]
