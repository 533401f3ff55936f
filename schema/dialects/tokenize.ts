// The body of POST /tokenize, in vLLM's words: a prompt as it is, or a conversation as a chat request would have it.
import { z } from 'zod'
import { DEFAULT_CHAT_FORMAT } from '../chat/index.ts'
import { type ApiError, ok, type Result } from '../errors.ts'
import type { Run } from '../wire.ts'
import type { ParseContext } from './dialect.ts'
import { openAiChat } from './openai_chat.ts'
import { badParameter, isObject, noObject } from './openai_chat_body.ts'
import { readShape } from './read_shape.ts'

/** What a tokenizer is asked. */
export type Counted = Pick<Run, 'model' | 'prompt' | 'chatFormat' | 'shownModel'>

export const tokenizePromptSchema = z.strictObject({
  model: z.string().min(1).max(128),
  /** Special strings become their tokens; nothing is added. */
  prompt: z.string(),
  /** What a prompt as it is means. */
  add_special_tokens: z.literal(false, 'is not supported: nothing is added to a prompt').nullish(),
})

export const tokenizeAnswerSchema = z.strictObject({
  count: z.int().nonnegative(),
  max_model_len: z.int().positive(),
  tokens: z.array(z.int().nonnegative()),
})

const refused = (error: ApiError): Result<Counted> => ({ ok: false, error })

export const parseTokenize = (body: unknown, context: ParseContext): Result<Counted> => {
  if (!isObject(body)) return noObject
  if (body.messages !== undefined) return openAiChat.parse(body, context)
  const parsed = readShape(tokenizePromptSchema, body)
  if (!parsed.success) return refused(badParameter(parsed.error))
  return ok({ ...parsed.data, chatFormat: (context.format ?? DEFAULT_CHAT_FORMAT).name })
}
